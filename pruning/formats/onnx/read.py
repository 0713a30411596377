"""An ONNX file to a trainable module, its facts, and the ties between the two."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from pruning.axes import Declared
from pruning.errors import SecateurError
from pruning.formats.contract import Imported
from pruning.formats.failures import Accepted, StepError
from pruning.formats.limits import Limits
from pruning.formats.onnx.binding import Binding
from pruning.formats.onnx.builder import Builder
from pruning.formats.onnx.elsewhere import runs_elsewhere, trial_inputs
from pruning.formats.onnx.external import ModelFiles
from pruning.formats.onnx.facts import collect_facts
from pruning.formats.onnx.fold import simplify
from pruning.formats.onnx.graph import FLOATS, Graph, label, type_name
from pruning.formats.onnx.module import OnnxModule, layer_at
from pruning.formats.onnx.node import Node
from pruning.formats.onnx.ops import OPERATORS
from pruning.formats.onnx.parse import parse, shown
from pruning.formats.onnx.write import UNSHARED, changed_model, held_tensors, write_onnx

_MARK = re.compile(f"{re.escape(UNSHARED)}[0-9]+$")


@dataclass
class ImportedModel(Imported):
    """A model as uploaded and as a module, which computes in float32 what is float16 in the file.

    Attributes:
        proto: The uploaded model, never changed.
        bindings: For each tensor of the file that is a parameter or statistic of the module, how.
        frozen: Tensors of the file that something other than a parameter reads too.
        files: The files of a model that keeps its weights beside it.
    """

    module: OnnxModule
    proto: ModelProto = field(kw_only=True)
    bindings: list[Binding] = field(kw_only=True)
    frozen: frozenset[str] = field(kw_only=True, default=frozenset())
    files: ModelFiles | None = field(kw_only=True, default=None)

    @property
    def file_batch(self) -> int | None:
        """What is written into the graph, or declared, to which onnxruntime keeps; None for any."""
        if self.module.scaling is not None:
            return self.module.scaling.batch
        sizes = [fact.count for fact in self.facts.inputs]
        declared = next((size for size in sizes if isinstance(size, int) and size > 0), None)
        return declared or self.facts.batch

    def write(self, folder: Path, stem: str) -> list[Path]:
        """Writes the uploaded model with the module's current parameters and statistics."""
        if self.files is not None:
            return self.files.write(changed_model(self), folder, stem)
        path = folder / f"{stem}.onnx"
        write_onnx(self, path)
        return [path]

    def tensors(self) -> Mapping[str, np.ndarray]:
        """Initialisers and Constant nodes by name, those of subgraphs among them."""
        held = held_tensors(self.proto)
        same = () if self.files is None else self.files.same
        return {name: array for name, array in held.items() if name not in same}

    def skeleton(self) -> object:
        """All of the file but the tensors' numbers, as if shared tensors had not been copied."""
        proto = self.proto
        head = ModelProto()
        head.CopyFrom(ModelProto(
            ir_version=proto.ir_version, opset_import=proto.opset_import,
            producer_name=proto.producer_name, producer_version=proto.producer_version,
            domain=proto.domain, model_version=proto.model_version, doc_string=proto.doc_string,
            metadata_props=proto.metadata_props,
        ))  # fmt: skip
        beside = None if self.files is None else self.files.skeleton()
        return [head.SerializeToString(deterministic=True), _graph_skeleton(proto.graph), beside]


def read_onnx(
    source: bytes | Path | str, limits: Limits | None = None, declared: Declared | None = None
) -> ImportedModel:
    """Reads an ONNX model.

    Args:
        source: The file's bytes or its path, or that of a folder or archive that holds it with the
            files of its weights.
        limits: Sizes that are refused; the defaults where left out.
        declared: The axis of the samples by input, where the user says.

    Raises:
        SecateurError: `unsupported_format`, `model_*`, `operator_*`, `opset_unsupported`,
            `external_data`, `weights_non_finite`; always with the node or tensor in `where`.
    """
    limits = limits or Limits()
    path = Path() if isinstance(source, bytes) else Path(source)
    parsed = parse(source if isinstance(source, bytes) else path, limits)
    proto, files = parsed.proto, parsed.files
    graph = simplify(proto, parsed.nodes, OPERATORS, limits, {} if files is None else files.same)
    _check_operators(graph)
    _check_inputs(graph)
    builder = Builder(graph)
    for step in graph.nodes:
        if builder.fused.intersection(step.output):
            continue
        node = Node(step, graph.uses)
        OPERATORS[node.operator](node, builder)
        if left := node.attributes.unread():
            raise node.unsupported(f"attribute {', '.join(map(shown, left))}")
    module = builder.finish()
    names = _weight_names(module, builder.bindings)
    try:
        facts = collect_facts(graph, module, names, limits, declared)
    except StepError as error:
        if runs_elsewhere(proto)(trial_inputs(graph)):
            raise error.ours() from error.__cause__
        raise
    module.accepted = Accepted.of(facts.inputs, runs_elsewhere(proto))
    return ImportedModel(
        module=module,
        facts=facts,
        weight_names=names,
        source=path,
        proto=proto,
        bindings=builder.bindings,
        frozen=frozenset(graph.frozen),
        files=files,
    )


def read(source: Path, limits: Limits, declared: Declared | None = None) -> ImportedModel:
    """As `pruning.formats.contract` asks: the model in a file."""
    return read_onnx(source, limits, declared)


def _check_operators(graph: Graph) -> None:
    unknown = Counter(n.op_type for n in graph.nodes if n.op_type not in OPERATORS)
    if not unknown:
        return
    names = {shown(name): count for name, count in unknown.items()}
    first = next(n for n in graph.nodes if n.op_type in unknown)
    listed = ", ".join(f"{name} ({count})" for name, count in sorted(names.items()))
    raise SecateurError(
        "operator_unsupported",
        f"The graph uses operators that are not read: {listed}.",
        where=label(first),
        hint="Export without them, or without graph optimisation; "
        "details.operators lists all of them.",
        operators=sorted(names),
    )


def _check_inputs(graph: Graph) -> None:
    if not graph.inputs or not graph.outputs:
        raise SecateurError("model_invalid", "The graph needs an input and an output.")
    for value in graph.inputs:
        kind = value.type.tensor_type
        if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
            raise SecateurError(
                "model_invalid",
                f"The input {shown(value.name)!r} has no shape, or is not a tensor.",
                where=shown(value.name),
                hint="Export with the shapes of the inputs; sizes may be symbolic.",
            )
        if kind.elem_type not in (*FLOATS, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL):
            name = type_name(kind.elem_type)
            raise SecateurError(
                "operator_attribute_unsupported",
                f"The input {shown(value.name)!r} has type {name}.",
                where=shown(value.name),
                hint="Inputs of type float32, float16, float64, int64, int32 and bool are read.",
            )


def _weight_names(module: OnnxModule, bindings: list[Binding]) -> dict[str, str]:
    owner = {}
    for binding in bindings:
        path, _, leaf = binding.path.rpartition(".")
        if not leaf.startswith("running_"):
            owner[id(layer_at(module, path)._parameters[leaf])] = binding.source
    return {
        path: owner[id(parameter)]
        for path, parameter in module.named_parameters(remove_duplicate=False)
    }


def _graph_skeleton(graph: GraphProto) -> list[object]:
    def plain(name: str) -> str:
        return _MARK.sub("", name)

    held = {tensor.name for tensor in graph.initializer}
    ends = [
        v.SerializeToString(deterministic=True)
        for v in (*graph.input, *graph.output, *graph.value_info)
        if not (v.name in held and _MARK.search(v.name))
    ]
    tensors = [
        (t.name, t.data_type, tuple(t.dims)) for t in graph.initializer if not _MARK.search(t.name)
    ]
    steps = [
        (n.op_type, n.domain, n.name, *map(plain, n.input), "->", *n.output, *_attributes(n))
        for n in graph.node
    ]
    return [graph.name, graph.doc_string, ends, tensors, steps]


def _attributes(node: NodeProto) -> list[object]:
    found: list[object] = []
    for attribute in node.attribute:
        value: object
        if attribute.type == AttributeProto.GRAPH:
            value = _graph_skeleton(attribute.g)
        elif node.op_type != "Constant":
            value = attribute.SerializeToString(deterministic=True)
        elif attribute.type == AttributeProto.TENSOR:
            value = (attribute.t.data_type, tuple(attribute.t.dims))
        else:
            value = (attribute.type, len(attribute.floats))
        found.append((attribute.name, value))
    return found
