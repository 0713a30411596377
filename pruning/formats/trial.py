"""Whether a network keeps samples apart, told by running a few of them in two batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import torch
from torch import Tensor

from pruning.axes import Declared, readings
from pruning.errors import SecateurError
from pruning.facts import TensorFact

Size = Callable[[str], int]
"""What a size is taken to be that is only a name."""

Verdict = Literal["apart", "fixed", "mixed"]
"""Samples stay apart at any number of them; nothing speaks against the number of the file; or
what one sample gives depends on the others."""


TOGETHER = 16
"""Samples that are run together where a network compares them and takes any number."""


@dataclass(frozen=True)
class Compared:
    """What two batches showed, and the axis of each output along which the samples lie."""

    verdict: Verdict
    axes: tuple[int | None, ...] = ()


class Found(Protocol):
    """What was found for one way to read the inputs."""

    verdict: Verdict
    inputs: list[TensorFact]


F = TypeVar("F", bound=Found)


def settled(
    inputs: list[TensorFact], declared: Declared | None, attempt: Callable[[list[TensorFact]], F]
) -> F:
    """What is found for the right way to read the inputs.

    That is the first along which samples stay apart; one of a fixed size that nothing speaks
    against will do as well. Where a trial speaks against all of them, and nobody declared one, the
    axes are `unknown`.

    Args:
        inputs: Names and shapes.
        declared: What the user says of them.
        attempt: Runs the network with its inputs read in one way.

    Raises:
        SecateurError: What `readings` raises, and what `attempt` does where nothing can be run.
    """
    first = standing = None
    failure: SecateurError | None = None
    for number, reading in enumerate(readings(inputs, declared)):
        try:
            found = attempt(reading.of(inputs))
        except SecateurError as error:
            if reading.told or (number == 0 and error.code == "model_too_large"):
                raise
            failure = failure or error
            continue
        if declared or found.verdict == "apart" or (number == 0 and found.verdict == "fixed"):
            return found
        first = first or found
        if found.verdict == "fixed":
            standing = standing or found
    if standing is not None:
        return standing
    if first is None:
        assert failure is not None
        raise failure
    first.inputs = [
        fact if fact.axis is None else fact.model_copy(update={"samples": "unknown"})
        for fact in first.inputs
    ]
    return first


def compare(
    large: Sequence[Tensor], small: Sequence[Tensor], *, tried: bool = True, sizes: tuple[int, int]
) -> Compared:
    """What results of samples 0 to n - 1, and of the first ones of them in reverse, say.

    Of equally many, the first in reverse is another sample, so that those around the others differ.

    Args:
        large: Outputs for the first order.
        small: Outputs for the reversed one.
        tried: Whether there are numbers to compare, not shapes alone.
        sizes: Samples in each; the second at most as many.
    """
    axes = tuple(_axis(a, b, sizes, tried) for a, b in zip(large, small, strict=True))
    real = [n for n, output in enumerate(large) if output.is_floating_point()]
    placed = [n for n in real if axes[n] is not None]
    if None not in axes and all(
        _same(a, b, axis, tried) for a, b, axis in zip(large, small, axes, strict=True)
    ):
        return Compared("apart", axes)
    if placed:
        n = placed[0]
        return Compared("fixed" if _same(large[n], small[n], axes[n], tried) else "mixed", axes)
    met = sizes[0] != sizes[1] and all(_met(large[n], small[n], sizes) for n in real)
    return Compared("mixed" if real and met else "fixed", axes)


def _met(a: Tensor, b: Tensor, sizes: tuple[int, int]) -> bool:
    """Whether an output has nothing for each sample, or something for each pair of them."""
    changed = [pair for pair in zip(a.shape, b.shape, strict=False) if pair[0] != pair[1]]
    return a.dim() == b.dim() and (not changed or (len(changed) > 1 and set(changed) == {sizes}))


def exchanged(inputs: Sequence[Tensor], facts: Sequence[TensorFact], count: int) -> list[Tensor]:
    """The first samples of a batch in reverse order; of all of them, the last one left out.

    Args:
        inputs: As the network takes them.
        facts: What is known of each.
        count: How many samples.
    """
    order = list(range(count))[::-1]
    if any(
        fact.axis is not None and x.shape[fact.axis] == count
        for x, fact in zip(inputs, facts, strict=True)
    ):
        order[0] = 0
    return [
        x if fact.axis is None else x.index_select(fact.axis, torch.tensor(order, device=x.device))
        for x, fact in zip(inputs, facts, strict=True)
    ]


def _axis(a: Tensor, b: Tensor, sizes: tuple[int, int], tried: bool) -> int | None:
    """Where an output holds the samples, the axis on which they stay apart if there is one."""
    if a.dim() != b.dim():
        return None
    differ = [i for i, (m, n) in enumerate(zip(a.shape, b.shape, strict=True)) if m != n]
    pairs = zip(a.shape, b.shape, strict=True)
    axes = [i for i, pair in enumerate(pairs) if pair == sizes]
    if not axes or (sizes[0] != sizes[1] and (differ != axes or len(axes) > 1)):
        return None
    return next((axis for axis in axes if _same(a, b, axis, tried)), axes[0])


def _same(a: Tensor, b: Tensor, axis: int | None, tried: bool) -> bool:
    if not tried or axis is None:
        return axis is not None
    count = b.shape[axis]
    order = torch.arange(count - 1, -1, -1, device=a.device)
    first = a.index_select(axis, order).double()
    if a.shape[axis] == count:
        first, b = first.narrow(axis, 1, count - 1), b.narrow(axis, 1, count - 1)
    return torch.allclose(first, b.double(), rtol=1e-3, atol=1e-4, equal_nan=True)


def drawn(
    inputs: Sequence[TensorFact],
    batch: int,
    device: str = "cpu",
    size: Size | None = None,
    *,
    top: int = 1,
) -> list[Tensor]:
    """Inputs drawn at random, as the network takes them; a larger batch begins with a smaller one.

    Args:
        inputs: What the network takes, with the axis of the samples.
        batch: How many samples.
        device: Where they shall lie.
        size: What a size is that is only a name; every size has to be fixed without it.
        top: What integers are below: 2 tells samples apart and is in most tables, 1 in all.
    """
    generator = torch.Generator().manual_seed(0)
    found = []
    for fact in inputs:
        one = [s if isinstance(s, int) else _given(s, size) for s in fact.one]
        shape = one if fact.axis is None else [batch, *one]
        dtype = getattr(torch, fact.dtype)
        if device == "meta":
            x = torch.empty(shape, dtype=dtype, device="meta")
        elif dtype.is_floating_point:
            x = torch.randn(shape, generator=generator).to(dtype)
        else:
            x = torch.randint(0, top, shape, generator=generator).to(dtype)
        found.append(x if not fact.axis else x.movedim(0, fact.axis).contiguous())
    return found


def _given(name: str, size: Size | None) -> int:
    assert size is not None
    return size(name)
