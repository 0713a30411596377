"""What intake learns of a model: sizes from a pass on the meta device, the batch by trying."""

from collections import Counter

from onnx import TensorProto, ValueInfoProto, helper

from pruning.axes import Declared
from pruning.facts import ModelFacts, TensorFact
from pruning.formats.facts import distinct, layer_facts, ties
from pruning.formats.limits import Limits
from pruning.formats.onnx.graph import Constant, Graph, type_name
from pruning.formats.onnx.measure import Measured, measure
from pruning.formats.onnx.module import OnnxModule
from pruning.formats.onnx.parse import opset, shown
from pruning.layerwise.weights import weight_names as matrices


def collect_facts(
    graph: Graph,
    module: OnnxModule,
    weight_names: dict[str, str],
    limits: Limits,
    declared: Declared | None = None,
) -> ModelFacts:
    """Facts of an imported model.

    Positions, multiply-adds and bytes are counted in a pass on random inputs, whose cost is known
    from shapes before any of it is paid.

    Raises:
        SecateurError: `model_too_large` for activations over the limit, `model_invalid` where the
            graph can't run on inputs of its own shapes.
    """
    measured = measure(graph, module, list(map(tensor_fact, graph.inputs)), limits, declared)
    sizes = measured.sizes
    used = set(weight_names.values())
    dtypes = {c.source: file_dtype(c) for c in graph.constants.values() if c.source in used}
    outputs = sizes.outputs if sizes else {}
    layers = layer_facts(
        module, weight_names, dtypes, _output_layers(module), outputs, sizes.batch if sizes else 1
    )
    macs = [layer.macs for layer in layers]
    return ModelFacts(
        format="onnx",
        version=str(opset(graph.proto)),
        producer=shown(
            f"{graph.proto.producer_name} {graph.proto.producer_version}".strip(), length=80
        ),
        inputs=measured.inputs,
        outputs=[_output_fact(value, measured) for value in graph.proto.graph.output],
        layers=layers,
        ties=ties(module),
        dtypes=sorted(set(dtypes.values())),
        parameters=sum(p.numel() for p in module.parameters()),
        prunable_parameters=distinct(layers),
        macs=None if None in macs else sum(m for m in macs if m is not None),
        activation_bytes=sizes.total if sizes else None,
        batch=measured.batch,
        operators=dict(sorted(Counter(shown(n.op_type) for n in graph.proto.graph.node).items())),
    )


def file_dtype(constant: Constant) -> str:
    """The type of the tensor in the file, whatever the graph casts it to."""
    if isinstance(constant.tensor, TensorProto):
        return str(helper.tensor_dtype_to_np_dtype(constant.tensor.data_type).name)
    return str(constant.tensor.dtype.name)


def tensor_fact(value: ValueInfoProto) -> TensorFact:
    """Name, type and shape of a graph's input or output."""
    kind = value.type.tensor_type
    try:
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type).name
    except KeyError:
        dtype = type_name(kind.elem_type).lower()
    shape: list[int | str] = [
        # PaddlePaddle writes -1 for a size that is open.
        d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else shown(d.dim_param) or "?"
        for d in kind.shape.dim
    ]
    return TensorFact(name=value.name, dtype=dtype, shape=shape)


def _output_fact(value: ValueInfoProto, measured: Measured) -> TensorFact:
    fact = tensor_fact(value)
    axis = measured.axes.get(value.name)
    if axis is None:  # of a fixed number of samples, the first axis that has it
        counts = {f.count for f in measured.inputs if f.axis is not None}
        axis = next((a for a, size in enumerate(fact.shape) if size in counts), 0)
    return fact.model_copy(update={"samples": axis})


def _output_layers(module: OnnxModule) -> set[str]:
    """Layers from which a graph output is reached without another prunable layer in between."""
    wanted, found = set(module.output_names), set()
    for step in reversed(module.steps):
        if not wanted.intersection(step.outputs):
            continue
        if step.layer and next(matrices(module.get_submodule(step.layer)), None):
            found.add(step.layer)
        else:
            wanted.update(name for name in step.inputs if name)
    return found
