"""Files that belong together: a folder, a .zip or a .tar, read by plain names. Torch-free.

Nothing is unpacked as a whole and no name leads anywhere: a member is read, or copied to a file
of our own naming. An archive's directory is read with bounded memory, and what a member unpacks
to is priced from its header before a byte of it is read.
"""

import hashlib
import io
import os
import shutil
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal

from pruning.data.archive import open_zip
from pruning.errors import SecateurError
from pruning.formats.limits import Limits

Kind = Literal["folder", "zip", "tar"]

_BLOCK = 512
_COPY = 1 << 20
_RATIO_FREE = 16 << 20  # members that unpack to less may be as compressible as they like
_LONGEST_NAME = 200
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError,
           ValueError, tarfile.TarError)  # fmt: skip
# What archivers add by themselves; never part of a model or a dataset.
_LITTER = ("__MACOSX/", ".DS_Store", "Thumbs.db", "desktop.ini")


class Bundle(ABC):
    """The files, by names relative to their common top folder, if they have one.

    Attributes:
        kind: How they came.
        prefix: The common top folder with its slash, or nothing.
        sizes: Bytes of each file once unpacked, by name, in the order of the names.
    """

    def __init__(self, kind: Kind, sizes: Mapping[str, int]) -> None:
        self.kind = kind
        self.prefix = _common_folder(sizes)
        cut = len(self.prefix)
        self.sizes = {name[cut:]: sizes[name] for name in sorted(sizes)}

    @property
    def names(self) -> list[str]:
        """The files' names, sorted."""
        return list(self.sizes)

    def read(self, name: str, limit: int) -> bytes:
        """All of one file.

        Raises:
            SecateurError: `model_too_large` over `limit` bytes, `model_unreadable` for a damaged
                archive.
        """
        size = self.sizes[name]
        if size > limit:
            raise SecateurError(
                "model_too_large", f"{name} has {size} bytes; the limit is {limit}.", where=name
            )
        with self.open(name) as file:
            return file.read(size)

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """One file for reading; it holds exactly `sizes[name]` bytes or ends in an error."""
        try:
            with self._open(self.prefix + name) as file:
                yield file
        except _DAMAGE as error:
            raise unreadable(f"{name} is damaged ({_plain(error)})", name) from None

    def path(self, name: str, scratch: Path) -> Path:
        """The file as one on disk: itself, or a copy in `scratch` under a name of our own."""
        target = scratch / f"member-{hashlib.sha256(name.encode()).hexdigest()[:32]}"
        if not target.exists():
            aside = target.with_name(f"{target.name}.part")
            with self.open(name) as source, aside.open("wb") as sink:
                left = self.sizes[name]
                while left:
                    part = source.read(min(_COPY, left))
                    if not part:
                        raise EOFError("it ends early")
                    sink.write(part)
                    left -= len(part)
            aside.replace(target)
        return target

    @abstractmethod
    def _open(self, name: str) -> BinaryIO: ...


class _Folder(Bundle):
    def __init__(self, root: Path, most: int) -> None:
        self._root = root
        sizes: dict[str, int] = {}
        for path in sorted(root.rglob("*")):
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise unreadable("the folder holds a link or a device", path.name)
            if path.is_file() and not _litter(path.relative_to(root).as_posix()):
                _count(sizes, most)
                sizes[_plain_name(path.relative_to(root).as_posix())] = path.stat().st_size
        super().__init__("folder", sizes)

    def _open(self, name: str) -> BinaryIO:
        return (self._root / name).open("rb")

    def path(self, name: str, scratch: Path) -> Path:
        return self._root / (self.prefix + name)


class _Zip(Bundle):
    def __init__(self, archive: zipfile.ZipFile, limits: Limits, most: int) -> None:
        self._archive = archive
        self._infos: dict[str, zipfile.ZipInfo] = {}
        sizes: dict[str, int] = {}
        for info in archive.infolist():
            if info.filename.endswith("/") or _litter(info.filename):
                continue
            # orig_filename still has the NUL that zipfile cuts names at.
            name = _plain_name(info.orig_filename)
            _count(sizes, most)
            if name in sizes:
                raise unreadable(f"two members are called {name}", name)
            _check_zipped(info, name, limits)
            sizes[name], self._infos[name] = info.file_size, info
        _check_total(sizes, limits)
        super().__init__("zip", sizes)

    def _open(self, name: str) -> BinaryIO:
        return self._archive.open(self._infos[name])  # type: ignore[return-value]


class _Tar(Bundle):
    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file = file
        self._places: dict[str, tuple[int, int]] = {}
        for name, start, size in _tar_members(file, most):
            if name in self._places:
                raise unreadable(f"two members are called {name}", name)
            self._places[name] = (start, size)
        super().__init__("tar", {name: size for name, (_, size) in self._places.items()})

    def _open(self, name: str) -> BinaryIO:
        start, size = self._places[name]
        return io.BufferedReader(_Window(self._file, start, size), _COPY)  # type: ignore[return-value,arg-type]


class _Window(io.RawIOBase):
    """A part of a file as a file."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._at, self._end = file, start, start + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def,override]
        self._file.seek(self._at)
        data = self._file.read(min(len(buffer), self._end - self._at))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


@contextmanager
def open_bundle(path: Path, limits: Limits, most: int | None = None) -> Iterator[Bundle]:
    """The files in a folder, a .zip or an uncompressed .tar.

    Args:
        path: The archive or the folder.
        limits: What may be large.
        most: How many files there may be; `limits.members` where left out.

    Raises:
        SecateurError: `model_unreadable` for a damaged archive, names that are not plain relative
            ones, links, devices and duplicates; `model_too_large` for too many members, or ones
            that unpack to more than `limits.model_bytes` or `limits.compression_ratio`.
    """
    most = limits.members if most is None else most
    if path.is_dir():
        yield _Folder(path, most)
        return
    with path.open("rb") as head:
        zipped = head.read(2) == b"PK"
    if zipped:
        try:
            archive = open_zip(path)
        except _DAMAGE as error:
            raise unreadable(f"the archive is damaged ({_plain(error)})") from None
        with archive:
            yield _Zip(archive, limits, most)
        return
    with path.open("rb") as file:
        yield _Tar(file, most)


def first_names(path: Path, most: int) -> list[str]:
    """Names of the first `most` files of an uncompressed .tar, without reading what follows.

    Raises:
        SecateurError: `model_unreadable` for an archive that is damaged up to there.
    """
    with path.open("rb") as file:
        return [name for name, _, _ in islice(_tar_members(file, most), most)]


def pack(kind: Kind, target: Path, members: Mapping[str, Path], prefix: str = "") -> list[Path]:
    """Writes files the way they came; the same files give the same bytes.

    Args:
        kind: `folder` writes them beside each other into the folder `target`.
        target: The archive, or the folder.
        members: Files on disk by name.
        prefix: A top folder with its slash.

    Returns:
        What was written.
    """
    if kind == "folder":
        written = []
        for name in sorted(members):
            path = target / (prefix + name)
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(members[name], path)
            written.append(path)
        return written
    if kind == "zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED, strict_timestamps=True) as archive:
            for name in sorted(members):
                info = zipfile.ZipInfo(prefix + name)
                info.external_attr = 0o644 << 16
                info.file_size = members[name].stat().st_size
                with members[name].open("rb") as source, archive.open(info, "w") as sink:
                    shutil.copyfileobj(source, sink, _COPY)
        return [target]
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(members):
            info_ = tarfile.TarInfo(prefix + name)
            info_.size, info_.mode = members[name].stat().st_size, 0o644
            with members[name].open("rb") as source:
                tar.addfile(info_, source)
        end = tar.offset + 2 * _BLOCK
    os.truncate(target, end)  # tarfile fills up to 10 KiB, more than a small model has
    return [target]


def unreadable(reason: str, where: str | None = None) -> SecateurError:
    """The error for an archive that is damaged or not one to read."""
    return SecateurError(
        "model_unreadable",
        f"The files can't be read: {reason}.",
        where=where and _shown(where),
        hint="Pack plain files into an uncompressed .tar or a .zip, or upload them one by one.",
    )


def _tar_members(file: BinaryIO, most: int) -> Iterator[tuple[str, int, int]]:
    """Name, start and size of each regular file.

    The headers are walked here rather than by tarfile, which keeps an object for each of any
    number of headers and follows extended headers of any length.
    """
    end = file.seek(0, 2)
    at, seen, long_name, total = 0, 0, "", 0
    while at + _BLOCK <= end:
        file.seek(at)
        block = file.read(_BLOCK)
        if not block.strip(b"\0"):
            return
        seen += 1
        if seen > 4 * most + 16:
            raise unreadable("the archive has too many headers")
        if block[156:157] == tarfile.DIRTYPE and block[124:136].strip(b"0 \0") == b"":
            at += _BLOCK  # parsing them would take most of the time where there are many
            continue
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.TarError, ValueError) as error:
            raise unreadable(f"the archive is damaged ({_plain(error)})") from None
        start, size = at + _BLOCK, info.size
        if size < 0 or start + size > end:
            raise unreadable(f"the archive ends inside {_shown(info.name)}", info.name)
        at = start + -(-size // _BLOCK) * _BLOCK
        if info.type in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
            long_name = _extended_name(file, start, size, info.type)
        elif info.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
            name, long_name = long_name or info.name, ""
            if not _litter(name):
                total += 1
                if total > most:
                    raise too_many(most)
                yield _plain_name(name), start, size
        elif info.type not in (tarfile.DIRTYPE, tarfile.XGLTYPE):
            raise unreadable(f"{_shown(info.name)} is a link or a device", info.name)
    raise unreadable("the archive has no end")


def _extended_name(file: BinaryIO, start: int, size: int, kind: bytes) -> str:
    if size > 8 * _BLOCK:
        raise unreadable("the archive has an extended header of more than 4 KiB")
    file.seek(start)
    data = file.read(size)
    try:
        if kind == tarfile.GNUTYPE_LONGNAME:
            return data.rstrip(b"\0").decode()
        while data:
            digits, _, _ = data.partition(b" ")
            length = int(digits)
            if length <= len(digits) + 1 or length > len(data):
                raise ValueError("the length of an extended header")
            key, _, value = data[len(digits) + 1 : length - 1].partition(b"=")
            if key == b"path":
                return value.decode()
            if key in (b"size", b"linkpath") or key.startswith(b"GNU.sparse"):
                raise ValueError(f"the extended header {_shown(key.decode(errors='replace'))}")
            data = data[length:]
    except ValueError as error:
        raise unreadable(f"the archive is damaged ({_plain(error)})") from None
    return ""


def _check_zipped(info: zipfile.ZipInfo, name: str, limits: Limits) -> None:
    if info.flag_bits & 0x1:
        raise unreadable(f"{name} is encrypted", name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise unreadable(f"{name} is packed by a method other than deflate", name)
    if (info.external_attr >> 28) not in (0, 8):
        raise unreadable(f"{name} is a link or a device", name)
    if info.file_size > max(_RATIO_FREE, info.compress_size * limits.compression_ratio):
        raise SecateurError(
            "model_too_large",
            f"{name} unpacks to {info.file_size} bytes from {info.compress_size}; more than "
            f"{limits.compression_ratio:g} to 1 is taken for a decompression bomb.",
            where=name,
        )


def _check_total(sizes: Mapping[str, int], limits: Limits) -> None:
    total, most = sum(sizes.values()), max(limits.model_bytes, limits.unpacked_bytes)
    if total > most:
        raise SecateurError(
            "model_too_large", f"The files unpack to {total} bytes; the limit is {most}."
        )


def _count(sizes: Mapping[str, int], most: int) -> None:
    if len(sizes) >= most:
        raise too_many(most)


def too_many(most: int) -> SecateurError:
    """The error for an archive with too many members."""
    return SecateurError("model_too_large", f"There are more than {most} files.")


def _plain_name(name: str) -> str:
    name = name.removeprefix("./")
    parts = name.split("/")
    if (
        not name
        or len(name) > _LONGEST_NAME
        or not name.isprintable()
        or "\\" in name
        or ":" in name
        or any(part in ("", ".", "..") for part in parts)
        or any(0xD800 <= ord(c) <= 0xDFFF for c in name)
    ):
        raise unreadable(f"the name {_shown(name)!r} is not a plain relative one", name)
    return name


def _litter(name: str) -> bool:
    leaf = name.rsplit("/", 1)[-1]
    return name.startswith(_LITTER[0]) or leaf in _LITTER or leaf.startswith("._")


def _common_folder(names: Mapping[str, int]) -> str:
    tops = {name.partition("/")[0] if "/" in name else "" for name in names}
    top = tops.pop() if len(tops) == 1 else ""
    return f"{top}/" if top else ""


def _shown(text: str) -> str:
    clean = "".join(c if c.isprintable() else "?" for c in text)
    return clean if len(clean) <= 80 else clean[:77] + "..."


def _plain(error: BaseException) -> str:
    return _shown(str(error).splitlines()[0] if str(error) else type(error).__name__)
