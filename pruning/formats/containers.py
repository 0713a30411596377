"""Canonical safetensors files: the same tensors always give the same bytes. Numpy only.

Members are ordered by item size (widest first, so that every member is aligned), then by name;
the header is compact JSON padded to 8 bytes; all metadata stand under the one key `secateur`.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors

from pruning.errors import SecateurError

KEY = "secateur"

MAX_DIMS = 32

_NUMPY = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "U16": np.uint16,
    "I16": np.int16,
    "F16": np.float16,
    "U32": np.uint32,
    "I32": np.int32,
    "F32": np.float32,
    "U64": np.uint64,
    "I64": np.int64,
    "F64": np.float64,
    "C64": np.complex64,
}
_ML_DTYPES = {"BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
_NAMES = {np.dtype(kind).name: name for name, kind in _NUMPY.items()} | {
    kind: name for name, kind in _ML_DTYPES.items()
}


class Container(NamedTuple):
    """What a file holds: arrays by member name, and the value of the metadata key."""

    tensors: dict[str, np.ndarray]
    metadata: dict[str, Any]


def can_hold(dtype: np.dtype) -> bool:
    """Whether arrays of this type can be stored."""
    return dtype.name in _NAMES


def write(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    """Writes a file, bit patterns kept.

    Raises:
        ValueError: The reserved name `__metadata__`.
        KeyError: A type for which `can_hold` is false.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": {KEY: _compact(metadata)}}
    start = 0
    for name in order:
        array = tensors[name]
        if name in header:
            raise ValueError(f"the name {name!r} is reserved")
        header[name] = {
            "dtype": _NAMES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [start, start + array.nbytes],
        }
        start += array.nbytes
    raw = _compact(header).encode()
    raw += b" " * (-len(raw) % 8)
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little"))
        file.write(raw)
        for name in order:
            file.write(_little_endian(tensors[name]).tobytes())


def read(path: Path, form: str, version: int) -> Container:
    """Reads a file that `write` wrote; the safetensors parser checks every offset and size.

    Args:
        path: The file.
        form: The `format` its metadata must name.
        version: The `version` its metadata must name.

    Raises:
        SecateurError: `unsupported_format`.
    """
    data = path.read_bytes()
    try:
        entries = safetensors.deserialize(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = json.loads(header.get("__metadata__", {}).get(KEY, "null"))
    except (safetensors.SafetensorError, ValueError, RecursionError) as error:
        raise _refuse(f"it is no valid safetensors file ({error})") from None
    if not isinstance(metadata, dict) or metadata.get("format") != form:
        raise _refuse(f"its metadata do not say that it is a {form} file")
    if metadata.get("version") != version:
        raise _refuse(f"its version is {metadata.get('version')!r}; this reader knows {version}")
    try:
        return Container({name: _array(entry) for name, entry in entries}, metadata)
    except ValueError as error:  # more dimensions than numpy has
        raise _refuse(str(error)) from None


def size(shape: Any) -> int | None:
    """Number of entries of a shape that stands in metadata; None where it is no valid shape."""
    if not isinstance(shape, list) or len(shape) > MAX_DIMS:
        return None
    if not all(type(d) is int and 0 <= d < 2**31 for d in shape):
        return None
    return math.prod(shape)


def _refuse(reason: str) -> SecateurError:
    return SecateurError("unsupported_format", f"The file can't be read: {reason}.")


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _little_endian(array: np.ndarray) -> np.ndarray:
    swapped = array.dtype.newbyteorder("<")
    return np.ascontiguousarray(array if array.dtype == swapped else array.astype(swapped))


def _array(entry: Mapping[str, Any]) -> np.ndarray:
    kind = entry["dtype"]
    if kind in _NUMPY:
        dtype = np.dtype(_NUMPY[kind])
    elif kind in _ML_DTYPES:
        dtype = _ml_dtype(_ML_DTYPES[kind])
    else:
        raise _refuse(f"a tensor has the type {kind}")
    raw = np.frombuffer(bytes(entry["data"]), dtype=np.uint8)
    return raw.view(dtype).reshape(entry["shape"]).copy()


def _ml_dtype(name: str) -> np.dtype:
    try:
        import ml_dtypes
    except ImportError:
        raise SecateurError(
            "package_missing", f"Reading {name} needs the package ml_dtypes.", where=name
        ) from None
    return np.dtype(getattr(ml_dtypes, name))
