"""One bit an entry says where it is non-zero; then the non-zero values."""

import math

import numpy as np

from pruning.formats.sparse.types import Arrays, Layout, Member, entries, refuse, unsigned


def layout(kept: int, shape: tuple[int, ...], itemsize: int) -> Layout:
    """Members of a tensor with so many non-zero entries."""
    return {
        "mask": Member("U8", math.ceil(entries(shape) / 8)),
        "values": Member(unsigned(itemsize), kept),
    }


def encode(bits: np.ndarray) -> Arrays:
    """The members' arrays, from flat bit patterns."""
    nonzero = bits != 0
    return {"mask": np.packbits(nonzero, bitorder="little"), "values": bits[nonzero]}


def decode(arrays: Arrays, shape: tuple[int, ...]) -> np.ndarray:
    """Flat bit patterns.

    Raises:
        SecateurError: `unsupported_format` where mask and values contradict each other.
    """
    mask, values, size = arrays["mask"], arrays["values"], entries(shape)
    if size % 8 and mask[-1] >> size % 8:
        raise refuse("a mask has bits beyond its tensor")
    nonzero = np.unpackbits(mask, count=size, bitorder="little").view(np.bool_)
    if int(np.count_nonzero(nonzero)) != len(values):
        raise refuse(f"a mask has not as many bits set as there are values, {len(values)}")
    dense = np.zeros(size, values.dtype)
    dense[nonzero] = values
    return dense
