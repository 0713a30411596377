"""What intake learns of a model: sizes from a pass on the meta device, the batch by trying."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from onnx import TensorProto, ValueInfoProto, helper
from torch import Tensor, nn
from torch.func import functional_call

from pruning.errors import SecateurError
from pruning.facts import LayerFact, ModelFacts, TensorFact
from pruning.formats.limits import Limits
from pruning.formats.onnx.graph import Graph
from pruning.formats.onnx.module import OnnxModule, Step
from pruning.formats.onnx.parse import opset, shown

PRUNABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def collect_facts(
    graph: Graph, module: OnnxModule, weight_names: dict[str, str], limits: Limits
) -> ModelFacts:
    """Facts of an imported model.

    The pass that counts positions, multiply-adds and bytes runs on the meta device, so a graph's
    cost is known before any of it is paid.

    Raises:
        SecateurError: `model_too_large` for activations over the limit, `model_invalid` where the
            graph can't run on inputs of its own shapes.
    """
    inputs = [tensor_fact(value) for value in graph.inputs]
    sizes, batch = _measure(module, inputs, limits)
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
        dtypes=sorted({c.array.dtype.name for c in _bound(graph, weight_names)}),
        parameters=sum(p.numel() for p in module.parameters()),
        prunable_parameters=sum(layer.parameters for layer in prunable.values()),
        macs=None if None in macs else sum(m for m in macs if m is not None),
        activation_bytes=sizes.total if sizes else None,
        batch=batch,
        operators=dict(sorted(Counter(shown(n.op_type) for n in graph.proto.graph.node).items())),
    )


def tensor_fact(value: ValueInfoProto) -> TensorFact:
    """Name, type and shape of a graph's input or output."""
    kind = value.type.tensor_type
    try:
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type).name
    except KeyError:
        dtype = TensorProto.DataType.Name(kind.elem_type).lower()
    shape: list[int | str] = [
        d.dim_value if d.HasField("dim_value") else shown(d.dim_param) or "?"
        for d in kind.shape.dim
    ]
    return TensorFact(name=value.name, dtype=dtype, shape=shape)


class Sizes:
    """Counts bytes and positions of a pass at batch size `batch`."""

    def __init__(self, batch: int, limit: int) -> None:
        self.batch, self.limit = batch, limit
        self.bytes = 0
        self.outputs: dict[str, tuple[int, int]] = {}

    @property
    def total(self) -> int:
        """Bytes of all results, a sample."""
        return -(-self.bytes // self.batch)

    def __call__(self, step: Step, results: tuple[Any, ...]) -> None:
        """Takes note of one step's results."""
        for result in results:
            self.bytes += result.nbytes
        if self.bytes > self.limit * self.batch:
            raise SecateurError(
                "model_too_large",
                f"One sample leaves more than {self.limit} bytes of results behind.",
                where=step.label,
                hint="Export with smaller inputs.",
            )
        if step.layer:
            self.outputs[step.layer] = (results[0].numel(), results[0].nbytes)


def _measure(
    module: OnnxModule, inputs: list[TensorFact], limits: Limits
) -> tuple[Sizes | None, int | None]:
    """Sizes of a pass (None where input sizes are symbolic), and the batch size if it is fixed."""
    declared = inputs[0].shape[0]
    fixed = declared if isinstance(declared, int) else None
    if any(isinstance(size, str) for fact in inputs for size in fact.shape[1:]):
        return None, fixed
    if any(size == 0 for fact in inputs for size in fact.shape):
        raise SecateurError("model_invalid", "An input has a size of 0.")
    tried = fixed or 1
    sizes = Sizes(tried, limits.activation_bytes)
    module_at_meta(module, _samples(inputs, tried, "meta"), sizes)
    if _is_free(module, inputs, limits):
        return sizes, None
    _run(module, _samples(inputs, tried, "cpu"))
    if fixed is None:
        return sizes, 1
    return sizes, fixed


def module_at_meta(module: OnnxModule, inputs: Sequence[Tensor], observer: Sizes) -> None:
    """Runs the module without data; the observer sees shapes and types alone."""
    state = {
        name: torch.empty_like(value, device="meta")
        for name, value in [*module.named_parameters(), *module.named_buffers()]
    }
    wrapped = _Observed(module, observer)
    with torch.no_grad():
        state = {f"module.{name}": value for name, value in state.items()}
        functional_call(wrapped, state, tuple(inputs))


class _Observed(nn.Module):
    def __init__(self, module: OnnxModule, observer: Sizes) -> None:
        super().__init__()
        self.module, self.observer = module, observer

    def forward(self, *inputs: Tensor) -> Any:
        return self.module.run(inputs, self.observer)


def _is_free(module: OnnxModule, inputs: list[TensorFact], limits: Limits) -> bool:
    """Whether each sample's result is the same in a batch of two and of three."""
    try:
        for batch in (2, 3):
            sizes = Sizes(batch, limits.activation_bytes)
            module_at_meta(module, _samples(inputs, batch, "meta"), sizes)
        three = _samples(inputs, 3, "cpu")
        large = _run(module, three)
        small = _run(module, [x[:2] for x in three])
    except SecateurError as error:
        if error.code == "model_too_large":
            raise
        return False
    for a, b in zip(large, small, strict=True):
        if a.dim() == 0 or b.dim() == 0 or a.shape[0] != 3 or b.shape[0] != 2:
            return False
        if a.shape[1:] != b.shape[1:]:
            return False
        if not torch.allclose(a[:2], b, rtol=1e-3, atol=1e-4, equal_nan=True):
            return False
    return True


def _run(module: OnnxModule, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    with torch.no_grad():
        result = module(*inputs)
    return result if isinstance(result, tuple) else (result,)


def _samples(inputs: list[TensorFact], batch: int, device: str) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    samples = []
    for fact in inputs:
        # Every input's first axis counts samples; a model that disagrees is found out by running.
        shape = [batch, *(int(size) for size in fact.shape[1:])]
        dtype = getattr(torch, fact.dtype)
        if device == "meta":
            samples.append(torch.empty(shape, dtype=dtype, device="meta"))
        elif dtype.is_floating_point:
            samples.append(torch.randn(shape, generator=generator).to(dtype))
        else:
            samples.append(torch.zeros(shape, dtype=dtype))
    return samples


def _layers(
    graph: Graph, module: OnnxModule, weight_names: dict[str, str], sizes: Sizes | None
) -> list[LayerFact]:
    outputs = _output_layers(module)
    dtypes = {c.source: c.array.dtype.name for c in graph.constants.values()}
    first: dict[int, str] = {}
    facts = []
    for name, layer in module.named_modules(remove_duplicate=False):
        if not isinstance(layer, PRUNABLE):
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
