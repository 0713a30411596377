"""An ONNX file to a trainable module, its facts, and the ties between the two."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto, TensorProto

from pruning.errors import SecateurError
from pruning.facts import ModelFacts
from pruning.formats.limits import Limits
from pruning.formats.onnx.binding import Binding
from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.facts import collect_facts
from pruning.formats.onnx.graph import FLOATS, Graph, read_graph, type_name
from pruning.formats.onnx.module import OnnxModule
from pruning.formats.onnx.ops import OPERATORS
from pruning.formats.onnx.parse import parse, shown


@dataclass
class ImportedModel:
    """A model as uploaded and as a module.

    Attributes:
        module: Trainable, in eval mode; float16 models compute in float32.
        facts: What intake learned.
        proto: The uploaded model, never changed.
        bindings: For each tensor of the file that is a parameter or statistic of the module, how.
        weight_names: `module.path.weight` to the tensor's name in the file, shared ones included.
    """

    module: OnnxModule
    facts: ModelFacts
    proto: ModelProto
    bindings: list[Binding]
    weight_names: dict[str, str]


def read_onnx(source: bytes | Path | str, limits: Limits | None = None) -> ImportedModel:
    """Reads a self-contained ONNX model.

    Args:
        source: The file's bytes or its path.
        limits: Sizes that are refused; the defaults where left out.

    Raises:
        SecateurError: `unsupported_format`, `model_*`, `operator_*`, `opset_unsupported`,
            `external_data`, `weights_non_finite`; always with the node or tensor in `where`.
    """
    limits = limits or Limits()
    proto = parse(source if isinstance(source, bytes) else Path(source), limits)
    graph = read_graph(proto)
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
    facts = collect_facts(graph, module, names, limits)
    return ImportedModel(module, facts, proto, list(builder.bindings.values()), names)


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
        where=Node(first, graph.uses).label,
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
        if not kind.shape.dim:
            raise SecateurError(
                "model_invalid",
                f"The input {shown(value.name)!r} has no batch axis.",
                where=shown(value.name),
            )
        if kind.elem_type not in (*FLOATS, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL):
            name = type_name(kind.elem_type)
            raise SecateurError(
                "operator_attribute_unsupported",
                f"The input {shown(value.name)!r} has type {name}.",
                where=shown(value.name),
                hint="Inputs of type float32, float16, float64, int64, int32 and bool are read.",
            )


def _weight_names(module: OnnxModule, bindings: dict[str, Binding]) -> dict[str, str]:
    owner = {id(module.get_parameter(b.path)): s for s, b in bindings.items() if _is_weight(b)}
    return {
        path: owner[id(parameter)]
        for path, parameter in module.named_parameters(remove_duplicate=False)
    }


def _is_weight(binding: Binding) -> bool:
    return not binding.path.rpartition(".")[2].startswith("running_")
