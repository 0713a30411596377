"""A graph of a fixed number of samples made to run any number of them, in memory alone.

`torch.export` writes that number into the sizes of views, and into constants that begin a
recurrence or are joined to samples. Which of them hold the samples is told as in a graph of ONNX,
by running two batches of the file's number apart and together; see `pruning.formats.onnx.batched`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pruning.errors import SecateurError
from pruning.facts import TensorFact
from pruning.formats.counting import TooLongError
from pruning.formats.pt2.module import Pt2Module, Ref, Scaling, Size, Step, Widened
from pruning.formats.side_by_side import TOGETHER, doubt, even

_SIZED = frozenset({"view", "reshape", "_unsafe_view", "expand", "unflatten", "repeat"})

Change = Callable[[Step], Step]


def batched(
    module: Pt2Module, inputs: Sequence[TensorFact], batch: int, samples: Sequence[Tensor]
) -> Callable[[], None] | None:
    """Lets the module run any number of samples where what holds the file's number is found.

    Whether it gives the same is for the caller to find out.

    Args:
        module: What runs at one number of samples; changed where something is found.
        inputs: What it takes, with the axis of the samples.
        batch: That number.
        samples: `TOGETHER` times as many, as the module takes them.

    Returns:
        What makes the module as it was; None where it is that.
    """
    if any(step.writes for step in module.steps):
        return None
    plain, outputs = module.steps, module.outputs
    origin, axis = next((n, f.axis) for n, f in enumerate(inputs) if f.axis is not None)
    module.scaling = Scaling(origin, axis, batch)

    def undo() -> None:
        module.scaling = None
        module.finish(plain, outputs)

    try:
        with torch.no_grad():
            steps = _Run(module, inputs, batch, samples).steps
    except (SecateurError, TooLongError):
        steps = list(plain)
    if all(new is old for new, old in zip(steps, plain, strict=True)):
        module.scaling = None
        return None
    module.finish(steps, outputs)
    return undo


class _Run:
    """Two batches apart and together through all steps; `steps` are those that run both."""

    def __init__(
        self,
        module: Pt2Module,
        inputs: Sequence[TensorFact],
        batch: int,
        samples: Sequence[Tensor],
    ) -> None:
        self.module, self.batch = module, batch
        self.steps: list[Step] = []
        self.given = set(module.input_names)
        full = [x.float() if x.dtype in (torch.float16, torch.bfloat16) else x for x in samples]
        self.inputs = [
            [
                x if fact.axis is None else x.narrow(fact.axis, start, size)
                for x, fact in zip(full, inputs, strict=True)
            ]
            for start, size in ((0, batch), (batch, batch), (0, TOGETHER * batch))
        ]
        self.values: list[dict[str, Any]] = [
            dict(zip(module.input_names, given, strict=True)) for given in self.inputs
        ]
        for step in module.steps:
            self._take(step)

    def _take(self, step: Step) -> None:
        if self.given.isdisjoint(step.refs()):
            result = self._run(step, 0)
            for values in self.values:
                values[step.output] = result
            self.steps.append(step)
            return
        self.given.add(step.output)
        apart = [self._run(step, number) for number in range(TOGETHER)]
        taken, whole = self._together(step, apart)
        self.steps.append(taken)
        for values, result in zip(self.values, (*apart, whole), strict=True):
            values[step.output] = result
            for name in step.last:
                values.pop(name, None)

    def _run(self, step: Step, number: int) -> Any:
        return self.module.run(step, self.values[number], self.inputs[number])

    def _together(self, step: Step, apart: list[Any]) -> tuple[Step, Any]:
        """The step that keeps the batches together with the least doubt, and its result.

        Raises:
            SecateurError: `model_invalid` where there is none.
        """
        best: tuple[int, Step, Any] | None = None
        for tried in self._ways(step):
            try:
                whole = self._run(tried, TOGETHER)
            except SecateurError:
                continue
            found = _doubts(whole, apart, self.batch)
            if found is not None and (best is None or found < best[0]):
                best = (found, tried, whole)
            if best is not None and best[0] == 0:
                break
        if best is None:
            raise SecateurError("model_invalid", "No size holds the samples.", where=step.output)
        return best[1], best[2]

    def _ways(self, step: Step) -> Iterator[Step]:
        """The step as it is, with one of its sizes scaled, with its constants widened."""
        yield step
        if _SIZED.intersection(step.operator.split(".")):
            for place, part in enumerate(step.args):
                if not isinstance(part, list | tuple):
                    continue
                for index, size in enumerate(part):
                    if type(size) is int and size > 0 and size % self.batch == 0:
                        sizes = [*part[:index], Size(size), *part[index + 1 :]]
                        args = (*step.args[:place], sizes, *step.args[place + 1 :])
                        yield replace(step, args=args)
        for axis in (0, 1):
            args = self._widened(step.args, axis)
            if args != step.args:
                yield replace(step, args=args)

    def _widened(self, part: Any, axis: int) -> Any:
        if isinstance(part, list | tuple):
            return type(part)(self._widened(inner, axis) for inner in part)
        if not isinstance(part, Ref) or part.name in self.given:
            return part
        value = self.values[0].get(part.name)
        if not isinstance(value, Tensor) or value.shape[axis : axis + 1] != (self.batch,):
            return part
        return Widened(part, axis) if even(value, axis) else part


def _doubts(whole: Any, apart: Sequence[Any], batch: int) -> int | None:
    """The largest doubt of a result's tensors; None where one does not hold the batches."""
    if isinstance(whole, tuple | list):
        parts = [_doubts(w, list(a), batch) for w, *a in zip(whole, *apart, strict=True)]
        return None if not parts or None in parts else max(p for p in parts if p is not None)
    if isinstance(whole, Tensor):
        return doubt(whole, apart, batch)
    return 0 if whole is None or whole == apart[0] else None
