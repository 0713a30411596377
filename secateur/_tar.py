"""Files that belong together as one tar, made while it is sent: the same files, the same bytes."""

import mmap
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

from secateur.errors import SecateurError

_CHUNK = 256 << 10
_BLOCK = 512


# An entry of TensorProto.external_data as it lies in a file: key "location", then the value.
_LOCATION = re.compile(rb"\x0a\x08location\x12([\x01-\x7f]|[\x80-\xff][\x01-\x03])")


def tar_of(path: Path) -> "FolderTar | None":
    """The tar as which a model of several files is sent: those of a folder, or an ONNX file's.

    None for a file that stands alone.

    Raises:
        SecateurError: `usage` for a folder without files.
    """
    if path.is_dir():
        return FolderTar(path)
    beside = weights_beside(path)
    return FolderTar(path.parent, [path, *beside]) if beside else None


def weights_beside(model: Path) -> list[Path]:
    """The files beside an ONNX file in which it says that it keeps weights, as far as they exist.

    Other names than plain relative ones are left to the service, which refuses them.
    """
    if model.suffix.lower() != ".onnx" or not model.is_file() or not model.stat().st_size:
        return []
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = set()
        for match in _LOCATION.finditer(data):
            low, *high = match[1]
            length = (low & 0x7F) | (high[0] << 7 if high else 0)
            found.add(data[match.end() : match.end() + length])
    names = [name for raw in found if (name := _plain(raw))]
    beside = {model.parent / name for name in names}
    return sorted(p for p in beside if p.is_file() and not p.is_symlink() and p != model)


def _plain(raw: bytes) -> str:
    try:
        name = raw.decode().removeprefix("./")
    except UnicodeDecodeError:
        return ""
    bad = any(part in ("", ".", "..") for part in name.split("/"))
    return "" if bad or "\\" in name or not name.isprintable() else name


class FolderTar:
    """The regular files of a folder, by relative names, without hidden ones.

    Args:
        folder: To which the names are relative.
        files: Those of its files that are taken; all where left out.

    Raises:
        SecateurError: `usage` for a folder without files.
    """

    def __init__(self, folder: Path, files: list[Path] | None = None) -> None:
        every = (
            [
                path
                for path in sorted(folder.rglob("*"))
                if path.is_file()
                and not any(part.startswith(".") for part in path.relative_to(folder).parts)
            ]
            if files is None
            else sorted(files)
        )
        self._files = [(path, path.relative_to(folder).as_posix()) for path in every]
        if not self._files:
            raise SecateurError("usage", f"{folder} holds no files.", where=str(folder))
        self._sizes = [path.stat().st_size for path, _ in self._files]
        headers = (self._header(name, size) for (_, name), size in self._entries())
        self.size = sum(map(len, headers)) + sum(map(_padded, self._sizes)) + 2 * _BLOCK

    def chunks(self) -> Iterator[bytes]:
        """The bytes.

        Raises:
            SecateurError: `usage` for a file whose size changes meanwhile.
        """
        for (path, name), size in self._entries():
            yield self._header(name, size)
            left = size
            with path.open("rb") as file:
                while left:
                    part = file.read(min(_CHUNK, left))
                    if not part:
                        raise SecateurError("usage", f"{path} became shorter.", where=str(path))
                    left -= len(part)
                    yield part
            yield b"\0" * (_padded(size) - size)
        yield b"\0" * 2 * _BLOCK

    def _entries(self) -> Iterator[tuple[tuple[Path, str], int]]:
        return zip(self._files, self._sizes, strict=True)

    @staticmethod
    def _header(name: str, size: int) -> bytes:
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, 0o644
        return info.tobuf(tarfile.PAX_FORMAT)


def unpack(archive: Path, folder: Path) -> None:
    """Puts the files of a tar that the service made into a folder, and removes the tar.

    Raises:
        SecateurError: `conflict` for anything but plain files below the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = member.name.split("/")
            if not member.isfile() or any(part in ("", ".", "..") for part in parts):
                raise SecateurError(
                    "conflict",
                    f"The service sent a tar with {member.name!r} in it, which is not written.",
                )
            path = folder.joinpath(*parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            source = tar.extractfile(member)
            assert source is not None
            with source, path.open("wb") as sink:
                shutil.copyfileobj(source, sink, _CHUNK)
    archive.unlink()


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
