"""Which codec stores a tensor in the fewest bytes, and how many that are."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pruning.formats.sparse import bitmask, csr, nm
from pruning.formats.sparse.nm import Pattern
from pruning.formats.sparse.types import Arrays, Layout, entries

NAME_BYTES = 96
"""Of a tensor's name, as `stored_bytes` supposes."""

FILE_BYTES = 1024
"""The most that each of the model's files takes beside what of it is not coded."""

_ENTRY, _DIMENSION, _MEMBER = 288, 12, 112
"""Most bytes in the header of a tensor beyond its name, of each dimension, and of each member."""


_GROWN = 40
"""Most letters by which a tensor's entry is longer for its codec than for none."""


class Coding(NamedTuple):
    """A codec, with its pattern where it has one, and the members it makes."""

    codec: str
    layout: Layout
    pattern: Pattern | None = None

    @property
    def bytes(self) -> int:
        """Bytes of the members, their part of the header included."""
        return sum(member.bytes + _MEMBER for member in self.layout.values())


def stored_bytes(
    kept: int,
    shape: tuple[int, ...],
    itemsize: int,
    pattern: tuple[int, int] | None = None,
    *,
    name_bytes: int = NAME_BYTES,
) -> int:
    """The most bytes that a tensor takes in a sparse file, its part of the header included.

    Files may hold a weight transposed, so the bound is for either order of the shape.

    Args:
        kept: Non-zero entries, at most.
        shape: The tensor's shape.
        itemsize: Bytes an entry.
        pattern: (n, m) where at most n of every m neighbours along an axis are non-zero.
        name_bytes: Bytes of the tensor's name as it stands in the header, at most.
    """
    found = [entries(shape) * itemsize + _MEMBER]
    orders = (_anywhere(kept, order, itemsize) for order in (shape, shape[::-1]))
    found += [max(one.bytes, other.bytes) for one, other in zip(*orders, strict=True)]
    if pattern is not None:
        n, m = pattern
        # Whichever axis it is along; ones of the kernel are not meant.
        whole = bool(shape) and not any(size % m for size in shape[:2])
        if whole and 1 <= n < m <= nm.LARGEST:
            layout = nm.layout(Pattern(n, m, 0), shape, itemsize)
            found.append(Coding("nm", layout).bytes)
    return min(found) + _ENTRY + name_bytes + _DIMENSION * len(shape)


def coded_bytes(kept: int, shape: tuple[int, ...], itemsize: int, digits: int) -> int:
    """The most bytes that a tensor adds to a sparse file whose rest was measured.

    Like `stored_bytes`, but the codec is the one that `choose` takes, a tensor that is not coded
    adds its own bytes alone, and a member's part of the header is counted by letters.

    Args:
        kept: Non-zero entries, at most.
        shape: The tensor's shape, in either order.
        itemsize: Bytes an entry.
        digits: Of the largest number in the header.
    """
    dense, most = entries(shape) * itemsize, 0
    for order in (shape, shape[::-1]):
        best = min(_anywhere(kept, order, itemsize), key=lambda coding: coding.bytes)
        most = max(most, _added(best, digits) if best.bytes < dense else dense)
    return most


def least_bytes(kept: int, shape: tuple[int, ...], itemsize: int) -> int:
    """The fewest bytes that a tensor may take in a sparse file, without the header."""
    found = [entries(shape) * itemsize]
    for order in (shape, shape[::-1]):
        codings = _anywhere(kept, order, itemsize)
        found += [sum(member.bytes for member in coding.layout.values()) for coding in codings]
    # Of an n:m pattern the values are stored, and at least a bit for each.
    return min(*found, kept * itemsize + kept // 8)


def _added(coding: Coding, digits: int) -> int:
    number, total = "9" * digits, _GROWN
    for role, member in coding.layout.items():
        entry = f'"{role}.{number}":{{"dtype":"BF16","shape":[{number}],"data_offsets":[,]}},'
        total += member.bytes + len(entry) + 2 * digits
    return total


def choose(bits: np.ndarray, shape: tuple[int, ...]) -> Coding | None:
    """The codec that takes the fewest bytes; None where dense does.

    Args:
        bits: Flat bit patterns.
        shape: The tensor's shape.
    """
    itemsize = bits.dtype.itemsize
    nonzero = bits != 0
    kept = int(np.count_nonzero(nonzero))
    best: Coding | None = None
    fewest = entries(shape) * itemsize
    for coding in _anywhere(kept, shape, itemsize):
        if coding.bytes < fewest:
            best, fewest = coding, coding.bytes
    for pattern in nm.possible(kept, shape):
        coding = Coding("nm", nm.layout(pattern, shape, itemsize), pattern)
        # Of equals the pattern wins, since hardware knows it.
        better = coding.bytes < fewest or (
            best is not None and best.codec == "bitmask" and coding.bytes == fewest
        )
        if better and nm.holds(nonzero.reshape(shape), pattern):
            best, fewest = coding, coding.bytes
    return best


def encode(coding: Coding, bits: np.ndarray, shape: tuple[int, ...]) -> Arrays:
    """The members' arrays."""
    if coding.codec == "bitmask":
        return bitmask.encode(bits)
    if coding.codec == "csr":
        return csr.encode(bits, shape)
    assert coding.pattern is not None
    return nm.encode(bits, shape, coding.pattern)


def decode(coding: Coding, arrays: Arrays, shape: tuple[int, ...]) -> np.ndarray:
    """Flat bit patterns; see the codecs for what is refused."""
    if coding.codec == "bitmask":
        return bitmask.decode(arrays, shape)
    if coding.codec == "csr":
        return csr.decode(arrays, shape)
    assert coding.pattern is not None
    return nm.decode(arrays, shape, coding.pattern)


def _anywhere(kept: int, shape: tuple[int, ...], itemsize: int) -> Iterator[Coding]:
    """Codings for zeros wherever they lie."""
    yield Coding("bitmask", bitmask.layout(kept, shape, itemsize))
    yield Coding("csr", csr.layout(kept, shape, itemsize))
