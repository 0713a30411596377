"""Reading a blob so that no damaged byte is handed on as a sound one."""

import errno
import hashlib
import os
from collections.abc import Iterator
from functools import cached_property
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from store.blobs.chunk_digests import PART, ChunkDigests, ChunkHasher, alone
from store.blobs.damage import DamagedBlobError


class Keeper(Protocol):
    """Where the blob lies, as its reader needs it."""

    def chunk_digests(self, sha256: str) -> ChunkDigests | None:
        """The digests beside the blob; None where they are missing or not whole."""

    def keep_chunk_digests(self, sha256: str, digests: ChunkDigests) -> None:
        """Puts them beside the blob, if that can be done."""

    def set_aside(self, sha256: str, facts: os.stat_result, reason: str) -> None:
        """Moves the damaged file into quarantine, unless a sound one has taken its place."""


class BlobReader:
    """An open blob. Whatever turns out damaged is set aside and raised as `DamagedBlobError`.

    Bytes are checked after they are in memory and before they are handed out, so a file that
    changes while it is read is noticed too.

    Args:
        sha256: Its digest.
        file: Its bytes.
        keeper: Where it lies.
        size: How many bytes were stored, where that is known.

    Raises:
        DamagedBlobError: The file has another size.
    """

    def __init__(
        self, sha256: str, file: BinaryIO, keeper: Keeper, size: int | None = None
    ) -> None:
        self.sha256 = sha256
        self._file, self._keeper = file, keeper
        self._facts = os.fstat(file.fileno())
        if size is not None and size != self.size:
            file.close()
            raise self._damaged(f"it has {self.size} bytes instead of {size}")

    @property
    def size(self) -> int:
        """Bytes of the file as it is."""
        return self._facts.st_size

    def part(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to `stop`: each piece is checked before it is handed out.

        Raises:
            DamagedBlobError: At the first piece that is damaged.
        """
        digests = self._digests
        stop = digests.size if stop is None else min(stop, digests.size)
        for number in range(start // PART, max(start // PART + 1, -(-stop // PART))):
            begin = number * PART
            chunk = self._read(begin, min(PART, digests.size - begin))
            if not digests.matches(number, chunk):
                raise self._damaged(f"bytes from {begin} on are not what was stored")
            yield chunk[max(0, start - begin) : stop - begin]

    def copy(self) -> Iterator[bytes]:
        """All bytes, the digest of the whole checked behind the last: for one who can drop them.

        Raises:
            DamagedBlobError: After the last piece.
        """
        digest = hashlib.sha256()
        for piece in self._pieces():
            digest.update(piece)
            yield piece
        self._compare(digest.hexdigest())

    def read(self) -> bytes:
        """All bytes, checked.

        Raises:
            DamagedBlobError: The file is damaged.
        """
        return b"".join(self.copy())

    def check(self) -> Iterator[int]:
        """Reads all of it, as `copy`, and makes the digests of its chunks if they are missing.

        Yields:
            The length of each piece, so that the caller can take its time.

        Raises:
            DamagedBlobError: After the last piece.
        """
        if self._known is not None:
            for piece in self.copy():
                yield len(piece)
            return
        hasher = ChunkHasher()
        for piece in self._pieces():
            hasher.update(piece)
            yield len(piece)
        self._compare(hasher.sha256)
        self._keeper.keep_chunk_digests(self.sha256, hasher.digests())

    def forget_cached(self) -> None:
        """Lets the kernel drop its copy, so that what is read next is what the disk holds."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    @property
    def _known(self) -> ChunkDigests | None:
        return alone(self.size, self.sha256) or self._keeper.chunk_digests(self.sha256)

    @cached_property
    def _digests(self) -> ChunkDigests:
        known = self._known
        if known is None:
            for _ in self.check():
                pass
            known = self._known or self._unkept()
        if known.size != self.size:
            raise self._damaged(f"it has {self.size} bytes instead of {known.size}")
        return known

    def _unkept(self) -> ChunkDigests:
        """The chunks' digests where they could not be put beside the blob, as on a full disk."""
        hasher = ChunkHasher()
        for piece in self._pieces():
            hasher.update(piece)
        self._compare(hasher.sha256)
        return hasher.digests()

    def _pieces(self) -> Iterator[bytes]:
        at = 0
        while piece := self._read(at, PART):
            at += len(piece)
            yield piece

    def _read(self, at: int, length: int) -> bytes:
        read = bytearray()
        try:
            while len(read) < length:
                piece = os.pread(self._file.fileno(), length - len(read), at + len(read))
                if not piece:
                    break
                read += piece
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            raise self._damaged("it can't be read from the disk") from error
        return bytes(read)

    def _compare(self, sha256: str) -> None:
        if sha256 != self.sha256:
            raise self._damaged(f"its {self.size} bytes have the SHA-256 {sha256}")

    def _damaged(self, reason: str) -> DamagedBlobError:
        self._keeper.set_aside(self.sha256, self._facts, reason)
        return DamagedBlobError(self.sha256, reason)

    def close(self) -> None:
        """Lets go of the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
