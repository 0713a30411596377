"""Files on their way to and from the service: hashing, progress, names that are safe to write."""

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from secateur._flow import Body
from secateur._tar import FolderTar, tar_of
from secateur.errors import SecateurError

Source = str | os.PathLike[str] | bytes | BinaryIO
Reporter = Callable[[int, int | None], None]
"""Called with bytes so far and bytes in all, where that is known."""

CHUNK = 256 << 10

_LONG = 32 << 20
"""Bytes that take more than an instant to hash."""


def upload_body(
    source: Source, name: str | None, progress: Reporter | None
) -> tuple[Body, str, str | None]:
    """The body to stream, the name to show, and its SHA-256 where it can be read twice.

    Raises:
        SecateurError: `usage` for a path that can't be read.
    """
    if isinstance(source, bytes):
        return _from_stream(io.BytesIO(source), name or "upload", progress)
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if (tar := tar_of(path)) is not None:
            return _from_tar(tar, name or packed_name(path), progress)
        try:
            file: BinaryIO = path.open("rb")
        except OSError as error:
            raise SecateurError(
                "usage", f"{path} can't be read: {error.strerror}.", where=str(path)
            ) from None
        body, name, sha256 = _from_stream(file, name or path.name, progress)
        return replace(body, close=file.close), name, sha256
    own = getattr(source, "name", None)
    return _from_stream(
        source, name or (Path(own).name if isinstance(own, str) else "upload"), progress
    )


def takes_long(source: Source) -> bool:
    """Whether hashing the source, before a byte of it is sent, makes its user wait."""
    if not isinstance(source, str | os.PathLike):
        return False
    path = Path(source)
    if (tar := tar_of(path)) is not None:
        return tar.size > _LONG
    return path.is_file() and path.stat().st_size > _LONG


def packed_name(path: Path) -> str:
    """What the tar of a model of several files is called: after its folder, or its ONNX file."""
    return f"{path.resolve().name if path.is_dir() else path.stem}.tar"


def _from_tar(tar: FolderTar, name: str, progress: Reporter | None) -> tuple[Body, str, str | None]:
    digest = hashlib.sha256()
    for chunk in tar.chunks():
        digest.update(chunk)

    def chunks() -> Iterator[bytes]:
        done = 0
        for chunk in tar.chunks():
            yield chunk
            done += len(chunk)
            if progress is not None:
                progress(done, tar.size)

    return Body(tar.size, True, chunks), name, digest.hexdigest()


def _from_stream(
    file: BinaryIO, name: str, progress: Reporter | None
) -> tuple[Body, str, str | None]:
    if not file.seekable():
        return Body(None, False, lambda: _chunks(file, None, None, progress)), name, None
    start = file.tell()
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    size = file.tell() - start
    body = Body(size, True, lambda: _chunks(file, start, size, progress))
    return body, name, digest.hexdigest()


def _chunks(
    file: BinaryIO, start: int | None, size: int | None, progress: Reporter | None
) -> Iterator[bytes]:
    if start is not None:
        file.seek(start)
    done = 0
    while chunk := file.read(CHUNK):
        yield chunk
        done += len(chunk)
        if progress is not None:
            progress(done, size)


def file_sha256(path: Path) -> str:
    """Digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def safe_name(name: str) -> str:
    """The name, if it is that of a file and nothing else.

    Raises:
        SecateurError: `conflict` for a name with a folder in it: it comes from the service.
    """
    if name in ("", ".", "..") or any(c in name for c in "/\\\0"):
        raise SecateurError("conflict", f"The service names a file {name!r}, which is not written.")
    return name
