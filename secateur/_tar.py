"""A folder as one tar file, made while it is sent: the same files always give the same bytes."""

import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

from secateur.errors import SecateurError

_CHUNK = 256 << 10
_BLOCK = 512


class FolderTar:
    """The regular files of a folder, by relative names, without hidden ones.

    Raises:
        SecateurError: `usage` for a folder without files.
    """

    def __init__(self, folder: Path) -> None:
        self._files = [
            (path, path.relative_to(folder).as_posix())
            for path in sorted(folder.rglob("*"))
            if path.is_file()
            and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        ]
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
