"""Masks as a file: one bit a weight, 1 where the weight is kept. Numpy only.

Each member is the mask of one weight, packed with the least significant bit first in C order; the
shapes stand in the metadata.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pruning.errors import SecateurError
from pruning.formats import containers

FORMAT, VERSION = "masks", 1


def write_masks(masks: Mapping[str, Any], path: Path) -> None:
    """Writes masks.

    Args:
        masks: Boolean arrays or CPU tensors by weight name, True where the weight is kept.
        path: The file to write.
    """
    arrays = {name: np.asarray(masks[name]) for name in sorted(masks)}
    for name, array in arrays.items():
        if array.dtype != np.bool_:
            raise TypeError(f"the mask {name!r} is {array.dtype}, not boolean")
    containers.write(
        path,
        {name: np.packbits(array.reshape(-1), bitorder="little") for name, array in arrays.items()},
        {
            "format": FORMAT,
            "version": VERSION,
            "shapes": {name: list(array.shape) for name, array in arrays.items()},
        },
    )


def read_masks(path: Path) -> dict[str, np.ndarray]:
    """Reads masks back as boolean arrays, sorted by name.

    Raises:
        SecateurError: `unsupported_format`.
    """
    members, metadata = containers.read(path, FORMAT, VERSION)
    shapes = metadata.get("shapes")
    if not isinstance(shapes, dict) or shapes.keys() != members.keys():
        raise _refuse("its shapes do not name the same weights as its members")
    return {name: _unpack(name, shapes[name], members[name]) for name in sorted(members)}


def _unpack(name: str, shape: Any, packed: np.ndarray) -> np.ndarray:
    size = containers.size(shape)
    if size is None:
        raise _refuse(f"mask {name!r} has no valid shape")
    if packed.dtype != np.uint8 or packed.shape != (math.ceil(size / 8),):
        raise _refuse(f"mask {name!r} does not fit its shape")
    return np.unpackbits(packed, count=size, bitorder="little").astype(bool).reshape(shape)


def _refuse(reason: str) -> SecateurError:
    return SecateurError("unsupported_format", f"The masks file can't be read: {reason}.")
