"""Reading the sparse file: the model's own files, or its dense tensors."""

import hashlib
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pruning.formats.sparse import choice, first_version
from pruning.formats.sparse.header import Header, Tensor, checked, raw_header
from pruning.formats.sparse.types import (
    FORMAT,
    ITEMSIZE,
    VERSION,
    bits_of,
    numpy_type,
    refuse,
)

_CHUNK = 16 << 20


def read(path: Path) -> dict[str, np.ndarray]:
    """The dense tensors, bit for bit, sorted by name; tied ones are the same array.

    Also of the files that this one replaced (format `bitmask`).

    Raises:
        SecateurError: `unsupported_format` for anything that `pack` can't have written.
    """
    with _opened(path) as data:
        header = _header(data)
        if header is None:
            return first_version.read(path)
        found: dict[int, np.ndarray] = {}
        starts = header.dense()
        for index, tensor in enumerate(header.tensors):
            kind = numpy_type(tensor.dtype)
            if tensor.coding is not None:
                found[index] = _shaped(_decoded(data, header, index).view(kind), tensor)
            elif tensor.same_as is None:
                raw = data[starts[index] : starts[index] + tensor.bytes]
                found[index] = _shaped(np.frombuffer(raw, kind).copy(), tensor)
        for index, tensor in enumerate(header.tensors):
            if tensor.same_as is not None:
                found[index] = _shaped(found[tensor.same_as], tensor)
        return dict(sorted((t.name, found[i]) for i, t in enumerate(header.tensors)))


def unpack(path: Path, folder: Path) -> list[Path]:
    """Restores the model's own files under their own names, never outside the folder.

    Each appears once its digest is that of the original; what has its name is replaced.

    Args:
        path: The sparse file.
        folder: Made if it is not there.

    Raises:
        SecateurError: `unsupported_format` for anything that `pack` can't have written.
    """
    with _opened(path) as data:
        header = _header(data)
        if header is None:
            raise refuse("it is of an earlier kind, which holds tensors and no files")
        folder.mkdir(parents=True, exist_ok=True)
        return [_restore(data, header, number, folder) for number in range(len(header.files))]


def names(path: Path) -> list[str]:
    """The names of the model's own files, relative to the folder that `unpack` would get.

    Raises:
        SecateurError: `unsupported_format` for anything that `pack` can't have written.
    """
    with _opened(path) as data:
        header = _header(data)
        return [file.name for file in header.files] if header else []


def _restore(data: mmap.mmap, header: Header, number: int, folder: Path) -> Path:
    file = header.files[number]
    target = folder / file.name
    # A link that was there before could lead elsewhere.
    if not target.parent.resolve().is_relative_to(folder.resolve()):
        raise refuse(f"{file.name!r} would lie outside {folder}")
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.parent / f".{file.sha256[:16]}.part"
    aside.unlink(missing_ok=True)
    digest = hashlib.sha256()
    try:
        with aside.open("xb") as out:
            for piece in _pieces(data, header, number):
                digest.update(piece)
                out.write(piece)
        if digest.hexdigest() != file.sha256:
            raise refuse(f"{file.name!r} comes out with other bytes than it went in")
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
    return target


def _pieces(data: mmap.mmap, header: Header, number: int) -> Iterator[memoryview]:
    """The file from its first byte to its last."""
    rest = header.members[f"rest.{number}"]
    done = taken = 0
    for index in header.coded(number):
        tensor = header.tensors[index]
        yield from _slices(data, rest.start + taken, tensor.at - done)
        taken += tensor.at - done
        yield _decoded(data, header, index).data.cast("B")
        done = tensor.at + tensor.bytes
    yield from _slices(data, rest.start + taken, rest.member.entries - taken)


def _slices(data: mmap.mmap, start: int, count: int) -> Iterator[memoryview]:
    for at in range(start, start + count, _CHUNK):
        yield memoryview(data[at : min(at + _CHUNK, start + count)])


def _decoded(data: mmap.mmap, header: Header, index: int) -> np.ndarray:
    """A coded tensor's bit patterns, flat."""
    tensor = header.tensors[index]
    assert tensor.coding is not None
    arrays = {}
    for role in tensor.coding.layout:
        stored = header.members[f"{role}.{index}"]
        kind = bits_of(ITEMSIZE[stored.member.dtype])
        arrays[role] = np.frombuffer(data, kind, stored.member.entries, stored.start)
    return choice.decode(tensor.coding, arrays, tensor.shape)


def _shaped(array: np.ndarray, tensor: Tensor) -> np.ndarray:
    try:
        return array.reshape(tensor.shape)
    except ValueError:  # more dimensions, or longer ones, than NumPy has
        raise refuse(f"tensor {tensor.name!r} has no shape that NumPy has") from None


def _header(data: mmap.mmap) -> Header | None:
    """The header; None for a file of the format `bitmask`, which has another."""
    listed, metadata, start = raw_header(data)
    form, version = metadata.get("format"), metadata.get("version")
    if form == first_version.FORM:
        return None
    if form != FORMAT:
        raise refuse("its metadata do not say that it is a sparse file")
    if version != VERSION:
        raise refuse(f"its version is {version!r}; this reader knows {VERSION}")
    return checked(listed, metadata, start, len(data))


@contextmanager
def _opened(path: Path) -> Iterator[mmap.mmap]:
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise refuse("it is empty")
        # Not closed by hand: arrays that look into it may still be around.
        yield mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
