"""Bytes to a checked ModelProto. Nothing outside the bytes is read, nothing in them is run."""

import io
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import google.protobuf.message
import onnx
import onnx.checker
import onnx.defs
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from pruning.errors import SecateurError
from pruning.formats.bundle import Bundle, open_bundle
from pruning.formats.limits import Limits
from pruning.formats.magic import ACCEPTED_MODELS, EXPORT, HEAD, by_magic, unsupported
from pruning.formats.onnx.ends import DOMAIN
from pruning.formats.onnx.external import (
    ModelFiles,
    checked_copy,
    fill,
    model_name,
    regions,
)
from pruning.formats.onnx.operation import Operation
from pruning.formats.onnx.scan import check_counts
from pruning.formats.onnx.text import shown as shown
from pruning.formats.recognise import recognise, walk_model_fields

OLDEST_OPSET = 9
NEWEST_OPSET = onnx.defs.onnx_opset_version()
_DEFAULT_DOMAINS = ("", "ai.onnx")
_MOST_NAMED = 20
_DEEPEST = 12
_ATTRIBUTES = 256
_Read = tuple[GraphProto, list[Operation]]
_INLINE = (
    "Put the functions' nodes in their place first, with "
    "onnx.inliner.inline_local_functions(model), and upload what it gives."
)
_EXPORT = "Export the model again and upload the whole file."


@dataclass(frozen=True)
class Parsed:
    """A checked model.

    Args:
        proto: With all of its numbers, wherever the upload kept them.
        nodes: Those of its graph.
        files: What else came with it, and where; None for a model that came alone.
    """

    proto: ModelProto
    nodes: list[Operation]
    files: ModelFiles | None = None


def parse(source: bytes | Path, limits: Limits) -> Parsed:
    """The model in `source`, a file, or a folder or archive that holds it with its weights.

    It is within the limits and accepted by ONNX's checker.

    Raises:
        SecateurError: `model_too_large`, `unsupported_format`, `model_truncated`,
            `model_unreadable`, `external_data`, `opset_unsupported`, `operator_unsupported`
            (functions, other domains, sparse constants), `model_invalid`.
    """
    if isinstance(source, bytes) or not is_bundle(source):
        name = "model.onnx" if isinstance(source, bytes) else source.name
        return _parsed(_read(source, limits), limits, source, None, name)
    with open_bundle(source, limits) as bundle:
        name = model_name(bundle)
        total = sum(bundle.sizes.values())
        if total > limits.model_bytes:
            raise SecateurError(
                "model_too_large",
                f"The files have {total} bytes; the limit is {limits.model_bytes}.",
            )
        return _parsed(bundle.read(name, limits.model_bytes), limits, source, bundle, name)


def is_bundle(source: Path) -> bool:
    """Whether an upload is a folder or an archive."""
    if source.is_dir():
        return True
    with source.open("rb") as file:
        head = file.read(HEAD)
    return head[:2] == b"PK" or by_magic(head, len(head)) == "a tar archive"


def _parsed(
    data: bytes, limits: Limits, source: bytes | Path, bundle: Bundle | None, name: str
) -> Parsed:
    proto = _decode(data, limits)
    if not proto.HasField("graph"):
        raise SecateurError("model_unreadable", "The file holds no graph.", hint=_EXPORT)
    every = _walk(proto, limits)
    _check_size(every, limits)
    found, same = regions(proto, bundle, name)
    _check_vocabulary(proto, every)
    try:
        checked = checked_copy(proto) if found else data
        onnx.checker.check_model(checked)
    except Exception as error:  # the checker raises its own kinds and whatever its C++ part throws
        raise SecateurError(
            "model_invalid",
            f"ONNX's checker refuses the graph: {shown(_first_lines(error))}",
            hint="Run onnx.checker.check_model on the file before you upload it.",
        ) from None
    nodes = every[0][1]
    if bundle is None:
        return Parsed(proto, nodes)
    fill(proto, found, bundle)
    assert isinstance(source, Path)
    files = ModelFiles(source, bundle.kind, bundle.prefix, name, found, same, limits)
    return Parsed(proto, nodes, files)


def opset(proto: ModelProto) -> int:
    """The version of the default operator set that the model imports, 0 where it imports none."""
    return max((o.version for o in proto.opset_import if o.domain in _DEFAULT_DOMAINS), default=0)


def _read(source: bytes | Path, limits: Limits) -> bytes:
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if size > limits.model_bytes:
        raise SecateurError(
            "model_too_large",
            f"The file has {size} bytes; the limit is {limits.model_bytes}.",
        )
    if not isinstance(source, bytes):
        looks = recognise(source)
        if not looks.startswith("onnx"):
            raise unsupported(looks, ACCEPTED_MODELS, EXPORT)
        source = source.read_bytes()
    return source


def _decode(data: bytes, limits: Limits) -> ModelProto:
    whole = walk_model_fields(io.BytesIO(data), len(data)) if data else None
    if whole is None:
        raise SecateurError(
            "unsupported_format",
            f"The bytes are not an ONNX model; what is read here: {ACCEPTED_MODELS}.",
            hint=EXPORT,
        )
    if not whole:
        raise SecateurError("model_truncated", "The ONNX file ends early.", hint=_EXPORT)
    check_counts(data, limits.nodes + 3 * limits.tensors)
    try:
        return ModelProto.FromString(data)
    except (google.protobuf.message.DecodeError, ValueError, RecursionError) as error:
        raise SecateurError(
            "model_unreadable", f"The ONNX file can't be parsed ({shown(str(error))}).",
            hint=_EXPORT,
        ) from None  # fmt: skip


def graphs(proto: ModelProto) -> Iterator[GraphProto]:
    """The model's graph and those that its nodes hold.

    Raises:
        SecateurError: `model_too_large` where they are nested too deeply.
    """
    pending = [(proto.graph, 0)]
    while pending:
        graph, depth = pending.pop()
        if depth > _DEEPEST:
            raise _too_deep(graph)
        yield graph
        for node in graph.node:
            pending.extend((inner, depth + 1) for _, inner in subgraphs(node))


def subgraphs(node: NodeProto) -> Iterator[tuple[str, GraphProto]]:
    """The graphs that a node holds, with the attributes' names."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.name, attribute.g
        for inner in attribute.graphs:
            yield attribute.name, inner


def _too_deep(graph: GraphProto) -> SecateurError:
    where = shown(graph.name) if isinstance(graph.name, str) else "graph"
    message = f"Graphs are nested over {_DEEPEST} deep."
    return SecateurError("model_too_large", message, where=where)


def _walk(proto: ModelProto, limits: Limits) -> list[_Read]:
    """Every graph with its nodes, the model's own first, each read once.

    Raises:
        SecateurError: `model_too_large` for too many nodes or graphs nested too deeply,
            `model_unreadable` for names that are not text.
    """
    texts: list[object] = [proto.producer_name, proto.producer_version]
    texts += [o.domain for o in proto.opset_import]
    texts += [part for f in proto.functions for part in (f.name, f.domain)]
    _check_text(texts)
    found: list[_Read] = []
    steps = 0
    pending = [(proto.graph, 0)]
    while pending:
        graph, depth = pending.pop()
        if depth > _DEEPEST:
            raise _too_deep(graph)
        steps += len(graph.node)
        if steps > limits.nodes:
            raise SecateurError(
                "model_too_large", f"The graph has over {limits.nodes} nodes, which is the limit."
            )
        for node in graph.node:
            if len(node.attribute) > _ATTRIBUTES:
                raise SecateurError("model_too_large", f"A node has over {_ATTRIBUTES} attributes.")
        nodes = [Operation(node) for node in graph.node]
        _check_text(_names(graph, nodes))
        found.append((graph, nodes))
        pending.extend((inner, depth + 1) for node in nodes for _, inner in node.bodies)
    return found


def _names(graph: GraphProto, nodes: list[Operation]) -> list[object]:
    found: list[object] = [graph.name]
    found += [tensor.name for tensor in graph.initializer]
    found += [value.name for value in graph.value_info]
    for value in (*graph.input, *graph.output):
        found.append(value.name)
        found += [d.dim_param for d in value.type.tensor_type.shape.dim]
    for node in nodes:
        found += node.texts
    return found


def _check_text(texts: Iterable[object]) -> None:
    """Protocol buffers hand out text that is not UTF-8 as bytes, which no name may be."""
    if not {*map(type, texts)} <= {str}:
        raise SecateurError(
            "model_unreadable", "A name in the ONNX file is not UTF-8 text.", hint=_EXPORT
        )


def _check_size(every: list[_Read], limits: Limits) -> None:
    count = numbers = 0
    for tensor, name in _tensors(every):
        count += 1
        dims = list(tensor.dims)
        if min(dims, default=0) < 0:
            raise SecateurError("model_invalid", "A tensor has a negative size.", where=shown(name))
        elements = 0 if 0 in dims else 1
        for size in dims:
            elements *= size
            if elements > limits.parameters:
                break  # thousands of sizes would make a product of megabytes
        numbers += elements
        if numbers > limits.parameters:
            raise SecateurError(
                "model_too_large",
                f"The constants hold more than {limits.parameters} numbers.",
                where=shown(name),
            )
    if count > limits.tensors:
        raise SecateurError(
            "model_too_large", f"The graph has {count} constants; the limit is {limits.tensors}."
        )


def _tensors(every: list[_Read]) -> Iterator[tuple[TensorProto, str]]:
    """Every tensor with a name to show: initialisers and attributes, in subgraphs too."""
    for graph, nodes in every:
        for tensor in graph.initializer:
            yield tensor, tensor.name
        for node in nodes:
            for tensor in node.tensors:
                yield tensor, node.output[0] if node.output else node.name


def _check_vocabulary(proto: ModelProto, every: list[_Read]) -> None:
    """Opset, domains, functions and sparse constants."""
    foreign = Counter(shown(f"function {f.name}") for f in proto.functions)
    for graph, nodes in every:
        foreign.update(
            shown(f"{node.domain}.{node.op_type}")
            for node in nodes
            if node.domain not in (*_DEFAULT_DOMAINS, DOMAIN)
        )
        if graph.sparse_initializer:
            foreign["sparse_initializer"] += len(graph.sparse_initializer)
    if foreign:
        named = sorted(foreign)[:_MOST_NAMED]
        more = f" and {len(foreign) - len(named)} more" if len(foreign) > len(named) else ""
        raise SecateurError(
            "operator_unsupported",
            f"The graph goes beyond ONNX's own dense operators: {', '.join(named)}{more}.",
            where=named[0],
            hint=_INLINE
            if proto.functions
            else "Export with standard ONNX operators only, and without graph optimisation.",
            operators=named,
        )
    version = opset(proto)
    if not OLDEST_OPSET <= version <= NEWEST_OPSET:
        raise SecateurError(
            "opset_unsupported",
            f"The model uses opset {version}; {OLDEST_OPSET} to {NEWEST_OPSET} are read.",
            hint="Export with another opset_version, or convert with onnx.version_converter.",
        )


def _first_lines(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
