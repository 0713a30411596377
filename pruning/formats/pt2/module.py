"""The imported network: the graph's steps over an environment of values, run in order.

No code is generated from the file: a step is an operator of the allow-list or one of the module's
own layers, and what it is applied to.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from pruning.errors import SecateurError
from pruning.formats.failures import FAILURES, Accepted, step_failed

LARGEST = 2**63 - 1
HALVES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Ref:
    """The result of an earlier step, or an input, by name."""

    name: str


@dataclass(frozen=True)
class State:
    """A parameter or buffer: by its name in the file, once the module stands by its path."""

    path: str


@dataclass(frozen=True)
class Size:
    """A size that was written down for the file's number of samples, and follows those given."""

    size: int


@dataclass(frozen=True)
class Widened:
    """A value that is the same for all samples of the file, for as many as are given."""

    value: Ref | State
    axis: int


@dataclass(frozen=True)
class Scaling:
    """What `Size` and `Widened` follow.

    Args:
        origin: The input whose samples count.
        axis: Where it holds them.
        batch: Their number in the file.
    """

    origin: int
    axis: int
    batch: int


@dataclass(frozen=True)
class Here:
    """The device that the inputs lie on."""


@dataclass(frozen=True)
class Step:
    """One computation: an operator, or the layer at the path `layer`.

    `args` and `kwargs` hold plain values, `Ref`, `State` and `Here`, in lists too; `writes`: it
    changes one of them. `last` names the values nobody reads after this step.
    """

    output: str
    operator: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    function: Callable[..., Any] | None = None
    layer: str | None = None
    writes: bool = False
    last: tuple[str, ...] = ()

    def refs(self) -> Iterator[str]:
        """Names of the values that it reads."""
        yield from _refs((self.args, self.kwargs))


class Pt2Module(nn.Module):
    """Runs the steps; called with the graph's tensor inputs in order, gives its output or a tuple.

    float16 and bfloat16 are computed in float32.
    """

    def __init__(self, inputs: Sequence[str]) -> None:
        super().__init__()
        self.input_names = tuple(inputs)
        self.outputs: tuple[Any, ...] = ()
        self.steps: tuple[Step, ...] = ()
        self.copied: frozenset[str] = frozenset()
        self.scaling: Scaling | None = None
        self.accepted: Accepted | None = None

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The graph's outputs for the given inputs.

        Raises:
            SecateurError: `data_names` for a wrong number of inputs, and what `step_failed` makes
                of a step that can't be computed, with its name.
        """
        if len(inputs) != len(self.input_names):
            raise SecateurError(
                "data_names", f"The model takes {len(self.input_names)} inputs, not {len(inputs)}."
            )
        device = inputs[0].device
        values: dict[str, Any] = {}
        for name, value in zip(self.input_names, inputs, strict=True):
            full = value.float() if value.dtype in HALVES else value
            values[name] = full.clone() if name in self.copied else full
        for step in self.steps:
            values[step.output] = self.run(step, values, inputs)
            for name in step.last:
                del values[name]
        count = self.count(inputs)
        outputs = tuple(self._filled(o, values, device, count) for o in self.outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def count(self, inputs: Sequence[Tensor]) -> int:
        """How many samples are given, where sizes follow them; else 0."""
        at = self.scaling
        return 0 if at is None else inputs[at.origin].shape[at.axis]

    def run(self, step: Step, values: dict[str, Any], inputs: Sequence[Tensor]) -> Any:
        """The result of one step.

        Raises:
            SecateurError: What `step_failed` makes of one that can't be computed.
        """
        device, count = inputs[0].device, self.count(inputs)
        call: Any = self.get_submodule(step.layer) if step.layer is not None else step.function
        try:
            args = self._filled(step.args, values, device, count)
            kwargs = self._filled(step.kwargs, values, device, count)
            result = call(*args, **kwargs)
            if isinstance(result, int) and abs(result) > LARGEST:
                raise OverflowError("a size is over 64 bits")
        except SecateurError:
            raise
        except FAILURES as error:
            raise step_failed(error, step.operator, step.output, inputs, self.accepted) from error
        return result

    def _filled(self, part: Any, values: dict[str, Any], device: torch.device, count: int) -> Any:
        if isinstance(part, Ref):
            return values[part.name]
        if isinstance(part, State):
            return reduce(getattr, part.path.split("."), self)
        if isinstance(part, Here):
            return device
        if isinstance(part, Size):
            assert self.scaling is not None
            return part.size * count // self.scaling.batch
        if isinstance(part, Widened):
            first = self._filled(part.value, values, device, count).narrow(part.axis, 0, 1)
            return first.expand(*first.shape[: part.axis], count, *first.shape[part.axis + 1 :])
        if isinstance(part, list | tuple):
            return type(part)(self._filled(inner, values, device, count) for inner in part)
        if isinstance(part, dict):
            return {key: self._filled(inner, values, device, count) for key, inner in part.items()}
        return part

    def finish(self, steps: Sequence[Step], outputs: Sequence[Any]) -> None:
        """Takes the steps that the outputs need, and notes after which each value can go."""
        needed = set(_refs(tuple(outputs)))
        kept: list[Step] = []
        for step in reversed(steps):
            if step.output in needed or step.writes:
                needed.update(step.refs())
                kept.append(step)
        kept.reverse()
        stay = {*_refs(tuple(outputs))}
        last: dict[str, int] = {}
        for index, step in enumerate(kept):
            for name in (*step.refs(), step.output):
                if name not in stay:
                    last[name] = index
        gone: dict[int, list[str]] = {}
        for name, index in last.items():
            gone.setdefault(index, []).append(name)
        self.steps = tuple(
            replace(step, last=tuple(gone.get(index, ()))) for index, step in enumerate(kept)
        )
        self.outputs = tuple(outputs)

    def extra_repr(self) -> str:
        """Inputs and the number of steps."""
        return f"{self.input_names}, {len(self.steps)} steps"


class Attention(nn.Module):
    """Scaled dot-product attention whose dropout acts in training alone."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        """Attention [..., L, E] of queries [..., L, E] over keys and values [..., S, E]."""
        p = self.p if self.training else 0.0
        return nn.functional.scaled_dot_product_attention(query, key, value, dropout_p=p, **options)


def _refs(part: Any) -> Iterator[str]:
    if isinstance(part, Ref):
        yield part.name
    elif isinstance(part, Widened):
        yield from _refs(part.value)
    elif isinstance(part, list | tuple):
        for inner in part:
            yield from _refs(inner)
    elif isinstance(part, dict):
        for inner in part.values():
            yield from _refs(inner)
