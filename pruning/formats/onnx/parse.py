"""Bytes to a checked ModelProto. Nothing outside the bytes is read, nothing in them is run."""

import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import google.protobuf.message
import onnx
import onnx.checker
import onnx.defs
from onnx import AttributeProto, ModelProto, TensorProto

from pruning.errors import SecateurError
from pruning.formats.limits import Limits
from pruning.formats.recognise import ACCEPTED_MODELS, recognise, walk_model_fields

OLDEST_OPSET = 13
NEWEST_OPSET = onnx.defs.onnx_opset_version()
_DEFAULT_DOMAINS = ("", "ai.onnx")
_MOST_NAMED = 20
_EXPORT = "Export the model again and upload the whole file."


def parse(source: bytes | Path, limits: Limits) -> ModelProto:
    """The model in `source`, self-contained, within the limits and accepted by ONNX's checker.

    Raises:
        SecateurError: `model_too_large`, `unsupported_format`, `model_truncated`,
            `model_unreadable`, `external_data`, `opset_unsupported`, `operator_unsupported`
            (functions, other domains, sparse constants), `model_invalid`.
    """
    proto = _decode(_read(source, limits))
    if not proto.HasField("graph"):
        raise SecateurError("model_unreadable", "The file holds no graph.", hint=_EXPORT)
    _check_text(proto)
    _check_size(proto, limits)
    _check_self_contained(proto)
    _check_vocabulary(proto)
    try:
        onnx.checker.check_model(proto)
    except Exception as error:  # the checker raises its own kinds and whatever its C++ part throws
        raise SecateurError(
            "model_invalid",
            f"ONNX's checker refuses the graph: {shown(_first_lines(error))}",
            hint="Run onnx.checker.check_model on the file before you upload it.",
        ) from None
    return proto


def opset(proto: ModelProto) -> int:
    """The version of the default operator set that the model imports, 0 where it imports none."""
    return max((o.version for o in proto.opset_import if o.domain in _DEFAULT_DOMAINS), default=0)


def shown(name: str, length: int = 120) -> str:
    """A text from the file as it may appear in a message: printable and short."""
    clean = "".join(c if c.isprintable() else "?" for c in name)
    return clean if len(clean) <= length else clean[: length - 3] + "..."


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
            looks = "an archive of arrays (.npz)" if looks == "npz" else looks
            raise SecateurError(
                "unsupported_format",
                f"This looks like {looks}; models are read from {ACCEPTED_MODELS}.",
                hint="Export the model to ONNX, for example with torch.onnx.export.",
            )
        source = source.read_bytes()
    return source


def _decode(data: bytes) -> ModelProto:
    whole = walk_model_fields(io.BytesIO(data), len(data)) if data else None
    if whole is None:
        raise SecateurError(
            "unsupported_format",
            f"The bytes are not an ONNX model; models are read from {ACCEPTED_MODELS}.",
            hint="Export the model to ONNX, for example with torch.onnx.export.",
        )
    if not whole:
        raise SecateurError("model_truncated", "The ONNX file ends early.", hint=_EXPORT)
    try:
        return ModelProto.FromString(data)
    except (google.protobuf.message.DecodeError, ValueError, RecursionError) as error:
        raise SecateurError(
            "model_unreadable", f"The ONNX file can't be parsed ({shown(str(error))}).",
            hint=_EXPORT,
        ) from None  # fmt: skip


def _check_text(proto: ModelProto) -> None:
    """Protocol buffers hand out text that is not UTF-8 as bytes, which no name may be."""
    graph = proto.graph
    values = (*graph.input, *graph.output, *graph.value_info)
    texts: list[object] = [proto.producer_name, proto.producer_version, graph.name]
    texts += [o.domain for o in proto.opset_import]
    texts += [part for f in proto.functions for part in (f.name, f.domain)]
    texts += [tensor.name for tensor in graph.initializer]
    for value in values:
        texts.append(value.name)
        texts += [d.dim_param for d in value.type.tensor_type.shape.dim]
    for node in graph.node:
        texts += [node.name, node.op_type, node.domain, *node.input, *node.output]
        texts += [part for a in node.attribute for part in (a.name, a.ref_attr_name)]
    if not all(isinstance(text, str) for text in texts):
        raise SecateurError(
            "model_unreadable", "A name in the ONNX file is not UTF-8 text.", hint=_EXPORT
        )


def _check_size(proto: ModelProto, limits: Limits) -> None:
    if len(proto.graph.node) > limits.nodes:
        raise SecateurError(
            "model_too_large",
            f"The graph has {len(proto.graph.node)} nodes; the limit is {limits.nodes}.",
        )
    count = numbers = 0
    for tensor, name in tensors(proto):
        count += 1
        if min(tensor.dims, default=0) < 0:
            raise SecateurError("model_invalid", "A tensor has a negative size.", where=name)
        elements = 0 if 0 in tensor.dims else 1
        for size in tensor.dims:
            elements *= size
            if elements > limits.parameters:
                break  # thousands of sizes would make a product of megabytes
        numbers += elements
        if numbers > limits.parameters:
            raise SecateurError(
                "model_too_large",
                f"The constants hold more than {limits.parameters} numbers.",
                where=name,
            )
    if count > limits.tensors:
        raise SecateurError(
            "model_too_large", f"The graph has {count} constants; the limit is {limits.tensors}."
        )


def tensors(proto: ModelProto) -> Iterator[tuple[TensorProto, str]]:
    """Every tensor of the top-level graph with a name to show: initialisers and attributes."""
    for tensor in proto.graph.initializer:
        yield tensor, shown(tensor.name)
    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t, shown(node.output[0] if node.output else node.name)
            for tensor in attribute.tensors:
                yield tensor, shown(node.name)


def _check_self_contained(proto: ModelProto) -> None:
    for tensor, name in tensors(proto):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise SecateurError(
                "external_data",
                f"The tensor {name!r} is kept in another file.",
                where=name,
                hint="Save the model as one file: onnx.save(model, path, "
                "save_as_external_data=False), or torch.onnx.export(..., external_data=False).",
            )


def _check_vocabulary(proto: ModelProto) -> None:
    """Opset, domains, functions and sparse constants."""
    foreign = Counter(
        shown(f"{node.domain}.{node.op_type}")
        for node in proto.graph.node
        if node.domain not in _DEFAULT_DOMAINS
    )
    foreign.update(shown(f"function {f.name}") for f in proto.functions)
    if proto.graph.sparse_initializer:
        foreign["sparse_initializer"] = len(proto.graph.sparse_initializer)
    if foreign:
        named = sorted(foreign)[:_MOST_NAMED]
        more = f" and {len(foreign) - len(named)} more" if len(foreign) > len(named) else ""
        raise SecateurError(
            "operator_unsupported",
            f"The graph goes beyond ONNX's own dense operators: {', '.join(named)}{more}.",
            where=named[0],
            hint="Export with standard ONNX operators only, and without graph optimisation.",
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
