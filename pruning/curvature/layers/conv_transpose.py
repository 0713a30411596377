"""Transposed convolutions: each output position sees one patch of the zero-upsampled input.

y = convT(x, W) is the plain convolution, of stride 1 and with a flipped kernel, of x with `stride`
- 1 zeros between its entries; so the columns U are that convolution's patches, with their kernel
axes flipped back into the order of W. Patches that overlap are right by themselves, since every
output position has a column of its own.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pruning.curvature.layers import conv
from pruning.curvature.layers.call import Bound, Geometry

FUNCTIONS = (
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
)


def bind(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Bound:
    """The arguments of `conv_transposeNd`; its weight is [channels, outputs / groups, *kernel]."""

    def named(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] = 0,
        output_padding: int | tuple[int, ...] = 0,
        groups: int = 1,
        dilation: int | tuple[int, ...] = 1,
    ) -> Bound:
        kernel = tuple(weight.shape[2:])
        axes = len(kernel)
        steps, spacing = _each(stride, axes), _each(dilation, axes)
        cut, more = _each(padding, axes), _each(output_padding, axes)
        reach = [apart * (k - 1) for apart, k in zip(spacing, kernel, strict=True)]
        pads = tuple((r - c, r - c + m) for r, c, m in zip(reach, cut, more, strict=True))
        geometry = Geometry(kernel, (1,) * axes, pads, spacing, groups)
        turned = partial(unfold, geometry=geometry, stride=steps), partial(conv.fold, groups=groups)
        return Bound(input, weight, *turned, movable=False, copies=weight[0, 0].numel())

    return named(*args, **kwargs)


def unfold(inputs: Tensor, geometry: Geometry, stride: tuple[int, ...]) -> Tensor:
    """[n, channels, *spatial] as patches [n, g, channels / g * kernel, output positions]."""
    count, channels, *spatial = inputs.shape
    sizes = [(size - 1) * step + 1 for size, step in zip(spatial, stride, strict=True)]
    spread = inputs.new_zeros(count, channels, *sizes)
    places: Any = (..., *(slice(None, None, step) for step in stride))
    spread[places] = inputs
    patches = conv.unfold(spread, geometry)
    shape = patches.shape
    within = patches.view(*shape[:2], -1, *geometry.kernel, shape[3])
    axes = range(3, 3 + len(geometry.kernel))
    return torch.flip(within, tuple(axes)).reshape(shape)


def _each(value: int | tuple[int, ...], axes: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * axes if len(values) == 1 else values
