"""safetensors files read with budgets, and written back with nothing but numbers changed.

The header is checked here, before a byte of data is touched: its length, the number of tensors,
types, shapes and offsets, which must cover the data without a gap or an overlap. Torch-free.
"""

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from pruning.errors import SecateurError
from pruning.formats.limits import Limits

DTYPES: dict[str, np.dtype] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "U16": np.dtype(np.uint16),
    "I16": np.dtype(np.int16),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "U32": np.dtype(np.uint32),
    "I32": np.dtype(np.int32),
    "F32": np.dtype(np.float32),
    "U64": np.dtype(np.uint64),
    "I64": np.dtype(np.int64),
    "F64": np.dtype(np.float64),
}
MAX_DIMS = 16
_LONGEST_NAME = 500


@dataclass(frozen=True)
class Entry:
    """One tensor; `start` and `end` count bytes from the beginning of the file."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a file holds: entries in the order of their bytes, and the metadata."""

    entries: dict[str, Entry]
    metadata: dict[str, str]


def read_header(path: Path, limits: Limits) -> Header:
    """The header of a file, checked against the file's size and the limits.

    Raises:
        SecateurError: `model_unreadable`, `model_truncated` or `model_too_large`, with the tensor
            in `where`.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 10 or length < 2:
            raise _refuse("it is too short to be one")
        if length > limits.header_bytes:
            raise SecateurError(
                "model_too_large",
                f"The safetensors header has {length} bytes; the limit is {limits.header_bytes}.",
            )
        if 8 + length > size:
            raise SecateurError("model_truncated", "The safetensors file ends inside its header.")
        raw = file.read(length)
    header = _parse(raw)
    metadata = _metadata(header.pop("__metadata__", {}))
    if len(header) > limits.stored_tensors:
        raise SecateurError(
            "model_too_large",
            f"The file has {len(header)} tensors; the limit is {limits.stored_tensors}.",
        )
    entries = [_entry(name, value, 8 + length) for name, value in header.items()]
    entries.sort(key=lambda entry: (entry.start, entry.end))
    at, numbers = 8 + length, 0
    for entry in entries:
        numbers += math.prod(entry.shape)
        if numbers > limits.parameters:
            raise SecateurError(
                "model_too_large",
                f"The tensors hold more than {limits.parameters} numbers.",
                where=_shown(entry.name),
            )
        if entry.start != at:
            raise _refuse(f"the bytes of {_shown(entry.name)!r} overlap or leave a gap", entry.name)
        at = entry.end
    if at > size:
        raise SecateurError(
            "model_truncated",
            f"The tensors take {at} bytes, the file has {size}.",
            where=_shown(entries[-1].name),
            hint="The file ends early; upload it again.",
        )
    if at < size:
        raise _refuse(f"{size - at} bytes follow the last tensor")
    return Header({entry.name: entry for entry in entries}, metadata)


class Arrays(Mapping[str, np.ndarray]):
    """The tensors as read-only arrays over the mapped file: only what is used is ever in memory."""

    def __init__(self, path: Path, header: Header) -> None:
        self._entries = header.entries
        self._bytes = np.memmap(path, dtype=np.uint8, mode="r")

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self._entries[name]
        # A copy of the slice's bytes is only made where they are not aligned for the type.
        part = np.asarray(self._bytes[entry.start : entry.end])
        if entry.start % entry.dtype.itemsize:
            part = part.copy()
        return part.view(entry.dtype).reshape(entry.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def rewrite(source: Path, target: Path, changed: Mapping[str, np.ndarray], limits: Limits) -> None:
    """Copies a file with the numbers of some tensors replaced, header and all else byte for byte.

    Args:
        source: The file as uploaded.
        target: Where to.
        changed: New values by name, in the tensors' own types and shapes.
        limits: As for `read_header`.

    Raises:
        ValueError: A value of another type or shape.
    """
    header = read_header(source, limits)
    aside = target.with_name(f".{target.name}.part")
    shutil.copyfile(source, aside)
    with aside.open("r+b") as file:
        for name in sorted(changed):
            entry, array = header.entries[name], changed[name]
            if array.dtype != entry.dtype or array.shape != entry.shape:
                raise ValueError(f"{name}: {array.dtype}{array.shape} for {entry}")
            file.seek(entry.start)
            file.write(np.ascontiguousarray(array).tobytes())
    aside.replace(target)


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=unique, parse_constant=_no)
    except (ValueError, RecursionError) as error:
        raise _refuse(f"its header is not valid JSON ({_shown(str(error))})") from None
    if not isinstance(header, dict):
        raise _refuse("its header is no JSON object")
    return header


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For `json.loads(object_pairs_hook=...)`: a dictionary without keys given twice.

    Raises:
        ValueError: A key that is given twice.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {_shown(twice)!r} is given twice")
    return found


def _no(text: str) -> None:
    raise ValueError(f"the number {text}")


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise _refuse("its metadata are not texts")
    return value


def _entry(name: str, value: Any, data: int) -> Entry:
    if not name or len(name) > _LONGEST_NAME or not name.isprintable():
        raise _refuse("a tensor's name is empty, too long or not printable", name)
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise _refuse(f"the entry of {_shown(name)!r} is not one", name)
    kind, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(kind, str) or kind not in DTYPES:
        raise SecateurError(
            "model_unreadable",
            f"The tensor {_shown(name)!r} has type {_shown(str(kind))}.",
            where=_shown(name),
            hint=f"Types read here: {', '.join(DTYPES)}.",
        )
    if not _sizes(shape) or len(shape) > MAX_DIMS:
        raise _refuse(f"{_shown(name)!r} has no valid shape", name)
    if not _sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _refuse(f"{_shown(name)!r} has no valid offsets", name)
    dtype = DTYPES[kind]
    if offsets[1] - offsets[0] != math.prod(shape) * dtype.itemsize:
        raise _refuse(f"the bytes of {_shown(name)!r} do not fit its shape", name)
    return Entry(name, dtype, tuple(shape), data + offsets[0], data + offsets[1])


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int and 0 <= v < 2**48 for v in value)


def _refuse(reason: str, where: str | None = None) -> SecateurError:
    return SecateurError(
        "model_unreadable",
        f"The safetensors file can't be read: {reason}.",
        where=where and _shown(where),
        hint="Write it with safetensors.torch.save_file.",
    )


def _shown(text: str) -> str:
    clean = "".join(c if c.isprintable() else "?" for c in text)
    return clean if len(clean) <= 80 else clean[:77] + "..."
