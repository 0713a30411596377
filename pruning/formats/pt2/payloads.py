"""The stored tensors of a .pt2 file: where each lies in its member's bytes, checked."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from pruning.errors import SecateurError
from pruning.formats.limits import Limits
from pruning.formats.pt2.schema import boolean, mapping, path, record, refuse, text
from pruning.formats.pt2.values import TYPES, tensor_meta

_SPREAD_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Stored:
    """One tensor: `strides` and `offset` count items of the member's bytes."""

    name: str
    member: str
    parameter: bool
    requires_grad: bool
    type: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    @property
    def dtype(self) -> np.dtype:
        """The type of its numbers, little-endian."""
        return TYPES[self.type][1]

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def place(self) -> tuple[Any, ...]:
        """What two tensors that are one have in common."""
        return self.member, self.type, self.shape, self.strides, self.offset

    def view(self, data: bytes | bytearray) -> np.ndarray:
        """The tensor as a view of its member's bytes."""
        if not self.size:
            return np.empty(self.shape, self.dtype)
        steps = [stride * self.dtype.itemsize for stride in self.strides]
        return np.ndarray(self.shape, self.dtype, data, self.offset * self.dtype.itemsize, steps)


def read_config(
    document: Any, where: str, folder: str, sizes: Mapping[str, int], limits: Limits
) -> tuple[dict[str, Any], dict[str, Stored]]:
    """The table of stored tensors, made anew, and the tensors.

    Args:
        document: Parsed JSON.
        where: Named in errors.
        folder: `data/weights` or `data/constants`.
        sizes: Bytes of each member of the archive.
        limits: `tensors` and `parameters`.

    Raises:
        SecateurError: `model_pickled`, `model_invalid` for a tensor that reaches out of its bytes,
            `model_too_large`.
    """
    entries = mapping(record(document, where, ("config",))["config"], where, limits.tensors)
    config: dict[str, Any] = {}
    found: dict[str, Stored] = {}
    types: dict[str, int] = {}
    for name, value in entries.items():
        path(name, where)
        place = f"{where}: {name}"
        fields = record(value, place, ("path_name", "is_param", "use_pickle"), ("tensor_meta",))
        if fields["use_pickle"] is not False:
            raise SecateurError(
                "model_pickled",
                f"The tensor {name} is stored as a pickle; uploaded bytes are never run.",
                where=place,
                hint="Export plain tensors, no subclasses or custom objects.",
            )
        leaf = text(fields["path_name"], place, r"(weight|tensor)_\d{1,6}")
        meta = tensor_meta(fields.get("tensor_meta"), place, fixed=True)
        stored = _stored(name, f"{folder}/{leaf}", meta, boolean(fields["is_param"], place))
        _check_bounds(stored, sizes, place)
        if types.setdefault(stored.member, stored.type) != stored.type:
            raise refuse("Tensors of different types share one member", place)
        found[name] = stored
        config[name] = {
            "path_name": leaf,
            "is_param": stored.parameter,
            "use_pickle": False,
            "tensor_meta": meta,
        }
    total = sum(stored.size for stored in found.values())
    if total > limits.parameters:
        raise SecateurError(
            "model_too_large",
            f"The tensors hold {total} numbers, over {limits.parameters}.",
            where=where,
        )
    spread = sum(s.size * s.dtype.itemsize for s in found.values() if s.size > _held(s, sizes))
    if spread > _SPREAD_BYTES:
        raise SecateurError(
            "model_too_large",
            f"Tensors that repeat the same numbers take {spread} bytes, over {_SPREAD_BYTES}.",
            where=where,
            hint="Repeat them in the network's own pass, with expand.",
        )
    _check_overlaps([s for s in found.values() if s.parameter], where)
    return {"config": config}, found


def _held(stored: Stored, sizes: Mapping[str, int]) -> int:
    """Numbers in the tensor's member."""
    return sizes[stored.member] // stored.dtype.itemsize


def _stored(name: str, member: str, meta: dict[str, Any], parameter: bool) -> Stored:
    return Stored(
        name,
        member,
        parameter,
        meta["requires_grad"],
        meta["dtype"],
        tuple(size["as_int"] for size in meta["sizes"]),
        tuple(stride["as_int"] for stride in meta["strides"]),
        meta["storage_offset"]["as_int"],
    )


def _check_bounds(stored: Stored, sizes: Mapping[str, int], where: str) -> None:
    """Whether each element lies inside the member's bytes."""
    if stored.member not in sizes:
        raise refuse(f"The archive has no member {stored.member}", where)
    items, rest = divmod(sizes[stored.member], stored.dtype.itemsize)
    if rest:
        raise refuse(f"{stored.member} is no whole number of items", where)
    last = sum((n - 1) * s for n, s in zip(stored.shape, stored.strides, strict=True))
    if stored.size and stored.offset + last >= items:
        raise refuse(
            f"The tensor reaches item {stored.offset + last} of {stored.member}, which has {items}",
            where,
        )
    if not items and stored.size:
        raise refuse(f"{stored.member} is empty", where)
    at = 1
    ordered = sorted((s, n) for n, s in zip(stored.shape, stored.strides, strict=True) if n > 1)
    for stride, size in ordered:
        if stored.parameter and stride < at:
            raise refuse("The elements of a parameter overlap each other", where)
        at = stride * (size - 1) + at


def _check_overlaps(parameters: list[Stored], where: str) -> None:
    """Parameters of one member are one and the same, or lie apart."""
    places = {s.place: s for s in parameters if s.size}
    spans = sorted((s.member, s.offset, s.offset + _extent(s), s.name) for s in places.values())
    for first, second in pairwise(spans):
        if first[0] == second[0] and second[1] < first[2]:
            raise refuse(f"The parameters {first[3]} and {second[3]} share some numbers", where)


def _extent(stored: Stored) -> int:
    return 1 + sum((n - 1) * s for n, s in zip(stored.shape, stored.strides, strict=True))
