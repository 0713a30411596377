"""Which positions of a layer's input are tokens, and which only padding.

What is known is a mask [N, T] of a batch. A layer's input may carry samples and tokens along two of
its axes, in either order, or both along one; where its shape leaves more than one reading, `tell`
finds out by exchanging the samples of a batch and looking which places follow. An input with
samples but no tokens (a pooled one) has no padding; one without samples leaves it unknown.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pruning.data.batches import ArrayData

MASK = "attention_mask"


@dataclass(frozen=True)
class Layout:
    """Where samples and tokens lie among an input's places.

    Args:
        samples: Axis of the samples.
        tokens: Axis of the tokens; the same one where both lie along one axis.
        samples_first: Of one axis: whether all tokens of a sample are neighbours.
    """

    samples: int
    tokens: int
    samples_first: bool = True

    def mask(self, real: Tensor, places: tuple[int, ...]) -> Tensor:
        """A mask [N, T] as one of `places`."""
        if self.samples == self.tokens:
            flat = (real if self.samples_first else real.T).reshape(-1)
            shape = [1] * len(places)
            shape[self.samples] = len(flat)
            return flat.view(shape).expand(places)
        ordered = real if self.samples < self.tokens else real.T
        shape = [1] * len(places)
        shape[self.samples], shape[self.tokens] = real.shape
        return ordered.reshape(shape).expand(places)

    def rolled(self, inputs: Tensor, real: tuple[int, int], axes: tuple[int, ...]) -> Tensor:
        """Inputs with the samples moved on by one; `axes` are the inputs' axes of the places."""
        axis = axes[self.samples]
        if self.samples != self.tokens:
            return inputs.roll(1, axis)
        sizes = real if self.samples_first else real[::-1]
        split = inputs.unflatten(axis, sizes)
        return split.roll(1, axis if self.samples_first else axis + 1).flatten(axis, axis + 1)


def layouts(places: tuple[int, ...], real: tuple[int, int], ordered: bool) -> list[Layout]:
    """The readings that a shape allows, the likeliest first.

    Args:
        places: Shape of the input without its entries.
        real: (N, T).
        ordered: Whether the samples are known to lie along axis 0.
    """
    samples, tokens = real
    axes = range(len(places))
    found = [
        Layout(a, b)
        for a in (axes[:1] if ordered else axes)
        for b in axes
        if a != b and places[a] == samples and places[b] == tokens
    ]
    if not found and not ordered:
        flat = [a for a in axes if places[a] == samples * tokens]
        found = [Layout(a, a, first) for a in flat for first in (True, False)]
        if samples == 1 or tokens == 1:
            found = found[:1]
    return found


def pooled(places: tuple[int, ...], samples: int) -> bool:
    """Whether an input without tokens still has samples along an axis."""
    return samples in places


def tell(
    candidates: list[Layout],
    inputs: Tensor,
    moved: Tensor,
    real: tuple[int, int],
    axes: tuple[int, ...],
) -> Layout:
    """The reading under which exchanging the samples of the batch moves the layer's input so.

    Args:
        candidates: Readings.
        inputs: The layer's input.
        moved: The same when the batch's samples were moved on by one.
        real: (N, T).
        axes: The axes of `inputs` that are its places.
    """
    misses = [float((c.rolled(inputs, real, axes) - moved).double().norm()) for c in candidates]
    return candidates[misses.index(min(misses))]


def real_tokens(
    data: ArrayData, name: str | None = None, ignored: int | None = None
) -> Tensor | None:
    """Which tokens of the data are no padding, [N, T]; None where nothing says so.

    An input of two axes called `attention_mask` decides, tokens being where it is not zero. Without
    it, and for a task whose target labels every token, labels equal to `ignored` mark padding.

    Args:
        data: Calibration data.
        name: Of the mask among the inputs, where it is called otherwise.
        ignored: The label of tokens that do not count.
    """
    mask = data.inputs.get(name or MASK)
    if mask is not None and mask.ndim == 2:
        return mask != 0
    if ignored is not None and data.target is not None and data.target.ndim == 2:
        return torch.as_tensor(data.target != ignored)
    return None
