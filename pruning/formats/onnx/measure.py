"""What one pass of a module takes, and whether its batch size is free.

Told from shapes where these prove it. Else the module is run on a few samples, if that is cheap;
if it is not, shapes are believed: those of a pass without data at two batch sizes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pruning.axes import Declared
from pruning.errors import SecateurError
from pruning.facts import TensorFact
from pruning.formats.limits import Limits
from pruning.formats.onnx.batched import scaled_as_tried, scaled_in_front, scaling
from pruning.formats.onnx.graph import Graph, Shapes, label
from pruning.formats.onnx.module import OnnxModule, Step
from pruning.formats.onnx.operation import Operation
from pruning.formats.onnx.shapes import LARGE, OPEN, SMALL
from pruning.formats.onnx.spread import shapes_apart
from pruning.formats.onnx.values import TRIAL, TooDear
from pruning.formats.trial import (
    TOGETHER,
    Compared,
    Verdict,
    compare,
    drawn,
    exchanged,
    settled,
)

_TRIED = 32 << 20
"""Bytes of all results of a pass that intake tries on data."""

_WORK = 1 << 31
"""Multiply-adds of such a pass."""


def over_limit(limit: int, where: str) -> SecateurError:
    """The error for a pass that would take too much memory."""
    return SecateurError(
        "model_too_large",
        f"One sample leaves more than {limit} bytes of results behind.",
        where=where,
        hint="Export with smaller inputs.",
    )


class Sizes:
    """Counts bytes, and numbers in and out of layers, of a pass at batch size `batch`.

    Attributes:
        calls: The layer's path with the numbers that it takes and gives, call by call.
        outputs: Bytes that a layer puts out, by its path.
    """

    def __init__(self, batch: int, limit: int) -> None:
        self.batch, self.limit = batch, limit
        self.bytes = 0
        self.calls: list[tuple[str, int, int]] = []
        self.outputs: dict[str, int] = {}
        self._numbers: dict[str, int] = {}

    @property
    def total(self) -> int:
        """Bytes of all results, a sample."""
        return -(-self.bytes // self.batch)

    def __call__(self, step: Step, results: tuple[Any, ...]) -> None:
        """Takes note of one step's results."""
        self.add(step, sum(result.nbytes for result in results))
        numbers = [r.numel() if isinstance(r, Tensor) else int(np.size(r)) for r in results]
        self.note(step, numbers, results[0].nbytes)

    def given(self, name: str, numbers: int) -> None:
        """Takes note of an input."""
        self._numbers[name] = numbers

    def note(self, step: Step, numbers: Sequence[int], size: int) -> None:
        """Takes note of how many numbers a step gives, and of the bytes of its first result."""
        self._numbers.update(zip(step.outputs, numbers, strict=False))
        if step.layer:
            taken = self._numbers.get(step.inputs[0] or "", 0)
            self.calls.append((step.layer, taken, numbers[0]))
            self.outputs[step.layer] = size

    def clear(self) -> None:
        """Forgets a pass that failed."""
        self.bytes = 0
        self.calls.clear()
        self.outputs.clear()

    def add(self, step: Step, size: int) -> None:
        """Counts the bytes of a step's results.

        Raises:
            SecateurError: `model_too_large` where they come to more than the limit.
        """
        self.bytes += size
        if self.bytes > self.limit * self.batch:
            raise over_limit(self.limit, step.label)


@dataclass
class Measured:
    """What intake found out about the passes of a graph.

    Args:
        sizes: Of a pass; None where open sizes leave it unknown.
        batch: The only number of samples that the graph runs at; None for any.
        verdict: Whether samples stay apart.
        inputs: With the axis of the samples.
        axes: The same of the outputs, by name, where known.
    """

    sizes: Sizes | None
    batch: int | None
    verdict: Verdict
    inputs: list[TensorFact]
    axes: dict[str, int]


def measure(
    graph: Graph,
    module: OnnxModule,
    inputs: list[TensorFact],
    limits: Limits,
    declared: Declared | None = None,
) -> Measured:
    """Sizes of a pass, which axis of each input holds samples, and how many if that is fixed.

    Sizes that the file leaves open are taken to be small ones that the graph runs at, if there
    are any; else there are no sizes.

    Raises:
        SecateurError: `model_too_large` for results over the limit, `model_invalid` where a graph
            of fixed sizes can't run at them.
    """
    if any(size == 0 for fact in inputs for size in fact.shape):
        raise SecateurError("model_invalid", "An input has a size of 0.")
    return settled(inputs, declared, lambda read: _open_measured(graph, module, read, limits))


def _open_measured(
    graph: Graph, module: OnnxModule, inputs: list[TensorFact], limits: Limits
) -> Measured:
    """What is found for one way to read the inputs, which may leave sizes open."""
    counts = [fact.count for fact in inputs if fact.axis is not None]
    fixed = next((size for size in counts if isinstance(size, int)), None)
    if not any(isinstance(size, str) for fact in inputs for size in fact.one):
        return replace(_measure(graph, module, inputs, fixed, limits), inputs=inputs)
    for plane, line in OPEN:
        try:
            closed = [_closed(fact, plane, line) for fact in inputs]
            found = _measure(graph, module, closed, fixed, limits)
        except SecateurError:
            continue
        free = fixed is None and found.verdict != "mixed"
        return replace(found, batch=None if free else found.batch, inputs=inputs)
    return Measured(None, fixed, "fixed", inputs, {})


def _closed(fact: TensorFact, plane: int, line: int) -> TensorFact:
    """The input with its open sizes as given, but for that of the samples."""
    open_ = plane if len(fact.shape) > 3 else line
    shape = [
        open_ if isinstance(size, str) and place != fact.axis else size
        for place, size in enumerate(fact.shape)
    ]
    return fact.model_copy(update={"shape": shape})


def _measure(
    graph: Graph,
    module: OnnxModule,
    inputs: list[TensorFact],
    fixed: int | None,
    limits: Limits,
) -> Measured:
    for fact in inputs:
        if prod(int(size) for size in fact.one) > limits.activation_bytes:
            raise over_limit(limits.activation_bytes, fact.name)
    known, large = graph.both_shapes(_sizes(inputs))
    proof = shapes_apart(graph, module, known, large)
    if proof is None:
        known = _known(graph, inputs, SMALL)
        proof = shapes_apart(graph, module, known, _known(graph, inputs, LARGE))
    if proof is not None:
        return Measured(
            _counted(module, proof.shapes, known, limits), None, "apart", inputs, proof.axes
        )
    free, compared = _free(graph, module, inputs, limits)
    if free is not None and compared.verdict == "apart":
        return Measured(free, None, "apart", inputs, _named(graph, compared.axes))
    if fixed is not None and compared.verdict == "fixed":
        batched = _batched(graph, module, inputs, fixed, limits)
        if batched is not None:
            return batched
    verdict: Verdict = "mixed" if compared.verdict == "mixed" else "fixed"
    batch = fixed or (TOGETHER if verdict == "mixed" else 1)
    sizes = Sizes(batch, limits.activation_bytes)
    axes = _named(graph, compared.axes)
    if _is_cheap(graph, module, inputs, batch, limits):
        try:
            samples, found = _drawn_run(module, inputs, sizes)
            if batch > 1 and verdict == "fixed":
                again = Sizes(batch, limits.activation_bytes)
                turned = _run(module, exchanged(samples, inputs, batch), again)
                held = compare(found, turned, sizes=(batch, batch))
                verdict = "mixed" if held.verdict == "mixed" else "fixed"
                axes = _named(graph, held.axes)
            return Measured(sizes, batch, verdict, inputs, axes)
        except TooDear:
            sizes = Sizes(batch, limits.activation_bytes)
    _run_at_meta(module, inputs, sizes)
    return Measured(sizes, batch, verdict, inputs, axes)


def _batched(
    graph: Graph, module: OnnxModule, inputs: list[TensorFact], fixed: int, limits: Limits
) -> Measured | None:
    """The same module at any number of samples, where sizes that hold the file's can be scaled.

    It is taken where any number of samples gives what the file's own number gives; see `batched`.
    """
    found = None
    if _is_cheap(graph, module, inputs, fixed, limits):
        with _trial():
            samples = drawn(inputs, 2 * fixed)
            found = scaled_as_tried(module, inputs, fixed, samples)
    else:
        found = scaled_in_front(module, fixed)
    if found is None or not found.sizes:
        return None
    plain = module.steps
    module.host_constants |= found.sizes
    module.scaling = scaling(inputs, fixed, found)
    module.finish(found.steps)
    try:
        free, compared = _free(graph, module, inputs, limits)
        apart = free is not None and compared.verdict == "apart"
        if apart and _as_in_file(module, inputs, fixed, compared, limits):
            return Measured(free, None, "apart", inputs, _named(graph, compared.axes))
    except SecateurError:
        pass  # it runs at the file's own number alone
    module.scaling = None
    for name in found.sizes:
        del module.host_constants[name]
    module.finish(plain)
    return None


def _as_in_file(
    module: OnnxModule, inputs: list[TensorFact], fixed: int, compared: Compared, limits: Limits
) -> bool:
    """Whether one sample more than the file has gives the same for those before it."""
    try:
        more, wide = _drawn_run(module, inputs, Sizes(fixed + 1, limits.activation_bytes))
        few = [
            x if fact.axis is None else x.narrow(fact.axis, 0, fixed)
            for x, fact in zip(more, inputs, strict=True)
        ]
        own = _run(module, few, Sizes(fixed, limits.activation_bytes))
    except TooDear:
        return True
    return all(
        axis is not None
        and a.dim() == b.dim()
        and torch.allclose(
            a.narrow(axis, 0, fixed).double(), b.double(), rtol=1e-3, atol=1e-4, equal_nan=True
        )
        for a, b, axis in zip(wide, own, compared.axes, strict=True)
    )


def _named(graph: Graph, axes: Sequence[int | None]) -> dict[str, int]:
    return {name: axis for name, axis in zip(graph.outputs, axes, strict=False) if axis is not None}


def _known(graph: Graph, inputs: list[TensorFact], batch: int) -> Shapes:
    """Shapes of all values for a batch size, what else is open closed as in `inputs`."""
    return graph.shapes(batch, _sizes(inputs))


def _sizes(inputs: list[TensorFact]) -> dict[str, tuple[int | None, ...]]:
    return {
        fact.name: tuple(
            None if place == fact.axis else int(size) for place, size in enumerate(fact.shape)
        )
        for fact in inputs
    }


def _counted(
    module: OnnxModule, shapes: dict[str, tuple[int, ...]], known: Shapes, limits: Limits
) -> Sizes:
    """The sizes of a pass as its shapes tell them.

    Raises:
        SecateurError: `model_too_large` over the limit.
    """
    sizes = Sizes(SMALL, limits.activation_bytes)
    for name in module.input_names:
        sizes.given(name, prod(shapes.get(name, (0,))))
    for step in module.steps:
        for name in step.outputs:
            numbers = prod(shapes.get(name, (0,)))
            size = numbers * (known[name][1] if name in known else 4)
            sizes.add(step, size)
            if name == step.outputs[0]:
                sizes.note(step, [numbers], size)
            else:
                sizes.given(name, numbers)
    return sizes


def _is_cheap(
    graph: Graph, module: OnnxModule, inputs: list[TensorFact], batch: int, limits: Limits
) -> bool:
    """Whether intake can afford a pass; refuses one that a job couldn't either.

    ONNX's shape inference prices most graphs in milliseconds; where it leaves a size open, a pass
    on the meta device does, which takes seconds to import.
    """
    known = _known(graph, inputs, batch)
    total = work = 0
    for node in graph.nodes:
        work += _work(node, graph, known)
        for name in filter(None, node.output):
            shape, itemsize = known.get(name, ((None,), 0))
            numbers = itemsize
            for size in shape:
                if size is None:
                    sizes = Sizes(batch, limits.activation_bytes)
                    _run_at_meta(module, inputs, sizes)
                    return sizes.bytes <= _TRIED and work <= _WORK
                numbers *= size
            total += numbers
            if total > limits.activation_bytes * batch:
                raise over_limit(limits.activation_bytes, label(node))
    return total <= _TRIED and work <= _WORK


def _work(node: Operation, graph: Graph, known: Shapes) -> int:
    """Multiply-adds of a product or convolution, as far as shapes are known."""
    kind = node.op_type
    if kind not in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
        return 0
    turned = kind == "ConvTranspose"
    shape = known.get(node.input[0] if turned else node.output[0], ((), 0))[0]
    places = prod(size or 1 for size in shape)
    if kind in ("MatMul", "Gemm"):
        first = known.get(node.input[0], ((), 0))[0]
        return places * max([size or 1 for size in first[-2:]], default=1)
    weight = graph.constants.get(node.input[1])
    return places * prod(weight.shape[1:]) if weight else 0


def _run_at_meta(module: OnnxModule, inputs: list[TensorFact], sizes: Sizes) -> tuple[Tensor, ...]:
    """Runs the module without data: shapes and types alone."""
    from torch.func import functional_call

    state = {
        f"module.{name}": torch.empty_like(value, device="meta")
        for name, value in [*module.named_parameters(), *module.named_buffers()]
    }
    samples = tuple(drawn(inputs, sizes.batch, "meta"))
    _give(module, samples, sizes)
    # The default device is where tensors are made of constants.
    with torch.no_grad(), torch.device("meta"):
        result = functional_call(_Observed(module, sizes), state, samples)
    return result if isinstance(result, tuple) else (result,)


class _Observed(nn.Module):
    def __init__(self, module: OnnxModule, observer: Sizes) -> None:
        super().__init__()
        self.module, self.observer = module, observer

    def forward(self, *inputs: Tensor) -> Any:
        return self.module.run(inputs, self.observer)


def _free(
    graph: Graph, module: OnnxModule, inputs: list[TensorFact], limits: Limits
) -> tuple[Sizes | None, Compared]:
    """Sizes of a pass of two samples, and what they and three show; no sizes where none can run.

    Where a pass is too dear to try, the shapes of the results at both sizes have to do.
    """
    most = limits.activation_bytes
    try:
        tried = _is_cheap(graph, module, inputs, 3, limits)
        sizes = Sizes(2, most)
        try:
            large, small = _both(module, inputs, sizes, tried)
        except TooDear:
            sizes = Sizes(2, most)
            tried = False
            large, small = _both(module, inputs, sizes, tried)
    except SecateurError as error:
        if error.code == "model_too_large":
            raise
        return None, Compared("fixed")
    return sizes, compare(large, small, tried=tried, sizes=(3, 2))


def _both(
    module: OnnxModule, inputs: list[TensorFact], sizes: Sizes, tried: bool
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Results of three samples, and of the first two of them exchanged; without data or tried."""
    wide = Sizes(3, sizes.limit)
    if not tried:
        return _run_at_meta(module, inputs, wide), _run_at_meta(module, inputs, sizes)
    three, large = _drawn_run(module, inputs, wide)
    return large, _run(module, exchanged(three, inputs, 2), sizes)


def _drawn_run(
    module: OnnxModule, inputs: list[TensorFact], sizes: Sizes
) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """Random samples, as many as `sizes` has, and what they give; see `drawn`.

    Raises:
        SecateurError: Where they can't be run.
    """
    if not all(fact.dtype.startswith("float") for fact in inputs):
        samples = drawn(inputs, sizes.batch, top=2)
        try:
            return samples, _run(module, samples, sizes)
        except SecateurError as error:
            if error.code == "model_too_large":
                raise
            sizes.clear()
    samples = drawn(inputs, sizes.batch)
    return samples, _run(module, samples, sizes)


@contextmanager
def _trial() -> Iterator[None]:
    """Operators refuse to make more on their way than intake affords."""
    token = TRIAL.set(_TRIED // 4)
    try:
        yield
    finally:
        TRIAL.reset(token)


def _run(module: OnnxModule, inputs: Sequence[Tensor], sizes: Sizes) -> tuple[Tensor, ...]:
    """Tries the module on data.

    Raises:
        TooDear: Where an operator makes more on its way than intake affords.
    """
    _give(module, inputs, sizes)
    with _trial(), torch.no_grad():
        result = module.run(inputs, sizes)
    return result if isinstance(result, tuple) else (result,)


def _give(module: OnnxModule, inputs: Sequence[Tensor], sizes: Sizes) -> None:
    for name, value in zip(module.input_names, inputs, strict=True):
        sizes.given(name, value.numel())
