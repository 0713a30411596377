"""Types of tensors as safetensors names them, and what every codec says of its members."""

import math
from typing import Any, NamedTuple

import numpy as np

from pruning.errors import SecateurError

FORMAT, VERSION = "sparse", 1

_ML_DTYPES = {"BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
_NUMPY = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "F16": "float16",
    "U32": "uint32",
    "I32": "int32",
    "F32": "float32",
    "U64": "uint64",
    "I64": "int64",
    "F64": "float64",
    "C64": "complex64",
}
NAMES = {kind: name for name, kind in (_NUMPY | _ML_DTYPES).items()}
"""The name in the file by NumPy's name of the type."""

ITEMSIZE = {name: np.dtype(kind).itemsize for name, kind in _NUMPY.items()} | {
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
}
"""Bytes an entry, by the name in the file."""


class Member(NamedTuple):
    """One array of a coded tensor: its type's name in the file, and its entries."""

    dtype: str
    entries: int

    @property
    def bytes(self) -> int:
        """Its bytes."""
        return self.entries * ITEMSIZE[self.dtype]


Layout = dict[str, Member]
"""Members of a coded tensor by their role; `values` has the type `U<bits>` until it is written."""

Arrays = dict[str, np.ndarray]


def unsigned(itemsize: int) -> str:
    """The unsigned type of that many bytes, as the file names it."""
    return f"U{8 * itemsize}"


def smallest(largest: int) -> str:
    """The smallest unsigned type that holds the number."""
    return next(name for name in ("U8", "U16", "U32", "U64") if largest < 256 ** ITEMSIZE[name])


def bits_of(itemsize: int) -> np.dtype:
    """The little-endian unsigned type in which bit patterns are handled."""
    return np.dtype(f"<u{itemsize}")


def numpy_type(name: str) -> np.dtype:
    """NumPy's type.

    Raises:
        SecateurError: `package_missing` where it takes ml_dtypes, which is not there.
    """
    if name not in _ML_DTYPES:
        return np.dtype(_NUMPY[name]).newbyteorder("<")
    try:
        import ml_dtypes
    except ImportError:
        raise SecateurError(
            "package_missing",
            f"Reading {_ML_DTYPES[name]} needs the package ml_dtypes.",
            where=_ML_DTYPES[name],
            hint="pip install ml_dtypes; restoring the model's files does without.",
        ) from None
    return np.dtype(getattr(ml_dtypes, _ML_DTYPES[name]))


def entries(shape: tuple[int, ...]) -> int:
    """Entries of a shape."""
    return math.prod(shape)


def refuse(reason: str, **details: Any) -> SecateurError:
    """The error for a file that `pack` can't have written."""
    return SecateurError(
        "unsupported_format",
        f"The sparse file can't be read: {reason}.",
        hint="Download it again, or make it again.",
        **details,
    )
