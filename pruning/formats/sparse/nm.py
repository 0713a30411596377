"""At most n of every m neighbours along an axis: n values a group, and which of the m they are.

With 2:4 that is the layout of sparse tensor cores: half of the values, and two bits for each.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pruning.formats.sparse.types import Arrays, Layout, Member, entries, refuse, unsigned

LARGEST = 16
"""Of m."""

_FIRST = 4096
"""Groups to look at before all of them: most tensors fail there."""


class Pattern(NamedTuple):
    """At most `n` non-zero entries in every `m` neighbours along `axis`."""

    n: int
    m: int
    axis: int


def layout(pattern: Pattern, shape: tuple[int, ...], itemsize: int) -> Layout:
    """Members; where a group has fewer non-zero entries, zeros fill it up."""
    values = entries(shape) // pattern.m * pattern.n
    return {
        "picks": Member("U8", math.ceil(values * _width(pattern.m) / 8)),
        "values": Member(unsigned(itemsize), values),
    }


def possible(kept: int, shape: tuple[int, ...]) -> Iterator[Pattern]:
    """Every pattern that so many non-zero entries could keep to, with the smallest n."""
    size = entries(shape)
    if not kept:
        return
    for m in range(2, LARGEST + 1):
        n = math.ceil(kept * m / size)
        if n < m:
            yield from (Pattern(n, m, a) for a in reversed(range(len(shape))) if shape[a] % m == 0)


def holds(nonzero: np.ndarray, pattern: Pattern) -> bool:
    """Whether an array keeps to a pattern.

    Args:
        nonzero: Boolean, in the tensor's shape.
        pattern: The pattern.
    """
    groups = _groups(nonzero, pattern)
    if int(groups[:_FIRST].sum(1).max(initial=0)) > pattern.n:
        return False
    # Column by column, since sums along a short axis are slow.
    counts = np.zeros(len(groups), np.uint8)
    for column in range(pattern.m):
        counts += groups[:, column]
    return int(counts.max(initial=0)) <= pattern.n


def encode(bits: np.ndarray, shape: tuple[int, ...], pattern: Pattern) -> Arrays:
    """The members' arrays, from flat bit patterns that keep to the pattern."""
    groups = _groups(bits.reshape(shape), pattern)
    picked = groups != 0
    lacking = pattern.n - picked.sum(1, dtype=np.int8)
    short = np.flatnonzero(lacking)
    if len(short):
        # The first zeros of a group fill it up.
        zero = ~picked[short]
        picked[short] |= zero & (np.cumsum(zero, 1, dtype=np.int8) <= lacking[short, None])
    picks = (np.flatnonzero(picked) % pattern.m).astype(np.uint8)
    width = _width(pattern.m)
    each = np.unpackbits(picks[:, None], axis=1, count=width, bitorder="little")
    return {"picks": np.packbits(each, bitorder="little"), "values": groups[picked]}


def decode(arrays: Arrays, shape: tuple[int, ...], pattern: Pattern) -> np.ndarray:
    """Flat bit patterns.

    Raises:
        SecateurError: `unsupported_format` for picks that are not places of a group.
    """
    n, m, axis = pattern
    values, width = arrays["values"], _width(m)
    used = len(values) * width
    if used % 8 and arrays["picks"][-1] >> used % 8:
        raise refuse("picks have bits beyond their values")
    each = np.unpackbits(arrays["picks"], count=used, bitorder="little").reshape(-1, width)
    picks = np.packbits(each, axis=1, bitorder="little").reshape(-1, n)
    if bool((picks >= m).any()) or bool((picks[:, 1:] <= picks[:, :-1]).any()):
        raise refuse("picks are not places of a group, ascending")
    dense = np.zeros((len(picks), m), values.dtype)
    np.put_along_axis(dense, picks.astype(np.intp), values.reshape(-1, n), 1)
    moved = shape[:axis] + shape[axis + 1 :] + (shape[axis],)
    return np.ascontiguousarray(np.moveaxis(dense.reshape(moved), -1, axis)).reshape(-1)


def _groups(array: np.ndarray, pattern: Pattern) -> np.ndarray:
    """Shape [groups, m]."""
    moved = np.ascontiguousarray(np.moveaxis(array, pattern.axis, -1))
    return moved.reshape(-1, pattern.m)


def _width(m: int) -> int:
    """Bits of a place among m."""
    return (m - 1).bit_length()
