"""What intake learns of a model: sizes from a pass on the meta device, the batch by trying."""

from collections import Counter
from collections.abc import Mapping
from math import prod

from onnx import TensorProto, ValueInfoProto, helper
from torch import nn

from pruning.axes import Declared
from pruning.facts import COMPUTED, ModelFacts, OtherFact, TensorFact
from pruning.formats.facts import distinct, ties
from pruning.formats.limits import Limits
from pruning.formats.onnx.graph import Constant, Graph, type_name
from pruning.formats.onnx.measure import Measured, measure
from pruning.formats.onnx.module import OnnxModule, Step, layer_at
from pruning.formats.onnx.parse import opset, shown
from pruning.formats.onnx.passes import Sizes
from pruning.formats.onnx.shapes import SMALL
from pruning.layers import Seen, layer_facts, other_facts, weights_inside
from pruning.uses import multiply_adds


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
    seen = _seen(module, sizes, _heads(graph, module))
    layers = layer_facts(module, seen, weight_names, dtypes)
    unbound = _unbound(graph, module, weight_names)
    others = [*other_facts(module, layers), *unbound]
    macs = [layer.macs for layer in layers]
    return ModelFacts(
        format="onnx",
        version=str(opset(graph.proto)),
        producer=shown(
            f"{graph.proto.producer_name} {graph.proto.producer_version}".strip(), length=80
        ),
        inputs=measured.inputs,
        outputs=_outputs(graph, measured),
        layers=layers,
        others=others,
        ties=ties(module),
        dtypes=sorted(set(dtypes.values())),
        parameters=sum(p.numel() for p in module.parameters()) + sum(o.parameters for o in unbound),
        prunable_parameters=distinct(layers),
        macs=None if None in macs else sum(m for m in macs if m is not None),
        activation_bytes=sizes.total if sizes else None,
        batch=measured.batch,
        operators=dict(sorted(Counter(shown(n.op_type) for n in graph.proto.graph.node).items())),
    )


_REAL = {2: "float16", 8: "float64"}


def _outputs(graph: Graph, measured: Measured) -> list[TensorFact]:
    """Of the network; where the file says nothing of a value, as inferred or seen in a pass."""
    declared = {
        value.name: value
        for value in graph.proto.graph.output
        if value.type.tensor_type.HasField("shape")
    }
    facts = []
    for name in graph.outputs:
        if name in declared:
            facts.append(_output_fact(tensor_fact(declared[name]), measured))
            continue
        sizes, itemsize = graph.shapes(SMALL).get(name, (None, 4))
        if sizes is None and measured.sizes is not None:
            sizes = measured.sizes.shapes.get(name)
        axis = measured.axes.get(name, 0)
        shape: list[int | str] = [
            "?" if size is None or place == axis else size
            for place, size in enumerate(sizes or ("?",))
        ]
        fact = TensorFact(name=name, dtype=_REAL.get(itemsize, "float32"), shape=shape)
        facts.append(_output_fact(fact, measured))
    return facts


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


def _output_fact(fact: TensorFact, measured: Measured) -> TensorFact:
    axis = measured.axes.get(fact.name)
    if axis is None:  # of a fixed number of samples, the first axis that has it
        counts = {f.count for f in measured.inputs if f.axis is not None}
        axis = next((a for a, size in enumerate(fact.shape) if size in counts), 0)
    own = {f.count for f in measured.inputs if f.axis is not None}
    size = fact.shape[axis] if axis < len(fact.shape) else None
    if 1 in own and size != 1 and not isinstance(size, str):
        # The file takes one sample, and leaves its axis out of the result.
        return fact.model_copy(update={"shape": [1, *fact.shape], "samples": 0})
    return fact.model_copy(update={"samples": axis})


def _seen(module: OnnxModule, sizes: Sizes | None, heads: set[str]) -> Seen:
    """What the steps and their sizes tell of the weights, as a watched pass would."""
    if sizes is None:
        return Seen(heads=heads)
    total: dict[str, int] = {}
    for path, taken, given in sizes.calls:
        for name, count in multiply_adds(layer_at(module, path), taken, given).items():
            total[f"{path}.{name}"] = total.get(f"{path}.{name}", 0) + count
    batch = sizes.batch
    return Seen(
        heads=heads,
        multiply_adds={name: round(count / batch) for name, count in total.items()},
        activations={path: -(-size // batch) for path, size in sizes.outputs.items()},
    )


def _heads(graph: Graph, module: OnnxModule) -> set[str]:
    """Weights that make an output, see `pruning.uses`: the same, told from steps without a pass."""
    made = _made_of(graph, module)
    wanted = set(module.output_names)
    found: set[str] = set()
    for step in reversed(module.steps):
        if not wanted.intersection(step.outputs):
            continue
        inside = weights_inside(layer_at(module, step.layer)) if step.layer else []
        if inside:
            found.update(f"{step.layer}.{name}" for name in inside)
        elif step.operator not in ("Shape", "Size") and not _factors(step, made):
            wanted.update(name for name in step.inputs if name)
    return found


_PRODUCTS = ("MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum")


def _made_of(graph: Graph, module: OnnxModule) -> dict[str, frozenset[str]]:
    """Values that do not depend on the inputs, with the matrices of the file behind each.

    Of layers' weights that a step reads as values the layer stands.
    """
    made = {
        name: constant.made_of | ({constant.source} if constant.source else set())
        if len(constant.shape) > 1 and name not in module.references
        else frozenset()
        for name, constant in graph.constants.items()
    }
    for step in module.steps:
        given = [made.get(name) for name in step.inputs if name]
        if step.operator in ("Shape", "Size"):
            made.update(dict.fromkeys(step.outputs, frozenset()))
        elif not step.layer and None not in given:
            behind = frozenset(source for part in given if part for source in part)
            made.update(dict.fromkeys(step.outputs, behind))
    return made


def _factors(step: Step, made: Mapping[str, frozenset[str]]) -> set[str]:
    """The matrices that a factor of a product is computed from; none where a layer multiplies."""
    given = [made.get(name) for name in step.inputs if name]
    if step.operator not in _PRODUCTS or step.layer or None not in given:
        return set()
    return {source for part in given if part for source in part}


def _unbound(graph: Graph, module: OnnxModule, weight_names: Mapping[str, str]) -> list[OtherFact]:
    """Matrices of the file, or the rest of them, that no parameter of the module stands for.

    They are those that a product's factor is computed from, and parts that nothing multiplies by of
    tensors whose other parts are weights.
    """
    made = _made_of(graph, module)
    computed = {source for step in module.steps for source in _factors(step, made)}
    held = dict.fromkeys(computed, 0)
    for path, parameter in module.named_parameters():
        source = weight_names[path]
        held[source] = held.get(source, 0) + parameter.numel()
    sizes = {
        c.source: prod(c.route.start)
        for c in graph.constants.values()
        if c.source in held and len(c.route.start) > 1
    }
    return [
        OtherFact(
            name=shown(name),
            kind=COMPUTED if name in computed else nn.Parameter.__name__,
            parameters=size - held[name],
        )
        for name, size in sorted(sizes.items())
        if size > held[name]
    ]
