"""What a store of blobs does, wherever it keeps them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from store.blobs.quarantine import Quarantined
from store.blobs.reading import BlobReader

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
        """Makes the blob durable and readable; a file of the same digest is replaced by it."""

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

    def refuse_without_room(self, size: int) -> None:
        """Refuses so many further bytes where they would take the reserve of free space.

        Raises:
            SecateurError: `storage_full`.
        """

    def open(self, sha256: str, size: int | None = None) -> BlobReader:
        """The blob's bytes, checked as they are read.

        Raises:
            DamagedBlobError: There is no such blob, or it has another size than it should.
        """

    def exists(self, sha256: str) -> bool:
        """Whether the blob is there; one that was found damaged is not."""

    def delete(self, sha256: str, *, untouched_since: datetime) -> bool:
        """Removes the blob unless somebody stored the same bytes at or after that time."""

    def digests(self, *, untouched_since: datetime) -> Iterator[str]:
        """Every blob last stored before that time."""

    def drop_leftovers(self, *, untouched_since: datetime) -> int:
        """Removes what crashed writers left behind; says how many."""

    def quarantined(self) -> list[Quarantined]:
        """The damaged files that are kept for the operator, the oldest first."""

    def drop_quarantined(self, *, before: datetime) -> int:
        """Removes damaged files that were found before that time; says how many."""

    def restore_sound(self) -> list[str]:
        """Puts quarantined files back that can be read and have their digest after all."""


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
