"""Where in the model's own files the raw bytes of each tensor lie.

Whatever the format: one pass over each file looks for eight distinctive bytes of every tensor.
Tensors that have none (all zero, all one) are then looked for between those that were found.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

FEWEST = 64
"""Bytes of the smallest tensor that is looked for: less could lie anywhere by chance."""

_BLOCK = 16 << 20
_AT_ONCE = 1 << 20
_SAMPLED = 4096
_FAILURES = 1000
"""Mismatches after which eight bytes are not distinctive after all."""


class Place(NamedTuple):
    """A tensor's first byte: the file's number, and the offset in it."""

    file: int
    at: int


class _Anchor(NamedTuple):
    word: int
    offset: int


def find(
    files: Sequence[np.ndarray], tensors: Mapping[str, np.ndarray], sizes: Mapping[str, int]
) -> tuple[dict[str, Place], dict[str, str]]:
    """Places that do not overlap, and tensors whose bytes are another's (tied weights).

    Args:
        files: The files' bytes, uint8.
        tensors: Arrays by name; in case of doubt the name that sorts first gets the first place.
        sizes: Bytes of the tensors to look for, by name.

    Returns:
        Places by name; for the second name of the same bytes the first one.
    """
    search = _Search(files, tensors)
    names = [name for name in sorted(sizes) if sizes[name] >= FEWEST]
    anchors = {name: _anchor(raw(tensors[name])) for name in names}
    for number in range(len(files)):
        left = {n: a for n in names if (a := anchors[n]) is not None and n not in search.found}
        search.by_anchors(number, left)
    for name in names:
        if name not in search.found:
            search.in_gaps(name)
    return search.found, _same(search.found, tensors, sizes, set(names) - search.found.keys())


def raw(array: np.ndarray) -> np.ndarray:
    """An array's bytes in C order, little-endian, as they would lie in a file."""
    swapped = array.dtype.newbyteorder("<")
    ordered = np.ascontiguousarray(array if array.dtype == swapped else array.astype(swapped))
    return ordered.reshape(-1).view(np.uint8)


class _Search:
    """Places found so far, as intervals in ascending order for each file."""

    def __init__(self, files: Sequence[np.ndarray], tensors: Mapping[str, np.ndarray]) -> None:
        self.files, self.tensors = files, tensors
        self.found: dict[str, Place] = {}
        self._taken: list[list[tuple[int, int]]] = [[] for _ in files]

    def by_anchors(self, number: int, anchors: dict[str, _Anchor]) -> None:
        """Finds tensors by their anchors in one pass over a file."""
        waiting: dict[int, list[str]] = defaultdict(list)
        for name in sorted(anchors):
            waiting[anchors[name].word].append(name)
        failed: dict[int, int] = defaultdict(int)
        for position, word in _hits(self.files[number], waiting):
            for name in waiting[word]:
                start = position - anchors[name].offset
                if self._take(name, number, start):
                    waiting[word].remove(name)
                    break
            else:
                failed[word] += 1
            if not waiting[word] or failed[word] > _FAILURES:
                del waiting[word]
                if not waiting:
                    return

    def in_gaps(self, name: str) -> None:
        """Finds a tensor's bytes in what is left between those that were found."""
        needle = raw(self.tensors[name]).tobytes()
        for number, file in enumerate(self.files):
            for start, end in self._gaps(number):
                # Pieces that overlap by the tensor, so that memory is bounded.
                for first in range(start, end - len(needle) + 1, _BLOCK):
                    piece = file[first : min(first + _BLOCK + len(needle) - 1, end)].tobytes()
                    if (at := piece.find(needle)) >= 0:
                        self._add(name, number, first + at, len(needle))
                        return

    def _gaps(self, number: int) -> list[tuple[int, int]]:
        ends = [0, *(end for _, end in self._taken[number])]
        starts = [*(start for start, _ in self._taken[number]), len(self.files[number])]
        return list(zip(ends, starts, strict=True))

    def _take(self, name: str, number: int, start: int) -> bool:
        """Puts a tensor there, if it lies there and nothing else does."""
        data = raw(self.tensors[name])
        end = start + len(data)
        if start < 0 or end > len(self.files[number]):
            return False
        taken = self._taken[number]
        index = bisect_left(taken, (start, end))
        neighbours = taken[max(index - 1, 0) : index + 1]
        if any(first < end and start < last for first, last in neighbours):
            return False
        if not _equal(self.files[number][start:end], data):
            return False
        self._add(name, number, start, len(data))
        return True

    def _add(self, name: str, number: int, start: int, size: int) -> None:
        self.found[name] = Place(number, start)
        interval = (start, start + size)
        self._taken[number].insert(bisect_left(self._taken[number], interval), interval)


def _anchor(data: np.ndarray) -> _Anchor | None:
    """Eight bytes that are rare in the tensor and begin with one that is not 0."""
    halves = data[: len(data) // 2 * 2].view("<u2")
    places = np.empty(0, np.intp)
    for start in range(0, len(halves), _BLOCK):
        places = np.flatnonzero(halves[start : start + _BLOCK])[:_SAMPLED] + start
        if len(places):
            break
    places = places[places <= len(halves) - 4]
    if not len(places):
        return None
    octets = np.stack([halves[places + i] for i in range(4)], 1).copy().view("<u8")[:, 0]
    words, first, counts = np.unique(octets, return_index=True, return_counts=True)
    if len(words) == 1 and len(places) > 1:
        return None
    filled = (words[:, None].view(np.uint8) != 0).sum(1)
    best = int(np.lexsort((first, -filled, counts))[0])
    return _Anchor(int(words[best]), 2 * int(places[first[best]]))


def _hits(file: np.ndarray, waiting: dict[int, list[str]]) -> Iterator[tuple[int, int]]:
    """Position and value wherever eight bytes of the file are those of an anchor, ascending."""
    words = np.array(sorted(waiting), dtype="<u8")
    likely = np.zeros(1 << 16, np.bool_)
    likely[words & np.uint64(0xFFFF)] = True
    for start in range(0, len(file) - 7, _BLOCK):
        block = np.ascontiguousarray(file[start : start + _BLOCK + 7])
        last = len(block) - 8
        positions = np.concatenate(
            [2 * np.flatnonzero(likely[_words(block, shift, "<u2")]) + shift for shift in range(2)]
        )
        positions = np.sort(positions[positions <= last])
        for part in range(0, len(positions), _AT_ONCE):
            some = positions[part : part + _AT_ONCE]
            octets = block[some[:, None] + np.arange(8)].view("<u8")[:, 0]
            for i in np.flatnonzero(np.isin(octets, words)):
                if (word := int(octets[i])) in waiting:
                    yield start + int(some[i]), word


def _words(block: np.ndarray, shift: int, kind: str) -> np.ndarray:
    shifted = block[shift:]
    return shifted[: len(shifted) // 2 * 2].view(kind)


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether bytes are the same, piece by piece, since most are not from the start."""
    if a[:4096].tobytes() != b[:4096].tobytes():
        return False
    pieces = range(4096, len(a), _AT_ONCE)
    return all(np.array_equal(a[i : i + _AT_ONCE], b[i : i + _AT_ONCE]) for i in pieces)


def _same(
    found: Mapping[str, Place],
    tensors: Mapping[str, np.ndarray],
    sizes: Mapping[str, int],
    left: set[str],
) -> dict[str, str]:
    """For tensors without a place of their own, another of their type with the same bytes."""
    placed: dict[int, list[str]] = defaultdict(list)
    for name in sorted(found):
        placed[sizes[name]].append(name)
    same = {}
    for name in sorted(left):
        array = tensors[name]
        for other in placed[sizes[name]]:
            alike = tensors[other].dtype == array.dtype
            if alike and _equal(raw(array), raw(tensors[other])):
                same[name] = other
                break
    return same
