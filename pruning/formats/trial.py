"""Whether a network keeps samples apart, told by running a few of them in several batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import torch
from torch import Tensor

from pruning.axes import Declared, readings
from pruning.errors import SecateurError
from pruning.facts import TensorFact
from pruning.influence import Order, apart

Size = Callable[[str], int]
"""What a size is taken to be that is only a name."""

Verdict = Literal["apart", "fixed", "alone", "mixed"]
"""Samples stay apart at any number of them; nothing speaks against the number of the file; they
would influence each other, but the file takes one at a time; or they do."""

Tries = Sequence[tuple[Sequence[Tensor], Order]]
"""Outputs of several batches, and the samples of each."""

TOGETHER = 16
"""Samples that are run together where a network compares them and takes any number."""


@dataclass(frozen=True)
class Compared:
    """What several batches showed, and the axis of each output along which the samples lie."""

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
    against will do as well, and after these an axis of one sample. Where a trial speaks against all
    of them, and nobody declared one, the axes are `unknown`.

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
        if found.verdict != "mixed":
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


def compare(tries: Tries, *, tried: bool = True) -> Compared:
    """What results of the same samples in several batches say.

    Args:
        tries: Results of `influence.orders`, the file's outputs in each.
        tried: Whether there are numbers to compare, not shapes alone.
    """
    axes, kept = [], []
    for results in zip(*(outputs for outputs, _ in tries), strict=True):
        own = [(result, order) for result, (_, order) in zip(results, tries, strict=True)]
        places = _places(own)
        axis = next((a for a in places if not tried or apart(own, a)), None)
        kept.append(axis is not None)
        axes.append(axis if axis is not None else next(iter(places), None))
    real = [n for n, output in enumerate(tries[0][0]) if output.is_floating_point()]
    placed = next((n for n in real if axes[n] is not None), None)
    if all(kept):
        return Compared("apart", tuple(axes))
    if placed is not None:
        return Compared("fixed" if kept[placed] else "mixed", tuple(axes))
    met = all(_met([(outputs[n], order) for outputs, order in tries]) for n in real)
    return Compared("mixed" if real and met else "fixed", tuple(axes))


def _places(tries: Sequence[tuple[Tensor, Order]]) -> list[int]:
    """The axes of an output that may hold the samples: of batches of several sizes, one or none."""
    shapes = [result.shape for result, _ in tries]
    if len({len(shape) for shape in shapes}) > 1:
        return []
    counts = [len(order) for _, order in tries]
    sizes = list(zip(*shapes, strict=True))
    found = [axis for axis, size in enumerate(sizes) if list(size) == counts]
    if len(set(counts)) > 1:
        changed = [axis for axis, size in enumerate(sizes) if len(set(size)) > 1]
        return found if found == changed and len(found) == 1 else []
    return found


def _met(tries: Sequence[tuple[Tensor, Order]]) -> bool:
    """Whether an output has nothing for each sample, or something for each pair of them."""
    counts = [len(order) for _, order in tries]
    shapes = [result.shape for result, _ in tries]
    if len(set(counts)) == 1:
        return counts[0] > 1
    if len({len(shape) for shape in shapes}) > 1:
        return False
    changed = [list(size) for size in zip(*shapes, strict=True) if len(set(size)) > 1]
    return not changed or (len(changed) > 1 and all(size == counts for size in changed))


def picked(inputs: Sequence[Tensor], facts: Sequence[TensorFact], order: Order) -> list[Tensor]:
    """Some of the samples in an order.

    Args:
        inputs: As the network takes them.
        facts: What is known of each.
        order: Numbers of samples.
    """
    return [
        x if fact.axis is None else x.index_select(fact.axis, torch.tensor(order, device=x.device))
        for x, fact in zip(inputs, facts, strict=True)
    ]


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
