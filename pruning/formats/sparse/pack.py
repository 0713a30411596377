"""Writing the sparse file, one tensor in memory at a time.

The same files and tensors always give the same bytes: files and tensors by name, members by
item size (widest first, so that every one is aligned), then by name; compact JSON.
"""

import hashlib
import json
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pruning.formats.containers import KEY
from pruning.formats.sparse import choice, places
from pruning.formats.sparse.choice import Coding
from pruning.formats.sparse.types import FORMAT, ITEMSIZE, NAMES, VERSION, Member, bits_of

_CHUNK = 16 << 20


def pack(files: Sequence[Path], tensors: Mapping[str, np.ndarray], path: Path) -> None:
    """Writes a sparse file, from which `unpack` restores the files and `read` the tensors.

    Args:
        files: The model's own files. Their names are kept relative to the folder that holds all.
        tensors: Their tensors by name. Those of types that safetensors lacks stay in the files
            and are left out of what `read` gives.
        path: The file to write.
    """
    named = _named(files)
    with ExitStack() as stack:
        contents = [_bytes(file, stack) for _, file in named]
        packing = _Packing(contents, tensors)
        entries = [
            {"name": name, "bytes": len(data), "sha256": _digest(data)}
            for (name, _), data in zip(named, contents, strict=True)
        ]
        with path.open("wb") as out:
            packing.write(out, entries)


def packed_bytes(files: Sequence[Path], tensors: Mapping[str, np.ndarray]) -> int:
    """The size of the file that `pack` would write of the same, without writing it."""
    named = _named(files)
    with ExitStack() as stack:
        contents = [_bytes(file, stack) for _, file in named]
        entries = [
            {"name": name, "bytes": len(data), "sha256": 64 * "0"}
            for (name, _), data in zip(named, contents, strict=True)
        ]
        header, _, size = _Packing(contents, tensors).layout(entries)
        return 8 + len(header) + size


def _named(files: Sequence[Path]) -> list[tuple[str, Path]]:
    """Files by their names in the folder that holds all of them, sorted."""
    folders = [file.resolve().parent for file in files]
    root = Path(os.path.commonpath(folders)) if folders else Path()
    return sorted((file.resolve().relative_to(root).as_posix(), file) for file in files)


class _Packing:
    """What goes where, told from counts alone; the arrays are made one by one as they are written.

    Attributes:
        index: Numbers of the tensors by name, ascending.
        found: Places by name.
        same: For tensors with the bytes of another, the other.
        codings: By name; None for dense.
    """

    def __init__(self, contents: list[np.ndarray], tensors: Mapping[str, np.ndarray]) -> None:
        self.contents, self.tensors = contents, tensors
        self._sizes = {}
        for name in sorted(tensors):
            array = tensors[name]  # may be read from a file each time
            if array.dtype.name in NAMES:
                self._sizes[name] = array.nbytes
        self.index = {name: i for i, name in enumerate(self._sizes)}
        self.found, self.same = places.find(contents, tensors, self._sizes)
        self.codings = {name: self._coding(name) for name in self._sizes}

    def _coding(self, name: str) -> Coding | None:
        array = self.tensors[name]
        return None if name in self.same else choice.choose(_bits(array), array.shape)

    def layout(self, files: list[dict[str, Any]]) -> tuple[bytes, dict[str, int], int]:
        """The header, where each member begins after it, and bytes of all members."""
        members = self._members()
        header: dict[str, Any] = {}
        starts, start = {}, 0
        for name in sorted(members, key=lambda n: (-ITEMSIZE[members[n].dtype], n)):
            dtype, count = members[name]
            starts[name] = start
            start += members[name].bytes
            ends = [starts[name], start]
            header[name] = {"dtype": dtype, "shape": [count], "data_offsets": ends}
        metadata = {
            "format": FORMAT,
            "version": VERSION,
            "files": files,
            "tensors": [self._entry(name) for name in self.index],
        }
        raw = _compact({"__metadata__": {KEY: _compact(metadata)}} | header).encode()
        return raw + b" " * (-len(raw) % 8), starts, start

    def write(self, out: BinaryIO, files: list[dict[str, Any]]) -> None:
        """Writes the header, then every member at its place."""
        raw, starts, _ = self.layout(files)
        out.write(len(raw).to_bytes(8, "little"))
        out.write(raw)
        begin = out.tell()
        for name, array in self._arrays():
            out.seek(begin + starts[name])
            out.write(array.data)
        for number in range(len(self.contents)):
            out.seek(begin + starts[f"rest.{number}"])
            for piece in self._rest(number):
                out.write(piece.data)

    def _members(self) -> dict[str, Member]:
        found = {}
        for number, data in enumerate(self.contents):
            coded = [n for n, place in self.found.items() if place.file == number]
            gone = sum(self._sizes[n] for n in coded if self.codings[n])
            found[f"rest.{number}"] = Member("U8", len(data) - gone)
        for name, coding in self.codings.items():
            array, i = self.tensors[name], self.index[name]
            if coding is not None:
                found |= {f"{role}.{i}": member for role, member in coding.layout.items()}
                values = coding.layout["values"]
                found[f"values.{i}"] = Member(NAMES[array.dtype.name], values.entries)
            elif self._loose(name):
                found[f"dense.{i}"] = Member(NAMES[array.dtype.name], array.size)
        return found

    def _loose(self, name: str) -> bool:
        return name not in self.found and name not in self.same

    def _entry(self, name: str) -> dict[str, Any]:
        array = self.tensors[name]
        entry: dict[str, Any] = {
            "name": name,
            "dtype": NAMES[array.dtype.name],
            "shape": list(array.shape),
        }
        if name in self.same:
            return entry | {"codec": "same", "as": self.index[self.same[name]]}
        if name in self.found:
            entry |= self.found[name]._asdict()
        coding = self.codings[name]
        entry["codec"] = coding.codec if coding else "dense"
        return entry | (coding.pattern._asdict() if coding and coding.pattern else {})

    def _arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        for name, coding in self.codings.items():
            array, i = self.tensors[name], self.index[name]
            if coding is not None:
                made = choice.encode(coding, _bits(array), array.shape)
                for role, part in made.items():
                    yield f"{role}.{i}", np.ascontiguousarray(part)
            elif self._loose(name):
                yield f"dense.{i}", places.raw(array)

    def _rest(self, number: int) -> Iterator[np.ndarray]:
        """The file without its coded tensors."""
        cut = sorted(
            (place.at, place.at + self._sizes[name])
            for name, place in self.found.items()
            if place.file == number and self.codings[name]
        )
        begin = 0
        for start, end in [*cut, (len(self.contents[number]), 0)]:
            for at in range(begin, start, _CHUNK):
                yield self.contents[number][at : min(at + _CHUNK, start)]
            begin = end


def _bits(array: np.ndarray) -> np.ndarray:
    return places.raw(array).view(bits_of(array.dtype.itemsize))


def _bytes(file: Path, stack: ExitStack) -> np.ndarray:
    """A file's bytes, read as they are looked at."""
    opened = stack.enter_context(file.open("rb"))
    if not file.stat().st_size:
        return np.empty(0, np.uint8)
    return np.frombuffer(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def _digest(data: np.ndarray) -> str:
    digest = hashlib.sha256()
    for start in range(0, len(data), _CHUNK):
        digest.update(data[start : start + _CHUNK].data)
    return digest.hexdigest()


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
