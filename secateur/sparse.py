"""Reading `<model>.sparse.safetensors`, which a job delivers beside the pruned model.

    from secateur import sparse

    sparse.restore("net.sparse.safetensors", "restored/")  # net.onnx, byte for byte
    weights = sparse.read("net.sparse.safetensors")  # {"fc1.weight": array(...), ...}

Needs NumPy and safetensors, not torch; docs/sparse.md describes the layout.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from secateur.errors import require

if TYPE_CHECKING:
    import numpy as np

__all__ = ["read", "restore"]


def read(path: str | os.PathLike[str]) -> "dict[str, np.ndarray]":
    """The dense tensors by name, bit for bit. Files of the format `bitmask` are read as well.

    Raises:
        SecateurError: `unsupported_format` for a file that is no sparse file, or is damaged;
            `package_missing` where NumPy is not there.
    """
    _require()
    from pruning.formats import sparse

    return sparse.read(Path(path))


def restore(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> list[Path]:
    """Writes the model's own files, with the digests they had, and says where they are.

    Args:
        path: The sparse file.
        folder: Made if it is not there; nothing is written outside it, and files in it that have
            the name of one of the model's are replaced.

    Raises:
        SecateurError: As `read`.
    """
    _require()
    from pruning.formats import sparse

    return sparse.unpack(Path(path), Path(folder))


def _require() -> None:
    require("pruning", "numpy", "safetensors")
