"""Bitmask-coded tensors: one bit a weight says where it is non-zero, then the non-zero values.

docs/bitmask.md describes the layout. A position counts as zero only where all its bits are zero,
so -0.0 and NaN payloads come back exactly. Numpy only.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pruning.errors import SecateurError
from pruning.formats import containers

FORMAT, VERSION = "bitmask", 1

HEADER_COST = 128
"""Bytes a coded tensor costs in the header beyond a dense one, about."""

_SUFFIXES = ("#dense", "#mask", "#values")


def encode(tensors: Mapping[str, np.ndarray], path: Path) -> None:
    """Writes tensors to a file, each coded where that is smaller and dense where not.

    Args:
        tensors: Arrays by name; every float and integer type of safetensors.
        path: The file to write.

    Raises:
        ValueError: A type that safetensors does not have.
    """
    members: dict[str, np.ndarray] = {}
    shapes: dict[str, list[int]] = {}
    for name in sorted(tensors):
        array = np.asarray(tensors[name])
        if not containers.can_hold(array.dtype):
            raise ValueError(f"safetensors has no type {array.dtype.name}")
        nonzero = _bits(array) != 0
        coded = math.ceil(array.size / 8) + int(nonzero.sum()) * array.dtype.itemsize
        if coded + HEADER_COST < array.nbytes:
            members[f"{name}#mask"] = np.packbits(nonzero, bitorder="little")
            members[f"{name}#values"] = np.ascontiguousarray(array).reshape(-1)[nonzero]
            shapes[name] = list(array.shape)
        else:
            members[_dense_name(name)] = array
    containers.write(path, members, {"format": FORMAT, "version": VERSION, "shapes": shapes})


def decode(path: Path) -> dict[str, np.ndarray]:
    """Reads the dense tensors back, bit for bit, sorted by name.

    Raises:
        SecateurError: `unsupported_format` for anything that `encode` can't have written.
    """
    members, metadata = containers.read(path, FORMAT, VERSION)
    shapes = metadata.get("shapes")
    if not isinstance(shapes, dict):
        raise _refuse("its metadata hold no shapes")
    found: dict[str, np.ndarray] = {}
    for name, shape in shapes.items():
        mask, values = members.pop(f"{name}#mask", None), members.pop(f"{name}#values", None)
        if mask is None or values is None:
            raise _refuse(f"tensor {name!r} lacks its mask or its values")
        found[name] = _expand(name, shape, mask, values)
    for member, array in members.items():
        if member.endswith(("#mask", "#values")):
            raise _refuse(f"member {member!r} belongs to no tensor")
        found[member.removesuffix("#dense")] = array
    return dict(sorted(found.items()))


def _dense_name(name: str) -> str:
    """The tensor's own name, unless that could be taken for a member of another tensor."""
    return f"{name}#dense" if name.endswith(_SUFFIXES) or name == "__metadata__" else name


def _bits(array: np.ndarray) -> np.ndarray:
    """Bit patterns, flat in C order, as unsigned integers."""
    unsigned = np.dtype(f"u{array.dtype.itemsize}")
    return np.ascontiguousarray(array).reshape(-1).view(unsigned)


def _expand(name: str, shape: Any, mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    size = containers.size(shape)
    if not size:
        raise _refuse(f"tensor {name!r} has no valid shape")
    # Checked before anything of that size is allocated: the mask's length vouches for it.
    if mask.dtype != np.uint8 or mask.shape != (math.ceil(size / 8),) or values.ndim != 1:
        raise _refuse(f"the mask of tensor {name!r} does not fit its shape")
    bits = np.unpackbits(mask, bitorder="little")
    positions = np.flatnonzero(bits)
    if len(positions) != len(values) or (len(positions) and positions[-1] >= size):
        raise _refuse(f"tensor {name!r} has {len(values)} values for {len(positions)} set bits")
    dense = np.zeros(size, dtype=values.dtype)
    dense[positions] = values
    return dense.reshape(shape)


def _refuse(reason: str) -> SecateurError:
    return SecateurError("unsupported_format", f"The bitmask file can't be read: {reason}.")
