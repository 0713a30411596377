"""Convolutions of one to three axes: each output position sees one patch of the padded input.

U_n holds the patches of the input (as `unfold` does for images), B_n the output gradients, both cut
into groups of channels. A depthwise convolution is one group a channel.
"""

from functools import partial
from math import prod
from typing import Any

from torch import Tensor
from torch.nn import functional

from pruning.curvature.layers.call import Bound, Geometry

FUNCTIONS = (functional.conv1d, functional.conv2d, functional.conv3d)


def bind(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Bound:
    """The arguments of `convNd(input, weight, bias, stride, padding, dilation, groups)`."""

    def named(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] | str = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
    ) -> Bound:
        kernel = tuple(weight.shape[2:])
        axes = len(kernel)
        steps, spacing = _each(stride, axes), _each(dilation, axes)
        geometry = Geometry(kernel, steps, _pads(padding, kernel, spacing), spacing, groups)
        turned = partial(unfold, geometry=geometry), partial(fold, groups=groups)
        return Bound(input, weight, *turned, movable=False, copies=prod(kernel))

    return named(*args, **kwargs)


def unfold(inputs: Tensor, geometry: Geometry) -> Tensor:
    """[n, channels, *spatial] as patches [n, g, channels / g * kernel, positions]."""
    pads = [p for pair in reversed(geometry.padding) for p in pair]
    padded = functional.pad(inputs, pads) if any(pads) else inputs
    count, channels, *spatial = padded.shape
    axes = list(zip(spatial, geometry.kernel, geometry.stride, geometry.dilation, strict=True))
    places = [(size - apart * (k - 1) - 1) // step + 1 for size, k, step, apart in axes]
    strides = padded.stride()
    within = [s * apart for s, apart in zip(strides[2:], geometry.dilation, strict=True)]
    between = [s * step for s, step in zip(strides[2:], geometry.stride, strict=True)]
    patches = padded.as_strided(
        (count, channels, *geometry.kernel, *places),
        (*strides[:2], *within, *between),
        padded.storage_offset(),
    )
    entries = channels // geometry.groups * prod(geometry.kernel)
    return patches.reshape(count, geometry.groups, entries, prod(places))


def fold(gradients: Tensor, groups: int) -> Tensor:
    """[n, channels, *spatial] as [n, g, channels / g, positions]."""
    count, channels = gradients.shape[:2]
    return gradients.reshape(count, groups, channels // groups, -1)


def _each(value: int | tuple[int, ...], axes: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * axes if len(values) == 1 else values


def _pads(
    padding: int | tuple[int, ...] | str, kernel: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    """Zeros before and after each axis; of `same` padding the odd one comes after, as in torch."""
    if padding == "valid":
        return tuple((0, 0) for _ in kernel)
    if isinstance(padding, str):
        totals = [apart * (k - 1) for k, apart in zip(kernel, dilation, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return tuple((p, p) for p in _each(padding, len(kernel)))
