"""Passes of a graph while intake measures it: what they would take, and what they take and give."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pruning.errors import SecateurError
from pruning.facts import TensorFact
from pruning.formats.limits import Limits
from pruning.formats.onnx.graph import Graph, Shapes, label
from pruning.formats.onnx.module import OnnxModule, Step
from pruning.formats.onnx.operation import Operation
from pruning.formats.onnx.values import TRIAL
from pruning.formats.trial import Tries, drawn, picked
from pruning.influence import Order

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
        shapes: Of all results of a pass that was run, by name.
    """

    def __init__(self, batch: int, limit: int) -> None:
        self.batch, self.limit = batch, limit
        self.bytes = 0
        self.calls: list[tuple[str, int, int]] = []
        self.outputs: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
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
        shapes = (tuple(result.shape) for result in results)
        self.shapes.update(zip(step.outputs, shapes, strict=False))

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


def known_shapes(graph: Graph, inputs: list[TensorFact], batch: int) -> Shapes:
    """Shapes of all values for a batch size, what else is open closed as in `inputs`."""
    return graph.shapes(batch, input_sizes(inputs))


def input_sizes(inputs: list[TensorFact]) -> dict[str, tuple[int | None, ...]]:
    """The sizes of each input as `shapes.Fixed` has them."""
    return {
        fact.name: tuple(
            None if place == fact.axis else int(size) for place, size in enumerate(fact.shape)
        )
        for fact in inputs
    }


def is_cheap(
    graph: Graph,
    module: OnnxModule,
    inputs: list[TensorFact],
    batch: int,
    limits: Limits,
    times: int = 1,
) -> bool:
    """Whether intake can afford a pass; refuses one that a job couldn't either.

    Args:
        graph: Prices the pass.
        module: Its steps.
        inputs: With the axis of the samples, no size but theirs open.
        batch: How many samples.
        limits: `activation_bytes` bounds a pass.
        times: How often what it can afford in general.

    ONNX's shape inference prices most graphs in milliseconds; where it leaves a size open, a pass
    on the meta device does, which takes seconds to import.
    """
    known = known_shapes(graph, inputs, batch)
    total = work = 0
    for node in graph.nodes:
        work += _work(node, graph, known)
        for name in filter(None, node.output):
            shape, itemsize = known.get(name, ((None,), 0))
            numbers = itemsize
            for size in shape:
                if size is None:
                    sizes = Sizes(batch, limits.activation_bytes)
                    run_at_meta(module, inputs, sizes)
                    return sizes.bytes <= times * _TRIED and work <= times * _WORK
                numbers *= size
            total += numbers
            if total > limits.activation_bytes * batch:
                raise over_limit(limits.activation_bytes, label(node))
    return total <= times * _TRIED and work <= times * _WORK


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


def run_at_meta(module: OnnxModule, inputs: list[TensorFact], sizes: Sizes) -> tuple[Tensor, ...]:
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


def tries(
    module: OnnxModule,
    inputs: Sequence[TensorFact],
    count: int,
    batches: Sequence[Order],
    limits: Limits,
) -> tuple[Sizes, Tries]:
    """What passes of some of these random samples give, and what the first of them takes.

    Args:
        module: What is run.
        inputs: With the axis of the samples, no size but theirs open.
        count: How many samples are drawn.
        batches: Which of them are run together.
        limits: `activation_bytes` bounds a pass.

    Raises:
        SecateurError: Where they can't be run.
        TooDear: Where an operator makes more on its way than intake affords.
    """
    real = all(fact.dtype.startswith("float") for fact in inputs)
    for top in (1,) if real else (2, 1):
        samples = drawn(inputs, count, top=top)
        passes = [Sizes(len(order), limits.activation_bytes) for order in batches]
        try:
            found = [
                (_run(module, picked(samples, inputs, order), sizes), order)
                for order, sizes in zip(batches, passes, strict=True)
            ]
        except SecateurError as error:
            if error.code == "model_too_large" or top == 1:
                raise
        else:
            return passes[0], found
    raise AssertionError("the last draw returns or raises")


@contextmanager
def trial() -> Iterator[None]:
    """Operators refuse to make more on their way than intake affords."""
    token = TRIAL.set(_TRIED // 4)
    try:
        yield
    finally:
        TRIAL.reset(token)


def _run(module: OnnxModule, inputs: Sequence[Tensor], sizes: Sizes) -> tuple[Tensor, ...]:
    _give(module, inputs, sizes)
    with trial(), torch.no_grad():
        result = module.run(inputs, sizes)
    return result if isinstance(result, tuple) else (result,)


def _give(module: OnnxModule, inputs: Sequence[Tensor], sizes: Sizes) -> None:
    for name, value in zip(module.input_names, inputs, strict=True):
        sizes.given(name, value.numel())
