"""Sums, means and extremes over axes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.values import Value, axis_of, ints


def _reduction(on_host: Callable[..., Any], on_tensor: Callable[..., Tensor]):  # type: ignore[no-untyped-def]
    def build(node: Node, builder: Builder) -> None:
        options = {
            "keepdims": bool(node.attributes.int("keepdims", 1)),
            "noop": bool(node.attributes.int("noop_with_empty_axes", 0)),
            "fixed": node.attributes.ints("axes"),
            "what": node.operator,
        }
        function = partial(reduce_axes, on_host, on_tensor, options)
        builder.call(node, function, [node.input(0), node.input(1)])

    return build


def reduce_axes(
    on_host: Callable[..., Any],
    on_tensor: Callable[..., Tensor],
    options: dict[str, Any],
    x: Value,
    axes: Value | None,
) -> Value:
    """Reduces over the axes of the attribute or the input; over all where none are given."""
    given = options["fixed"] if axes is None else ints(axes, f"{options['what']}'s axes")
    if not given and options["noop"]:
        return x
    rank = len(x.shape)
    dims = tuple(sorted({axis_of(a, rank, options["what"]) for a in given or range(rank)}))
    if isinstance(x, Tensor):
        return on_tensor(x, dim=dims, keepdim=options["keepdims"]) if dims else x
    return np.asarray(on_host(x, axis=dims, keepdims=options["keepdims"])).astype(x.dtype)


def product(x: Tensor, dim: tuple[int, ...], keepdim: bool) -> Tensor:
    """The product over several axes."""
    for axis in reversed(dim):
        x = x.prod(dim=axis, keepdim=keepdim)
    return x


def l2(x: Tensor, dim: tuple[int, ...], keepdim: bool) -> Tensor:
    """The Euclidean norm over several axes."""
    return torch.linalg.vector_norm(x, dim=dim, keepdim=keepdim)


def host_l2(x: np.ndarray, axis: tuple[int, ...], keepdims: bool) -> np.ndarray:
    """The Euclidean norm over several axes."""
    return np.sqrt(np.square(x).sum(axis=axis, keepdims=keepdims))


OPERATORS = {
    "ReduceMean": _reduction(np.mean, torch.mean),
    "ReduceSum": _reduction(np.sum, torch.sum),
    "ReduceMax": _reduction(np.max, torch.amax),
    "ReduceMin": _reduction(np.min, torch.amin),
    "ReduceProd": _reduction(np.prod, product),
    "ReduceL2": _reduction(host_l2, l2),
}
