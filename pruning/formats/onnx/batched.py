"""A graph of a fixed number of samples made to run any number of them, in memory alone.

Exporters write that number into the sizes of reshapes, and into constants that are joined to
samples or begin a recurrence. Those are scaled while the module runs. Which of several sizes holds
the samples is told by running two batches of the file's number apart and together, step by step: a
reshape is right where the samples of both come out as they do apart. The file keeps what it has.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pruning.errors import SecateurError
from pruning.facts import TensorFact
from pruning.formats.failures import FAILURES
from pruning.formats.onnx.module import OnnxModule, Scaling, Step
from pruning.formats.onnx.values import Value, tensors
from pruning.formats.side_by_side import TOGETHER, doubt, even

_SIZED = ("Reshape", "Expand")
_RECURRENT = ("LSTM", "GRU", "RNN")
_TRIED = "//tried"


@dataclass
class Scaled:
    """Steps with sizes of their own, these sizes, and how they follow the number of samples."""

    steps: list[Step] = field(default_factory=list)
    sizes: dict[str, np.ndarray] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)

    def add(self, sizes: np.ndarray, place: int) -> str:
        """Names sizes of which one grows with the samples."""
        name = f"//sizes/{len(self.sizes)}"
        self.sizes[name], self.places[name] = np.asarray(sizes, dtype=np.int64), place
        return name


def scaled(
    module: OnnxModule, inputs: Sequence[TensorFact], batch: int, samples: Sequence[Tensor]
) -> Scaled | None:
    """The steps with every size scaled that has to be, found by running; None where there is none.

    Args:
        module: What runs at one number of samples.
        inputs: What it takes, with the axis of the samples.
        batch: That number.
        samples: Twice as many, as the module takes them.
    """
    try:
        with torch.no_grad():
            found = _Run(module, inputs, batch, samples).found
    except (SecateurError, *FAILURES):
        return None
    return found if found.sizes else None


def scaling(inputs: Sequence[TensorFact], batch: int, found: Scaled) -> Scaling:
    """How the sizes follow the samples of the first input that has any."""
    origin, axis = next((n, f.axis) for n, f in enumerate(inputs) if f.axis is not None)
    return Scaling(origin, axis, batch, found.places)


class _Run:
    """Two batches apart and together through all steps."""

    def __init__(
        self,
        module: OnnxModule,
        inputs: Sequence[TensorFact],
        batch: int,
        samples: Sequence[Tensor],
    ) -> None:
        self.module, self.batch, self.found = module, batch, Scaled()
        constants = module.constants()
        self.apart: list[dict[str, Value]] = [dict(constants) for _ in range(TOGETHER)]
        self.together: dict[str, Value] = dict(constants)
        self.given = set(module.input_names)
        for name, fact, x in zip(module.input_names, inputs, samples, strict=True):
            full = x.float() if x.dtype == torch.float16 else x
            self.together[name] = full
            for number, values in enumerate(self.apart):
                part = full if fact.axis is None else full.narrow(fact.axis, number * batch, batch)
                values[name] = part
        for step in module.steps:
            self._take(step)

    def _take(self, step: Step) -> None:
        run = self.module.step
        fed = not self.given.isdisjoint(filter(None, step.inputs))
        results = [run(step, values) for values in (self.apart if fed else self.apart[:1])]
        if not fed:
            for values in (*self.apart, self.together):
                values.update(zip(step.outputs, results[0], strict=True))
            self.found.steps.append(step)
            return
        self.given.update(step.outputs)
        sizes = _sizes(self.module, step)
        if sizes is not None:
            taken, whole = self._reshaped(step, sizes, [r[0] for r in results])
        else:
            taken = self._widened(step)
            whole = run(taken, self.together)
        self.found.steps.append(taken)
        for values, result in zip(self.apart, results, strict=True):
            values.update(zip(step.outputs, result, strict=True))
        self.together.update(zip(step.outputs, whole, strict=True))
        for values in (*self.apart, self.together):
            for name in step.last:
                values.pop(name, None)

    def _reshaped(
        self, step: Step, sizes: np.ndarray, apart: list[Any]
    ) -> tuple[Step, tuple[Any, ...]]:
        """The step as it is, or with the size scaled that keeps the samples together.

        Raises:
            ValueError: Where no size does.
        """
        best: tuple[int, Step, tuple[Any, ...], int | None] | None = None
        for place in (None, *range(len(sizes))):
            tried, taken = dict(self.together), step
            if place is not None:
                if sizes[place] <= 0 or sizes[place] % self.batch:
                    continue
                taken = _resized(step, _TRIED)
                tried[_TRIED] = _grown(sizes, place)
            try:
                whole = self.module.step(taken, tried)
            except SecateurError:
                continue
            doubtful = doubt(whole[0], apart, self.batch)
            if doubtful is not None and (best is None or doubtful < best[0]):
                best = (doubtful, taken, whole, place)
        if best is None:
            raise ValueError("no size holds the samples")
        _, taken, whole, place = best
        if place is not None:
            name = self.found.add(sizes, place)
            taken = _resized(step, name)
            self.together[name] = _grown(sizes, place)
        return taken, whole

    def _widened(self, step: Step) -> Step:
        """The step with constants that hold one batch repeated as often as there are batches."""
        changed = list(step.inputs)
        for index, axis in self._constants(step):
            held = str(step.inputs[index])
            shape = np.array(tuple(self.together[held].shape), dtype=np.int64)
            name = self.found.add(shape, axis)
            wide = f"//wide/{len(self.found.steps)}"
            repeat = Step(
                inputs=(held, name),
                outputs=(wide,),
                label=step.label,
                operator="Expand",
                function=_Widen(axis),
            )
            self.found.steps.append(repeat)
            self.together[name] = _grown(shape, axis)
            self.together[wide] = self.module.step(repeat, self.together)[0]
            changed[index] = wide
        return replace(step, inputs=tuple(changed))

    def _constants(self, step: Step) -> Iterator[tuple[int, int]]:
        """Inputs that do not follow from samples and have to be as many, and along which axis."""
        axis, first = 1, 2
        if step.operator == "Concat":
            fed = next(name for name in step.inputs if name in self.given)
            pair = zip(self.together[fed].shape, self.apart[0][fed].shape, strict=True)
            grown = [i for i, (m, n) in enumerate(pair) if m != n]
            if not grown or not isinstance(self.together[fed], Tensor):
                return
            axis, first = grown[0], 0
        elif step.operator not in _RECURRENT:
            return
        for index, name in enumerate(step.inputs):
            if index < first or name is None or name in self.given:
                continue
            value = self.together[name]
            if (
                len(value.shape) > axis
                and value.shape[axis] == self.batch
                and even(tensors(value)[0], axis)
            ):
                yield index, axis


def _sizes(module: OnnxModule, step: Step) -> np.ndarray | None:
    """The sizes that a reshape has written down."""
    if step.operator not in _SIZED or len(step.inputs) < 2 or step.layer:
        return None
    sizes = module.host_constants.get(step.inputs[1] or "")
    return sizes if sizes is not None and sizes.ndim == 1 and sizes.size else None


def _resized(step: Step, name: str) -> Step:
    return replace(step, inputs=(step.inputs[0], name, *step.inputs[2:]))


def _grown(sizes: np.ndarray, place: int) -> np.ndarray:
    wide = sizes.copy()
    wide[place] *= TOGETHER
    return wide


@dataclass(frozen=True)
class _Widen:
    """The first of a constant's samples, repeated."""

    axis: int

    def __call__(self, value: Value, sizes: Any) -> Tensor:
        (full,) = tensors(value)
        return full.narrow(self.axis, 0, 1).expand(tuple(int(size) for size in sizes))
