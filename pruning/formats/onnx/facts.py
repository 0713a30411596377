"""What intake learns of a model: sizes from a pass on the meta device, the batch by trying."""

from collections import Counter
from typing import Any

from onnx import TensorProto, ValueInfoProto, helper
from torch import nn

from pruning.facts import LayerFact, ModelFacts, TensorFact
from pruning.formats.limits import Limits
from pruning.formats.onnx.graph import Constant, Graph, type_name
from pruning.formats.onnx.measure import Sizes, measure
from pruning.formats.onnx.module import OnnxModule
from pruning.formats.onnx.parse import opset, shown

PRUNABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def collect_facts(
    graph: Graph, module: OnnxModule, weight_names: dict[str, str], limits: Limits
) -> ModelFacts:
    """Facts of an imported model.

    Positions, multiply-adds and bytes are counted in a pass on random inputs, whose cost is known
    from shapes before any of it is paid.

    Raises:
        SecateurError: `model_too_large` for activations over the limit, `model_invalid` where the
            graph can't run on inputs of its own shapes.
    """
    inputs = [tensor_fact(value) for value in graph.inputs]
    sizes, batch = measure(graph, module, inputs, limits)
    layers = _layers(graph, module, weight_names, sizes)
    prunable = {id(module.get_parameter(f"{layer.name}.weight")): layer for layer in layers}
    macs = [layer.macs for layer in layers]
    return ModelFacts(
        format="onnx",
        version=str(opset(graph.proto)),
        producer=shown(
            f"{graph.proto.producer_name} {graph.proto.producer_version}".strip(), length=80
        ),
        inputs=inputs,
        outputs=[tensor_fact(value) for value in graph.proto.graph.output],
        layers=layers,
        ties=_ties(module),
        dtypes=sorted({file_dtype(c) for c in _bound(graph, weight_names)}),
        parameters=sum(p.numel() for p in module.parameters()),
        prunable_parameters=sum(layer.parameters for layer in prunable.values()),
        macs=None if None in macs else sum(m for m in macs if m is not None),
        activation_bytes=sizes.total if sizes else None,
        batch=batch,
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


def _layers(
    graph: Graph, module: OnnxModule, weight_names: dict[str, str], sizes: Sizes | None
) -> list[LayerFact]:
    outputs = _output_layers(module)
    dtypes = {c.source: file_dtype(c) for c in graph.constants.values() if c.source}
    first: dict[int, str] = {}
    facts = []
    for name, layer in module.named_modules(remove_duplicate=False):
        if not isinstance(layer, PRUNABLE) or not isinstance(layer.weight, nn.Parameter):
            continue
        weight = layer.weight
        source = weight_names[f"{name}.weight"]
        positions = macs = activation = None
        if sizes and name in sizes.outputs:
            numbers, size = sizes.outputs[name]
            positions = max(1, numbers // (sizes.batch * weight.shape[0]))
            macs, activation = positions * weight.numel(), -(-size // sizes.batch)
        facts.append(
            LayerFact(
                name=name,
                kind=type(layer).__name__,
                weight=source,
                shape=list(weight.shape),
                parameters=weight.numel(),
                dtype=dtypes[source],
                groups=getattr(layer, "groups", 1),
                positions=positions,
                macs=macs,
                activation_bytes=activation,
                is_output=name in outputs,
                tied_to=first.get(id(weight)),
            )
        )
        first.setdefault(id(weight), name)
    return facts


def _output_layers(module: OnnxModule) -> set[str]:
    """Layers from which a graph output is reached without another prunable layer in between."""
    wanted, found = set(module.output_names), set()
    for step in reversed(module.steps):
        if not wanted.intersection(step.outputs):
            continue
        if step.layer and isinstance(module.get_submodule(step.layer), PRUNABLE):
            found.add(step.layer)
        else:
            wanted.update(name for name in step.inputs if name)
    return found


def _ties(module: OnnxModule) -> list[list[str]]:
    """Paths of parameters that are one object, in groups."""
    groups: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _bound(graph: Graph, weight_names: dict[str, str]) -> list[Any]:
    sources = set(weight_names.values())
    return [c for c in graph.constants.values() if c.source in sources]
