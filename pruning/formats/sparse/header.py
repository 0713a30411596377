"""The header of a sparse file: checked before anything of the size that it names is allocated."""

import json
import math
import mmap
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from pruning.formats import json_cost
from pruning.formats.containers import KEY, size
from pruning.formats.sparse import bitmask, csr, nm
from pruning.formats.sparse.choice import Coding
from pruning.formats.sparse.nm import Pattern
from pruning.formats.sparse.types import ITEMSIZE, Member, refuse

_LONGEST_HEADER = 100_000_000
"""What the safetensors library takes."""

_MOST_VALUES = 1 << 29
"""Bytes of Python objects that the header may become."""


class File(NamedTuple):
    """One of the model's own files."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Tensor:
    """One tensor; `file` and `at` say where its bytes lie, None where in none of the files."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: int | None
    at: int
    coding: Coding | None
    same_as: int | None

    @property
    def bytes(self) -> int:
        """Dense bytes."""
        return math.prod(self.shape) * ITEMSIZE[self.dtype]


class Stored(NamedTuple):
    """A member: its type and entries, and where it begins in the sparse file."""

    member: Member
    start: int


@dataclass(frozen=True)
class Header:
    """All that a sparse file says of itself."""

    files: list[File]
    tensors: list[Tensor]
    members: dict[str, Stored]

    def coded(self, number: int) -> list[int]:
        """The coded tensors of a file by their numbers, in the order of their bytes."""
        found = [i for i, t in enumerate(self.tensors) if t.file == number and t.coding]
        return sorted(found, key=lambda i: self.tensors[i].at)

    def dense(self) -> dict[int, int]:
        """Where in the sparse file each tensor begins that is not coded."""
        starts = {}
        for number in range(len(self.files)):
            start, coded = self.members[f"rest.{number}"].start, 0
            placed = [(t.at, i) for i, t in enumerate(self.tensors) if t.file == number]
            for at, i in sorted(placed):
                starts[i] = start + at - coded
                coded += self.tensors[i].bytes if self.tensors[i].coding else 0
        for i, tensor in enumerate(self.tensors):
            if tensor.file is None and f"dense.{i}" in self.members:
                starts[i] = self.members[f"dense.{i}"].start
        return starts


def raw_header(data: mmap.mmap) -> tuple[dict[str, Any], dict[str, Any], int]:
    """The members as the file lists them, the metadata, and where the bytes begin.

    Raises:
        SecateurError: `unsupported_format`.
    """
    length = int.from_bytes(data[:8], "little")
    if len(data) < 10 or not 2 <= length <= min(len(data) - 8, _LONGEST_HEADER):
        raise refuse("it is no safetensors file")
    text = data[8 : 8 + length]
    if json_cost.cost(text) > _MOST_VALUES:
        raise refuse("its header is too large")
    try:
        members = json.loads(text)
        metadata = json.loads(members.pop("__metadata__")[KEY])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise refuse("it is no file of this project") from None
    if not isinstance(metadata, dict):
        raise refuse("its metadata are no mapping")
    return members, metadata, 8 + length


def checked(listed: dict[str, Any], metadata: dict[str, Any], start: int, end: int) -> Header:
    """The header, all of it checked against itself and the file's size.

    Args:
        listed: The members as the file lists them.
        metadata: What the file says of them.
        start: Where their bytes begin.
        end: The file's size.

    Raises:
        SecateurError: `unsupported_format`.
    """
    try:
        members = _members(listed, start, end)
        files = [_file(entry) for entry in metadata["files"]]
        tensors = [_tensor(entry, i, members) for i, entry in enumerate(metadata["tensors"])]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise refuse(f"its header is not valid ({type(error).__name__})") from None
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise refuse("two tensors have one name")
    header = Header(files, tensors, members)
    _check_names([file.name for file in files])
    _check_places(header)
    _check_members(header)
    return header


def _members(listed: dict[str, Any], start: int, end: int) -> dict[str, Stored]:
    found: dict[str, Stored] = {}
    following = 0
    for name, entry in sorted(listed.items(), key=lambda item: item[1]["data_offsets"]):
        first, last = entry["data_offsets"]
        (count,) = entry["shape"]
        if type(count) is not int or count < 0 or entry["dtype"] not in ITEMSIZE:
            raise refuse(f"member {name!r} is not valid")
        found[name] = Stored(Member(entry["dtype"], count), start + first)
        if type(first) is not int or type(last) is not int:
            raise refuse(f"member {name!r} is not valid")
        if (first, last) != (following, following + found[name].member.bytes):
            raise refuse(f"member {name!r} does not begin where the one before it ends")
        following = last
    if start + following != end:
        raise refuse("its members do not fill it")
    return found


def _file(entry: dict[str, Any]) -> File:
    file = File(entry["name"], entry["bytes"], entry["sha256"])
    if type(file.name) is not str or type(file.bytes) is not int or type(file.sha256) is not str:
        raise refuse("a file of the model is not valid")
    if len(file.sha256) != 64 or set(file.sha256) - set("0123456789abcdef"):
        raise refuse(f"{file.name!r} has no digest")
    return file


def _tensor(entry: dict[str, Any], index: int, members: dict[str, Stored]) -> Tensor:
    name, dtype, listed = entry["name"], entry["dtype"], entry["shape"]
    if type(name) is not str or dtype not in ITEMSIZE or size(listed) is None:
        raise refuse(f"tensor {index} is not valid")
    shape = tuple(listed)
    file, at, codec = entry.get("file"), entry.get("at", 0), entry["codec"]
    if not (file is None or type(file) is int) or type(at) is not int:
        raise refuse(f"tensor {name!r} has no valid place")
    same_as = coding = None
    if codec == "same":
        same_as = entry["as"]
        if type(same_as) is not int:
            raise refuse(f"tensor {name!r} is the same as none")
    elif codec != "dense":
        coding = _coding(entry, shape, ITEMSIZE[dtype], members.get(f"values.{index}"))
    return Tensor(name, dtype, shape, file, at, coding, same_as)


def _coding(
    entry: dict[str, Any], shape: tuple[int, ...], itemsize: int, values: Stored | None
) -> Coding:
    """What members a tensor must have: their lengths vouch for its size."""
    if values is None:
        raise refuse(f"tensor {entry['name']!r} has no values")
    kept, codec = values.member.entries, entry["codec"]
    if codec == "bitmask":
        return Coding(codec, bitmask.layout(kept, shape, itemsize))
    if codec == "csr":
        return Coding(codec, csr.layout(kept, shape, itemsize))
    n, m, axis = entry["n"], entry["m"], entry["axis"]
    known = codec == "nm" and all(type(x) is int for x in (n, m, axis))
    if not known or not 1 <= n < m <= nm.LARGEST or not 0 <= axis < len(shape) or shape[axis] % m:
        raise refuse(f"tensor {entry['name']!r} is coded in no way that is known")
    pattern = Pattern(n, m, axis)
    return Coding("nm", nm.layout(pattern, shape, itemsize), pattern)


def _check_names(names: list[str]) -> None:
    """Refuses names that lead out of the folder, or over each other."""
    known = set(names)
    for name in names:
        path = PurePosixPath(name)
        plain = name and not set(name) & set("\\:\0") and str(path) == name
        inside = not path.is_absolute() and ".." not in path.parts and name != "."
        if not plain or not inside:
            raise refuse(f"{name!r} is no name of a file that it may write")
        if known & {str(parent) for parent in path.parents}:
            raise refuse(f"{name!r} would lie in a file")
    if len({name.casefold() for name in names}) != len(names):
        raise refuse("two files have one name")


def _check_places(header: Header) -> None:
    """Tensors lie in their files without overlap, and rest and tensors make the file."""
    coded = [0] * len(header.files)
    last: dict[int, int] = {}
    placed = [t for t in header.tensors if t.file is not None]
    for tensor in sorted(placed, key=lambda t: (t.file or 0, t.at)):
        file = tensor.file
        assert file is not None
        if not 0 <= file < len(header.files) or tensor.at < last.get(file, 0):
            raise refuse(f"tensor {tensor.name!r} lies where it can't")
        last[file] = tensor.at + tensor.bytes
        if last[file] > header.files[file].bytes:
            raise refuse(f"tensor {tensor.name!r} ends after its file")
        coded[file] += tensor.bytes if tensor.coding else 0
    for number, file_ in enumerate(header.files):
        rest = header.members.get(f"rest.{number}")
        if rest is None or rest.member.dtype != "U8":
            raise refuse(f"the rest of {file_.name!r} is missing")
        if rest.member.entries + coded[number] != file_.bytes:
            raise refuse(f"the parts of {file_.name!r} do not make it")
    for tensor in header.tensors:
        if tensor.same_as is not None:
            other = (
                header.tensors[tensor.same_as]
                if 0 <= tensor.same_as < len(header.tensors)
                else None
            )
            alike = other is not None and (other.dtype, other.bytes) == (tensor.dtype, tensor.bytes)
            if not alike or other is None or other.same_as is not None or tensor.file is not None:
                raise refuse(f"tensor {tensor.name!r} is the same as one that it can't be")


def _check_members(header: Header) -> None:
    """Every tensor has the members of its coding, and nobody else has any."""
    wanted = {f"rest.{number}" for number in range(len(header.files))}
    for index, tensor in enumerate(header.tensors):
        layout = dict(tensor.coding.layout) if tensor.coding else {}
        if layout:
            layout["values"] = Member(tensor.dtype, layout["values"].entries)
        elif tensor.file is None and tensor.same_as is None:
            count = tensor.bytes // ITEMSIZE[tensor.dtype]
            layout["dense"] = Member(tensor.dtype, count)
        for role, member in layout.items():
            stored = header.members.get(f"{role}.{index}")
            if stored is None or stored.member != member:
                raise refuse(f"the {role} of tensor {tensor.name!r} do not fit its shape")
            wanted.add(f"{role}.{index}")
    if extra := sorted(header.members.keys() - wanted):
        raise refuse(f"member {extra[0]!r} belongs to nothing")
