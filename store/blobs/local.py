"""Blobs in a folder of this machine."""

import fcntl
import logging
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from pruning.errors import SecateurError
from store.blobs.chunk_digests import PART, ChunkDigests, ChunkHasher, decoded
from store.blobs.contract import StoredBlob
from store.blobs.damage import DamagedBlobError
from store.blobs.quarantine import Quarantined, listed, place_for
from store.blobs.reading import BlobReader
from store.clock import utcnow
from store.disk import make_folder, sync_folder

_DIGEST = re.compile(r"[0-9a-f]{64}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BESIDE = ".chunks"

log = logging.getLogger(__name__)


class LocalBlobs:
    """Blobs in a folder: `ab/<sha256>`, mode 0440; unfinished ones in `unfinished/`.

    A file's modification time says when its bytes were last stored. A lock file makes storing
    bytes that exist, deleting them and setting them aside exclude each other, over all processes.

    Args:
        folder: Made if it is missing.
        reserve_bytes: Free space that uploads leave to the database and to running jobs.
    """

    def __init__(self, folder: Path, reserve_bytes: int = 0) -> None:
        self._folder = Path(folder)
        self._reserve = reserve_bytes
        self._unfinished = self._folder / "unfinished"
        self._quarantine = self._folder / "quarantine"
        self._synced: set[Path] = set()
        make_folder(self._unfinished, 0o750)

    def writer(self) -> "LocalBlobWriter":
        """Begins a new blob."""
        return LocalBlobWriter(self, self._aside())

    def refuse_without_room(self, size: int) -> None:
        """Refuses so many further bytes where they would take the reserve of free space."""
        facts = os.statvfs(self._folder)
        if facts.f_blocks and size > facts.f_bavail * facts.f_frsize - self._reserve:
            raise SecateurError(
                "storage_full",
                "The storage has no room for these bytes.",
                hint="Delete jobs and uploads that are not needed, or try again later.",
            )

    def path(self, sha256: str) -> Path:
        """Where the blob is, or would be."""
        if not _DIGEST.fullmatch(sha256):
            raise ValueError(f"not a SHA-256 digest in lower-case hex: {sha256!r}")
        return self._folder / sha256[:2] / sha256

    def open(self, sha256: str, size: int | None = None) -> BlobReader:
        """The blob's bytes, checked as they are read."""
        try:
            return BlobReader(sha256, self.path(sha256).open("rb"), self, size)
        except FileNotFoundError:
            log.error("blob %s is missing", sha256)
            raise DamagedBlobError(sha256, "it is missing", missing=True) from None

    def exists(self, sha256: str) -> bool:
        """Whether the blob is there; one that was found damaged is not."""
        return self.path(sha256).is_file()

    def delete(self, sha256: str, *, untouched_since: datetime) -> bool:
        """Removes the blob unless the same bytes were stored at or after that time."""
        path = self.path(sha256)
        with self._exclusive():
            if not _older(path, untouched_since):
                return False
            _beside(path).unlink(missing_ok=True)
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

    def quarantined(self) -> list[Quarantined]:
        """The damaged files that are kept for the operator, the oldest first."""
        return listed(self._quarantine)

    def drop_quarantined(self, *, before: datetime) -> int:
        """Removes damaged files that were found before that time; says how many."""
        old = [found for found in self.quarantined() if found.found_at < before]
        for found in old:
            found.path.unlink(missing_ok=True)
        return len(old)

    def restore_sound(self) -> list[str]:
        """Puts quarantined files back that can be read and have their digest after all."""
        return [found.sha256 for found in self.quarantined() if self._restored(found)]

    def _restored(self, found: Quarantined) -> bool:
        hasher = ChunkHasher()
        try:
            with found.path.open("rb") as file:
                while piece := file.read(PART):
                    hasher.update(piece)
        except OSError:
            return False
        path = self.path(found.sha256)
        with self._exclusive():
            if hasher.sha256 != found.sha256 or path.exists():
                return False
            found.path.rename(path)
        log.warning("blob %s is sound after all and back in its place", found.sha256)
        return True

    def keep(self, unfinished: Path, written: ChunkHasher) -> None:
        """Moves a complete, synced file to its final place.

        A file that is there already is replaced, not trusted: its bytes may have been damaged.
        """
        path = self.path(written.sha256)
        make_folder(path.parent, 0o750)
        with self._exclusive():
            # Not utime(path, None): that takes the kernel's coarse clock, a little behind.
            os.utime(unfinished, ns=(time.time_ns(),) * 2)
            unfinished.rename(path)
        sync_folder(path.parent)
        if path.parent not in self._synced:
            # Another process may have made the folder and not yet synced it.
            sync_folder(self._folder)
            self._synced.add(path.parent)
        if written.size > PART:
            self.keep_chunk_digests(path.name, written.digests())

    def chunk_digests(self, sha256: str) -> ChunkDigests | None:
        """The digests beside the blob; None where they are missing or not whole."""
        try:
            return decoded(_beside(self.path(sha256)).read_bytes(), sha256)
        except OSError:
            return None

    def keep_chunk_digests(self, sha256: str, digests: ChunkDigests) -> None:
        """Puts them beside the blob. Where that can't be done, they are made when it is read."""
        path, aside = self.path(sha256), self._aside()
        try:
            aside.write_bytes(digests.encoded(sha256))
            with self._exclusive():
                if path.exists():
                    aside.rename(_beside(path))
        except OSError as error:
            log.warning("the digests of the chunks of blob %s can't be kept: %s", sha256, error)
        finally:
            with suppress(OSError):
                aside.unlink(missing_ok=True)

    def set_aside(self, sha256: str, facts: os.stat_result, reason: str) -> None:
        """Moves the damaged file into quarantine, unless a sound one has taken its place."""
        path, aside = self.path(sha256), place_for(self._quarantine, sha256, utcnow())
        try:
            make_folder(self._quarantine, 0o750)
            with self._exclusive():
                now = path.stat()
                if (now.st_dev, now.st_ino) != (facts.st_dev, facts.st_ino):
                    return
                path.rename(aside)
                _beside(path).unlink(missing_ok=True)
        except FileNotFoundError:
            return  # somebody else has set it aside
        except OSError as error:
            log.error("blob %s is damaged (%s) and stays in place: %s", sha256, reason, error)
            return
        log.error("blob %s is damaged: %s; it is now %s", sha256, reason, aside)

    def _aside(self) -> Path:
        return self._unfinished / secrets.token_hex(16)

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
        self._hasher = ChunkHasher()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        self._file = os.fdopen(descriptor, "wb")

    @property
    def size(self) -> int:
        """How many bytes were written so far."""
        return self._hasher.size

    @property
    def sha256(self) -> str:
        """The digest of the bytes written so far."""
        return self._hasher.sha256

    def write(self, chunk: bytes) -> None:
        """Appends bytes and hashes them."""
        self._file.write(chunk)
        self._hasher.update(chunk)

    def commit(self) -> StoredBlob:
        """Syncs the file, then moves it to its digest."""
        self._file.flush()
        os.fchmod(self._file.fileno(), 0o440)
        # A sync that failed may not be repeated: the kernel has forgotten the bytes by then.
        os.fsync(self._file.fileno())
        self._file.close()
        self._blobs.keep(self._path, self._hasher)
        return StoredBlob(self._hasher.sha256, self._hasher.size)

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


def _beside(path: Path) -> Path:
    return path.with_name(path.name + _BESIDE)


def _nanoseconds(when: datetime) -> int:
    """Since the epoch, exactly: a float would be off by some hundreds."""
    return (when - _EPOCH) // timedelta(microseconds=1) * 1_000


def _older(path: Path, when: datetime) -> bool:
    try:
        return path.stat().st_mtime_ns < _nanoseconds(when)
    except FileNotFoundError:
        return False
