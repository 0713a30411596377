"""Reductions by norm and logarithm."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.ops.dispatch import compute
from pruning.formats.onnx.values import Value, axis_of, ints


def _reduction(function: Any):  # type: ignore[no-untyped-def]
    def build(node: Node, builder: Builder) -> None:
        options = {
            "keep": bool(node.attributes.int("keepdims", 1)),
            "noop": bool(node.attributes.int("noop_with_empty_axes", 0)),
            "fixed": node.attributes.ints("axes"),
        }
        builder.call(node, partial(reduce, function, options), [node.input(0), node.input(1)])

    return build


def reduce(function: Any, options: dict[str, Any], x: Value, axes: Value | None) -> Value:
    """Reduces over the given axes, over all where none are given; over none with `noop`.

    Over no axes at all, the function is still applied to each number alone.
    """
    given = options["fixed"] if axes is None else ints(axes, "The axes of a reduction")
    rank = len(x.shape)
    over = given or ([] if options["noop"] else range(rank))
    dims = tuple(sorted({axis_of(a, rank, "A reduction") for a in over}))
    found: Value = compute(partial(function, dims=dims, keep=options["keep"]), x)
    return found


def _sum(x: Tensor, dims: tuple[int, ...], keep: bool) -> Tensor:
    # An empty tuple would mean all axes.
    return x.sum(dim=dims, keepdim=keep, dtype=x.dtype) if dims else x


def l1(x: Tensor, dims: tuple[int, ...], keep: bool) -> Tensor:
    """The sum of magnitudes."""
    return _sum(x.abs(), dims, keep)


def sum_square(x: Tensor, dims: tuple[int, ...], keep: bool) -> Tensor:
    """The sum of squares."""
    return _sum(x * x, dims, keep)


def log_sum(x: Tensor, dims: tuple[int, ...], keep: bool) -> Tensor:
    """The logarithm of the sum."""
    return _sum(x, dims, keep).log()


def log_sum_exp(x: Tensor, dims: tuple[int, ...], keep: bool) -> Tensor:
    """The logarithm of the sum of exponentials, without overflow."""
    return torch.logsumexp(x, dims, keepdim=keep) if dims else x


OPERATORS = {
    "ReduceL1": _reduction(l1),
    "ReduceSumSquare": _reduction(sum_square),
    "ReduceLogSum": _reduction(log_sum),
    "ReduceLogSumExp": _reduction(log_sum_exp),
}
