"""Operators that read or write numbers at indices."""

import math
from functools import partial

import torch
from torch import Tensor

from pruning.errors import SecateurError
from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.ops.dispatch import compute, priced
from pruning.formats.onnx.values import Value, affordable, axis_of, is_host

_REDUCE = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _gather_elements(node: Node, builder: Builder) -> None:
    axis = node.attributes.int("axis", 0)
    function = partial(compute, partial(gather_elements, axis=axis))
    builder.call(node, function, [node.input(0), node.input(1)])


def gather_elements(x: Tensor, indices: Tensor, axis: int) -> Tensor:
    """The numbers at indices along one axis, for every place of `indices`."""
    axis = axis_of(axis, x.dim(), "GatherElements")
    return x.gather(axis, _wrapped(indices, x.shape[axis]))


def _wrapped(indices: Tensor, size: int) -> Tensor:
    indices = indices.long()
    return torch.where(indices < 0, indices + size, indices)


def _gather_nd(node: Node, builder: Builder) -> None:
    batch = node.attributes.int("batch_dims", 0)
    builder.call(node, partial(gather_nd, batch=batch), [node.input(0), node.input(1)])


def gather_nd(x: Value, indices: Value, batch: int) -> Value:
    """The slices of x at the tuples that the last axis of `indices` holds."""
    shape, places = [int(s) for s in x.shape], [int(s) for s in indices.shape]
    count = places[-1] if places else 0
    if not 0 <= batch < min(len(shape), len(places)) or not 1 <= count <= len(shape) - batch:
        raise SecateurError("model_invalid", f"GatherND of {shape} at {places}, batch {batch}.")
    result = [*places[:-1], *shape[batch + count :]]
    if is_host(x, indices):
        affordable(result, "GatherND")

    def pick(x: Tensor, indices: Tensor) -> Tensor:
        priced(x, result, "GatherND")
        samples = math.prod(shape[:batch])
        picked = shape[batch : batch + count]
        flat = _linear(indices.reshape(samples, math.prod(places[batch:-1]), count), picked)
        offset = torch.arange(samples, device=flat.device).unsqueeze(-1) * math.prod(picked)
        rows = x.reshape(samples * math.prod(picked), math.prod(shape[batch + count :]))
        return rows.index_select(0, (flat + offset).reshape(-1)).reshape(result)

    found: Value = compute(pick, x, indices)
    return found


def _linear(indices: Tensor, sizes: list[int]) -> Tensor:
    """Tuples of indices as places in a flat array of these sizes.

    Each index is checked on its own axis: one too large there may still be a place.
    """
    total = torch.zeros_like(indices[..., 0], dtype=torch.long)
    for axis, size in enumerate(sizes):
        index = _wrapped(indices[..., axis], size)
        # An index that is out of bounds becomes one that the final lookup refuses.
        outside = (index < 0) | (index >= size)
        total = total * size + torch.where(outside, math.prod(sizes) * indices.numel(), index)
    return total


def _scatter_elements(node: Node, builder: Builder) -> None:
    axis = node.attributes.int("axis", 0)
    reduction = _reduction(node)
    function = partial(compute, partial(scatter_elements, axis=axis, reduction=reduction))
    builder.call(node, function, [node.input(i) for i in range(3)])


def _reduction(node: Node) -> str:
    reduction = node.attributes.string("reduction", "none")
    if reduction not in ("none", *_REDUCE):
        raise node.invalid(f"reduction={reduction!r}")
    return str(reduction)


def scatter_elements(
    x: Tensor, indices: Tensor, updates: Tensor, axis: int, reduction: str
) -> Tensor:
    """X with the updates written, or reduced into it, at indices along one axis."""
    axis = axis_of(axis, x.dim(), "ScatterElements")
    if indices.shape != updates.shape:
        raise SecateurError("model_invalid", "ScatterElements: indices and updates differ.")
    places = _wrapped(indices, x.shape[axis])
    if reduction == "none":
        return x.scatter(axis, places, updates)
    return x.scatter_reduce(axis, places, updates, reduce=_REDUCE[reduction])


def _scatter_nd(node: Node, builder: Builder) -> None:
    function = partial(compute, partial(scatter_nd, reduction=_reduction(node)))
    builder.call(node, function, [node.input(i) for i in range(3)])


def scatter_nd(x: Tensor, indices: Tensor, updates: Tensor, reduction: str) -> Tensor:
    """X with slices written, or reduced into it, at the tuples in the last axis of `indices`."""
    count = indices.shape[-1] if indices.dim() else 0
    if not 1 <= count <= x.dim() or updates.shape != (*indices.shape[:-1], *x.shape[count:]):
        raise SecateurError(
            "model_invalid",
            f"ScatterND of {list(updates.shape)} into {list(x.shape)} at {list(indices.shape)}.",
        )
    picked, rest = list(x.shape[:count]), math.prod(x.shape[count:])
    places = _linear(indices, picked).reshape(-1)
    rows = x.reshape(math.prod(picked), rest)
    slices = updates.reshape(places.shape[0], rest)
    if reduction == "none":
        return rows.index_copy(0, places, slices).reshape(x.shape)
    spread = places.unsqueeze(-1).expand(slices.shape)
    return rows.scatter_reduce(0, spread, slices, reduce=_REDUCE[reduction]).reshape(x.shape)


OPERATORS = {
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Scatter": _scatter_elements,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
}
