"""Files between blobs and a slot. What a child wrote is opened as if by an enemy.

Only a regular file with one name, directly in the folder it should be in, is read: no symbolic or
hard link, no pipe, no path that leads elsewhere. The digest is computed here while copying.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from store.blobs import Blobs, DamagedBlobError, StoredBlob

_CHUNK = 1 << 20
Tick = Callable[[], None]


class UnsafeFileError(Exception):
    """A child named a file that will not be read."""


def fetch(blobs: Blobs, sha256: str, path: Path, tick: Tick, size: int | None = None) -> None:
    """Copy a blob to `path`, read-only.

    A copy rather than a hard link: the child may run as the owner of the blobs and could write
    through a link.

    Raises:
        DamagedBlobError: The blob is missing, or its bytes no longer have its digest.
        OSError: There is no room for the copy.
    """
    try:
        with blobs.open(sha256, size) as source, open(path, "xb") as sink:
            for chunk in source.copy():
                sink.write(chunk)
                tick()
            os.fchmod(sink.fileno(), 0o400)
    except DamagedBlobError:
        path.unlink(missing_ok=True)
        raise


@contextmanager
def open_output(folder: Path, name: str) -> Iterator[BinaryIO]:
    """Open the file `name` in `folder`, both made by a child.

    Raises:
        UnsafeFileError: Unless it is a plain file there under a plain name.
    """
    if not plain(name):
        raise UnsafeFileError(f"{name[:100]!r} is not a plain file name")
    at = fd = -1
    try:
        at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        # O_NONBLOCK: opening a named pipe must not wait for its other end.
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
            raise UnsafeFileError(f"{name!r} is not a regular file of its own")
        file = os.fdopen(fd, "rb")
        fd = -1
    except OSError as error:
        raise UnsafeFileError(f"{name!r} can't be read: {error.strerror}") from error
    finally:
        for left in (at, fd):
            if left >= 0:
                os.close(left)
    with file:
        yield file


def plain(name: str) -> bool:
    """True for a name without separators, control characters or a leading dot."""
    return (
        0 < len(name.encode(errors="replace")) <= 255
        and "/" not in name
        and "\\" not in name
        and not name.startswith(".")
        and name.isprintable()
    )


def keep(blobs: Blobs, folder: Path, name: str, limit: int, tick: Tick) -> StoredBlob:
    """Store an output as a blob; its size and digest are those of the bytes that were read.

    Raises:
        UnsafeFileError: The file is not one to read, or is larger than `limit` bytes.
    """
    with open_output(folder, name) as file, blobs.writer() as writer:
        while chunk := file.read(_CHUNK):
            writer.write(chunk)
            if writer.size > limit:
                raise UnsafeFileError(f"{name!r} is larger than {limit} bytes")
            tick()
        return writer.commit()
