"""Files of the format `bitmask`, which the sparse file replaced: read, no longer written.

Each coded tensor `X` has `X#mask`, one bit an entry, and `X#values`; `shapes` in the metadata.
"""

import math
from pathlib import Path

import numpy as np

from pruning.formats import containers
from pruning.formats.sparse import bitmask
from pruning.formats.sparse.types import bits_of, refuse

FORM, VERSION = "bitmask", 1


def read(path: Path) -> dict[str, np.ndarray]:
    """The dense tensors, sorted by name.

    Raises:
        SecateurError: `unsupported_format`.
    """
    members, metadata = containers.read(path, FORM, VERSION)
    shapes = metadata.get("shapes")
    if not isinstance(shapes, dict):
        raise refuse("its metadata hold no shapes")
    found: dict[str, np.ndarray] = {}
    for name, shape in shapes.items():
        mask, values = members.pop(f"{name}#mask", None), members.pop(f"{name}#values", None)
        size = containers.size(shape)
        if mask is None or values is None or not size or values.ndim != 1:
            raise refuse(f"tensor {name!r} lacks its shape, its mask or its values")
        if mask.dtype != np.uint8 or mask.shape != (math.ceil(size / 8),):
            raise refuse(f"the mask of tensor {name!r} does not fit its shape")
        bits = values.view(bits_of(values.dtype.itemsize))
        dense = bitmask.decode({"mask": mask, "values": bits}, tuple(shape))
        found[name] = dense.view(values.dtype).reshape(shape)
    for member, array in members.items():
        if member.endswith(("#mask", "#values")):
            raise refuse(f"member {member!r} belongs to no tensor")
        found[member.removesuffix("#dense")] = array
    return dict(sorted(found.items()))
