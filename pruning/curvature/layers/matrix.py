"""Which calls a weight takes part in, and as which matrix problem: the one place that knows.

Every part of a call is y = W u at each column u of U [n, g, d, T], with W [g, o, d] its weight as
matrices. Linear, convolutions of either kind, products with a matrix, the gates of recurrent layers
and the packed projections of attention are described here; any other function that takes a weight
is unknown.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pruning.curvature.layers import conv, conv_transpose, linear, product, recurrent
from pruning.curvature.layers.call import Bound

EXPANDED: dict[Any, Callable[..., Any]] = {}
"""Functions written in Python over those described here, as bodies whose calls can be watched."""


def _body(function: Any) -> Callable[..., Any]:
    # torch asks first whether anyone overrides the function as a whole; its body shall just run.
    names = {**function.__globals__, "has_torch_function": lambda *tensors: False}
    body = FunctionType(
        function.__code__, names, function.__name__, function.__defaults__, function.__closure__
    )
    body.__kwdefaults__ = function.__kwdefaults__
    return body


EXPANDED[functional.multi_head_attention_forward] = _body(functional.multi_head_attention_forward)

_BOUND: dict[Any, Callable[..., Bound]] = {
    f: kind.bind for kind in (linear, conv, conv_transpose) for f in kind.FUNCTIONS
}
KNOWN = frozenset((*_BOUND, *recurrent.FUNCTIONS, *product.FUNCTIONS))
"""The functions whose weights are described here."""


@dataclass(frozen=True)
class Form:
    """How a weight's entries lie in its matrices [g, o, d].

    Args:
        shape: Of the weight.
        groups: g.
        transposed: Whether the inputs come first, as in transposed convolutions.
    """

    shape: tuple[int, ...]
    groups: int = 1
    transposed: bool = False

    @property
    def outputs(self) -> int:
        """Outputs of a group, o."""
        return self.shape[1] if self.transposed else self.shape[0] // self.groups

    @property
    def entries(self) -> int:
        """Entries of a column, d."""
        return math.prod(self.shape) // (self.groups * self.outputs)

    def matrix(self, weight: Tensor) -> Tensor:
        """The weight, or whatever else has its shape, as [g, o, d]."""
        if self.transposed:
            weight = weight.unflatten(0, (self.groups, -1)).transpose(1, 2)
            return weight.reshape(self.groups, weight.shape[1], -1)
        return weight.reshape(self.groups, self.shape[0] // self.groups, -1)

    def weight(self, matrix: Tensor) -> Tensor:
        """The inverse of `matrix`."""
        if self.transposed:
            outputs, inputs = self.shape[1], self.shape[0] // self.groups
            split = matrix.reshape(self.groups, outputs, inputs, *self.shape[2:])
            return split.transpose(1, 2).reshape(self.shape)
        return matrix.reshape(self.shape)

    def neighbours(self) -> Tensor | None:
        """The order of columns in which input channels are neighbours, kernel positions outer.

        None where the columns lie so already.
        """
        kernel = math.prod(self.shape[2:])
        if kernel == 1:
            return None
        channels = self.shape[0] // self.groups if self.transposed else self.shape[1]
        return torch.arange(channels * kernel).view(channels, kernel).T.flatten()


@dataclass(frozen=True)
class Part:
    """One weight's part in one call.

    Args:
        inputs: What it is applied to, samples (or whatever comes first) along axis 0.
        axes: Its axes without that of its entries: samples, and where in a sample.
        unfold: Inputs as columns [n, g, d, T].
        fold: Something of the output's shape as [n, g, o, T]; None where there is no such output.
        seen: A mask [n, ...] of `places` as a mask [n, T] of columns: whether a column sees one.
        form: Of the weight in this call.
        ordered: Whether axis 0 of `places` is known to be the samples.
    """

    inputs: Tensor
    axes: tuple[int, ...]
    unfold: Callable[[Tensor], Tensor]
    fold: Callable[[Tensor], Tensor] | None
    seen: Callable[[Tensor], Tensor]
    form: Form
    ordered: bool

    @property
    def places(self) -> tuple[int, ...]:
        """Sizes of `axes`."""
        return tuple(self.inputs.shape[a] for a in self.axes)


def weights_of(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The weights that a call applies, in the order of their use; none of unknown functions."""
    if function in _BOUND:
        return [_BOUND[function](function, args, kwargs).weight]
    if function in recurrent.FUNCTIONS:
        return recurrent.weights(function, args, kwargs)
    if function in product.FUNCTIONS:
        return product.weights(function, args, kwargs)
    return []


def inputs_first(function: Any, index: int) -> bool:
    """Whether the rows of the weight `weights_of(...)[index]` are inputs, not outputs."""
    return function in conv_transpose.FUNCTIONS or (function in product.FUNCTIONS and index == 1)


def part_of(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], index: int = 0) -> Part:
    """The part in the call of the weight `weights_of(...)[index]`."""
    if function in recurrent.FUNCTIONS:
        inputs = recurrent.sequence(function, args, kwargs, index)
        if inputs.ndim == 2:
            inputs = inputs[None]
        shape = tuple(recurrent.weights(function, args, kwargs)[index].shape)
        return Part(inputs, (0, 1), linear.unfold, None, _rows, Form(shape), ordered=True)
    if function in product.FUNCTIONS:
        return _product(function, args, kwargs, index)
    bound = _BOUND[function](function, args, kwargs)
    inputs, shape = bound.inputs, tuple(bound.weight.shape)
    if function in linear.FUNCTIONS:
        alone = inputs.ndim == 1
        inputs = inputs[None] if alone else inputs
        return Part(
            inputs,
            tuple(range(inputs.ndim - 1)),
            bound.unfold,
            lambda y: bound.fold(y[None] if alone else y),
            _rows,
            Form(shape),
            ordered=False,
        )
    alone = inputs.ndim == len(shape) - 1
    inputs = inputs[None] if alone else inputs
    transposed = function in conv_transpose.FUNCTIONS
    channels = inputs.shape[1]
    groups = bound.unfold(torch.empty_like(inputs[:1], device="meta")).shape[1]

    def seen(mask: Tensor) -> Tensor:
        spread = mask[:, None].expand(-1, channels, *mask.shape[1:]).to(torch.float32)
        return bound.unfold(spread)[:, 0].amax(1) > 0

    return Part(
        inputs,
        (0, *range(2, inputs.ndim)),
        bound.unfold,
        lambda y: bound.fold(y[None] if alone else y),
        seen,
        Form(shape, groups, transposed),
        ordered=True,
    )


def _product(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], index: int) -> Part:
    pair = product.factors(function, args, kwargs)
    shape, inputs = tuple(pair[index].shape), pair[1 - index]
    if index == 1:
        axes = tuple(range(inputs.ndim - 1))
        form = Form(shape, transposed=True)
        return Part(inputs, axes, linear.unfold, linear.fold, _rows, form, ordered=False)
    alone = inputs.ndim == 2
    inputs = inputs[None] if alone else inputs
    return Part(
        inputs,
        (*range(inputs.ndim - 2), inputs.ndim - 1),
        product.unfold,
        lambda y: product.unfold(y[None] if alone else y),
        _rows,
        Form(shape),
        ordered=False,
    )


def _rows(mask: Tensor) -> Tensor:
    return mask.reshape(len(mask), -1)
