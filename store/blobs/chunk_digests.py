"""Digests of a file's chunks, so that a part of it can be checked without reading all of it.

They lie in a file beside the blob: a head that names the blob, its size and the size of a chunk,
one SHA-256 a chunk, and the SHA-256 of all of that. A file of digests that is torn, damaged or of
another blob counts as missing, so it needs no sync: it is made again from the whole blob, whose own
digest is checked then.
"""

import hashlib
import struct
from dataclasses import dataclass

PART = 256 << 10
"""Bytes of a chunk: what one read holds in memory, and how long hashing keeps a first byte."""

_MAGIC = b"secateur chunks 1\n"
_HEAD = struct.Struct("<32sQQ")
_DIGEST = 32


@dataclass(frozen=True)
class ChunkDigests:
    """The digests of one file's chunks.

    Args:
        size: Bytes of the file.
        digests: SHA-256 of each chunk of `PART` bytes, the last one shorter; one of an empty file.
    """

    size: int
    digests: bytes

    def matches(self, number: int, chunk: bytes) -> bool:
        """Whether these are the bytes of chunk `number`, from 0."""
        at = number * _DIGEST
        return hashlib.sha256(chunk).digest() == self.digests[at : at + _DIGEST]

    def encoded(self, sha256: str) -> bytes:
        """The content of the file beside the blob."""
        body = _MAGIC + _HEAD.pack(bytes.fromhex(sha256), self.size, PART) + self.digests
        return body + hashlib.sha256(body).digest()


def decoded(content: bytes, sha256: str) -> ChunkDigests | None:
    """The digests that `encoded` wrote for this blob; None unless they are whole."""
    body, own = content[:-_DIGEST], content[-_DIGEST:]
    start = len(_MAGIC) + _HEAD.size
    if len(body) < start or not body.startswith(_MAGIC) or hashlib.sha256(body).digest() != own:
        return None
    blob, size, part = _HEAD.unpack_from(body, len(_MAGIC))
    if blob.hex() != sha256 or part != PART or len(body) - start != _DIGEST * count(size):
        return None
    return ChunkDigests(size, body[start:])


def alone(size: int, sha256: str) -> ChunkDigests | None:
    """Of a file of one chunk, whose digest is the blob's own; None for a larger one."""
    return ChunkDigests(size, bytes.fromhex(sha256)) if size <= PART else None


def count(size: int) -> int:
    """Chunks of a file."""
    return max(1, -(-size // PART))


class ChunkHasher:
    """Takes a file's bytes in pieces of any length; knows its digest and those of its chunks."""

    def __init__(self) -> None:
        self.size = 0
        self._whole = hashlib.sha256()
        self._part = hashlib.sha256()
        self._digests = bytearray()

    @property
    def sha256(self) -> str:
        """Of the bytes so far."""
        return self._whole.hexdigest()

    def update(self, piece: bytes) -> None:
        """Takes the next bytes."""
        self._whole.update(piece)
        view = memoryview(piece)
        while view:
            room = PART - self.size % PART
            taken = view[:room]
            self._part.update(taken)
            self.size += len(taken)
            if self.size % PART == 0:
                self._close()
            view = view[room:]

    def _close(self) -> None:
        self._digests += self._part.digest()
        self._part = hashlib.sha256()

    def digests(self) -> ChunkDigests:
        """Of all chunks; nothing is taken afterwards."""
        if self.size % PART or not self.size:
            self._close()
        return ChunkDigests(self.size, bytes(self._digests))
