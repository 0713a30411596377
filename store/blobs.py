"""Files by the SHA-256 of their bytes: the interface, and the local folder behind it."""

import fcntl
import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

_DIGEST = re.compile(r"[0-9a-f]{64}")
CHUNK = 1 << 20


@dataclass(frozen=True)
class StoredBlob:
    """Bytes that are safely stored."""

    sha256: str
    bytes: int


class BlobWriter(Protocol):
    """One blob being written. Leaving the `with` block without `commit` aborts."""

    @property
    def size(self) -> int:
        """How many bytes were written so far."""

    @property
    def sha256(self) -> str:
        """The digest of the bytes written so far."""

    def write(self, chunk: bytes) -> None:
        """Appends bytes and hashes them."""

    def commit(self) -> StoredBlob:
        """Makes the blob durable and readable. Bytes that are already there are a success."""

    def abort(self) -> None:
        """Drops what was written; does nothing after `commit`."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Blobs(Protocol):
    """Where blobs live."""

    def writer(self) -> BlobWriter:
        """Begins a new blob."""

    def open(self, sha256: str) -> BinaryIO:
        """The blob's bytes, seekable.

        Raises:
            FileNotFoundError: No such blob.
        """

    def path(self, sha256: str) -> Path:
        """The blob as a local, read-only file; it must never be changed."""

    def exists(self, sha256: str) -> bool:
        """Whether the blob is there."""

    def delete(self, sha256: str, *, untouched_since: datetime) -> bool:
        """Removes the blob unless somebody stored the same bytes at or after that time."""

    def digests(self, *, untouched_since: datetime) -> Iterator[str]:
        """Every blob last stored before that time."""

    def drop_leftovers(self, *, untouched_since: datetime) -> int:
        """Removes what crashed writers left behind; says how many."""


def put(blobs: Blobs, chunks: Iterable[bytes]) -> StoredBlob:
    """Stores the chunks, one after another, as one blob."""
    with blobs.writer() as writer:
        for chunk in chunks:
            writer.write(chunk)
        return writer.commit()


def put_file(blobs: Blobs, path: Path) -> StoredBlob:
    """Stores a copy of the file."""
    with path.open("rb") as file:
        return put(blobs, iter(lambda: file.read(CHUNK), b""))


class LocalBlobs:
    """Blobs in a folder: `ab/<sha256>`, mode 0440; unfinished ones in `unfinished/`.

    A file's modification time says when its bytes were last stored. A lock file makes storing
    bytes that exist and deleting them exclude each other, over all processes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = Path(folder)
        self._unfinished = self._folder / "unfinished"
        self._unfinished.mkdir(mode=0o750, parents=True, exist_ok=True)

    def writer(self) -> "LocalBlobWriter":
        """Begins a new blob."""
        return LocalBlobWriter(self, self._unfinished / secrets.token_hex(16))

    def path(self, sha256: str) -> Path:
        """Where the blob is, or would be."""
        if not _DIGEST.fullmatch(sha256):
            raise ValueError(f"not a SHA-256 digest in lower-case hex: {sha256!r}")
        return self._folder / sha256[:2] / sha256

    def open(self, sha256: str) -> BinaryIO:
        """The blob's bytes, seekable."""
        return self.path(sha256).open("rb")

    def exists(self, sha256: str) -> bool:
        """Whether the blob is there."""
        return self.path(sha256).is_file()

    def delete(self, sha256: str, *, untouched_since: datetime) -> bool:
        """Removes the blob unless the same bytes were stored at or after that time."""
        path = self.path(sha256)
        with self._exclusive():
            if not _older(path, untouched_since):
                return False
            path.unlink()
            return True

    def digests(self, *, untouched_since: datetime) -> Iterator[str]:
        """Every blob last stored before that time."""
        for shelf in sorted(self._folder.glob("[0-9a-f][0-9a-f]")):
            for path in sorted(shelf.iterdir()):
                if _DIGEST.fullmatch(path.name) and _older(path, untouched_since):
                    yield path.name

    def drop_leftovers(self, *, untouched_since: datetime) -> int:
        """Removes unfinished files nobody wrote to since then."""
        stale = [p for p in self._unfinished.iterdir() if _older(p, untouched_since)]
        for path in stale:
            path.unlink(missing_ok=True)
        return len(stale)

    def keep(self, unfinished: Path, sha256: str) -> None:
        """Moves a complete, synced file to its final place."""
        path = self.path(sha256)
        if not path.parent.is_dir():
            path.parent.mkdir(mode=0o750, exist_ok=True)
            _sync_folder(self._folder)
        with self._exclusive():
            if path.is_file():
                # Not utime(path, None): that takes the kernel's coarse clock, a little behind.
                os.utime(path, ns=(time.time_ns(),) * 2)
                unfinished.unlink()
            else:
                os.utime(unfinished, ns=(time.time_ns(),) * 2)
                unfinished.rename(path)
        _sync_folder(path.parent)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        # A descriptor of its own for each holder: flock then also excludes threads.
        with (self._folder / ".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


class LocalBlobWriter:
    """A blob being written aside, in the same file system as its final place."""

    def __init__(self, blobs: LocalBlobs, path: Path) -> None:
        self._blobs = blobs
        self._path = path
        self._hash = hashlib.sha256()
        self._size = 0
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        self._file = os.fdopen(descriptor, "wb")

    @property
    def size(self) -> int:
        """How many bytes were written so far."""
        return self._size

    @property
    def sha256(self) -> str:
        """The digest of the bytes written so far."""
        return self._hash.hexdigest()

    def write(self, chunk: bytes) -> None:
        """Appends bytes and hashes them."""
        self._file.write(chunk)
        self._hash.update(chunk)
        self._size += len(chunk)

    def commit(self) -> StoredBlob:
        """Syncs the file, then moves it to its digest."""
        self._file.flush()
        os.fchmod(self._file.fileno(), 0o440)
        os.fsync(self._file.fileno())
        self._file.close()
        stored = StoredBlob(self._hash.hexdigest(), self._size)
        self._blobs.keep(self._path, stored.sha256)
        return stored

    def abort(self) -> None:
        """Removes the unfinished file, if it is still there."""
        with suppress(OSError):
            self._file.close()
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.abort()


def _older(path: Path, when: datetime) -> bool:
    try:
        return path.stat().st_mtime < when.timestamp()
    except FileNotFoundError:
        return False


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
