"""How a module takes its inputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pruning.axes import Declared, check_declared, unknown
from pruning.facts import ModelFacts, TensorFact

Axes = Sequence[int | None]
"""Where each input of a module holds the samples, in order; None where all share one value."""


@dataclass(frozen=True)
class Calling:
    """How a module takes its inputs.

    Args:
        keywords: Names of the inputs, in the data's order, where it takes them by name.
        copies: Whether it is given copies, since it works on its inputs in place.
        axes: Where it wants the samples of each input, None for one value that all of them share;
            first in every input where left out.
    """

    keywords: tuple[str, ...] = ()
    copies: bool = False
    axes: tuple[int | None, ...] = ()

    @property
    def plain(self) -> bool:
        """Whether it is called as `module(*inputs)`."""
        return self == Calling()

    def of(self, call: Callable[..., Any], inputs: tuple[Tensor, ...]) -> Any:
        """Call it.

        Args:
            call: The module.
            inputs: A batch, in the data's order, samples first.
        """
        inputs = arranged(inputs, self.axes)
        if self.copies:
            inputs = tuple(x.clone() for x in inputs)
        if self.keywords:
            return call(**dict(zip(self.keywords, inputs, strict=True)))
        return call(*inputs)


def arranged(inputs: Sequence[Tensor], axes: Axes) -> tuple[Tensor, ...]:
    """Inputs with the samples first, as the module wants them.

    Args:
        inputs: Tensors [N, ...].
        axes: Where the module wants the samples, or fewer; first for those left out.
    """
    full = (*axes, *(0,) * (len(inputs) - len(axes)))
    return tuple(
        x[0] if axis is None else x.movedim(0, axis) if axis else x
        for x, axis in zip(inputs, full, strict=True)
    )


def axes_of(facts: ModelFacts) -> tuple[int | None, ...]:
    """Where an uploaded model wants the samples; empty where that is first in every input.

    Raises:
        SecateurError: `sample_axis_unknown`.
    """
    if (lost := unknown(facts.inputs)) is not None:
        raise lost
    return _but_first([fact.axis for fact in facts.inputs])


def declared_axes(inputs: Mapping[str, Tensor], declared: Declared) -> tuple[int | None, ...]:
    """The same for a module whose inputs are known from data alone.

    Args:
        inputs: Samples first, in the module's order.
        declared: What the spec says of them.

    Raises:
        SecateurError: `spec_invalid` for a declaration that does not fit them.
    """
    found = [
        TensorFact(name=name, dtype=str(x.dtype).removeprefix("torch."), shape=list(x.shape))
        for name, x in inputs.items()
    ]
    check_declared(found, declared)
    axes = [declared.get(name, 0) for name in inputs]
    return _but_first([None if axis == "shared" else axis for axis in axes])


def _but_first(axes: list[int | None]) -> tuple[int | None, ...]:
    return tuple(axes) if any(axis != 0 for axis in axes) else ()
