"""Uploads, streamed: raw body or multipart, straight into a blob writer that hashes as it writes.

At most a few megabytes are held at any time. The client may send anything in any order and may go
away: unless the whole body was good, the writer is aborted and nothing is left.
"""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

import anyio
import anyio.to_thread
from starlette.requests import ClientDisconnect, Request

from api.bodies import announced_length, too_large
from api.multipart import FilePart
from pruning.errors import SecateurError
from store.blobs import Blobs, StoredBlob

_BATCH = 1 << 20
_MULTIPART_OVERHEAD = 64 << 10
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Upload:
    """What arrived: the committed blob, and the name that the body itself gave."""

    blob: StoredBlob
    name: str | None


async def receive(request: Request, blobs: Blobs, limit: int, idle_seconds: float) -> Upload:
    """Streams the request's body into a blob.

    Args:
        request: Its headers were accepted; nothing of its body was read.
        blobs: Where it goes.
        limit: Most bytes of the file itself.
        idle_seconds: Longest wait for the next bytes.

    Raises:
        SecateurError: `too_large` (at once if Content-Length says so), `upload_empty`,
            `upload_incomplete`, `digest_mismatch`, `multipart_invalid`.
    """
    expected = _expected_digest(request)
    part = FilePart.of(request.headers.get("content-type", ""))
    if announced_length(request.headers) > limit + (_MULTIPART_OVERHEAD if part else 0):
        raise too_large(limit)
    body = _steady(request.stream(), idle_seconds)
    chunks = body if part is None else part.read(body, _MULTIPART_OVERHEAD)
    blob = await _store(chunks, blobs, limit, expected)
    return Upload(blob, part.name if part else None)


async def _store(
    chunks: AsyncIterator[bytes], blobs: Blobs, limit: int, expected: str | None
) -> StoredBlob:
    writer = await anyio.to_thread.run_sync(blobs.writer)
    size = 0
    try:
        async for batch in _batches(_bounded(chunks, limit)):
            size += len(batch)
            await anyio.to_thread.run_sync(writer.write, batch)
        if size == 0:
            raise SecateurError(
                "upload_empty", "The upload has no bytes.", where="body", hint="Send the file."
            )
        if expected is not None and writer.sha256 != expected:
            raise SecateurError(
                "digest_mismatch",
                f"The {size} bytes that arrived have the SHA-256 {writer.sha256}, "
                f"not the announced {expected}.",
                where="X-Content-SHA256",
                hint="Send the file again.",
            )
        return await anyio.to_thread.run_sync(writer.commit)
    except BaseException as error:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(writer.abort)
        if isinstance(error, ClientDisconnect):
            raise SecateurError(
                "upload_incomplete", "The connection ended before the body did."
            ) from None
        raise


async def _steady(chunks: AsyncIterator[bytes], idle_seconds: float) -> AsyncIterator[bytes]:
    """The chunks, as long as they keep coming."""
    while True:
        try:
            with anyio.fail_after(idle_seconds):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise SecateurError(
                "upload_incomplete",
                f"No byte arrived for {idle_seconds:g} s.",
                where="body",
                hint="Send the file again.",
            ) from None
        yield chunk


async def _bounded(chunks: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    """The chunks up to the limit: over it before anything that may be wrong with the rest."""
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise too_large(limit)
        yield chunk


async def _batches(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Servers hand over small chunks; a thread for each would cost more than the write."""
    held: list[bytes] = []
    size = 0
    async for chunk in chunks:
        held.append(chunk)
        size += len(chunk)
        if size >= _BATCH:
            yield b"".join(held)
            held, size = [], 0
    if size:
        yield b"".join(held)


def _expected_digest(request: Request) -> str | None:
    announced = request.headers.get("x-content-sha256")
    if announced is None:
        return None
    if not _SHA256.fullmatch(announced):
        raise SecateurError(
            "invalid_request",
            "X-Content-SHA256 is not a SHA-256 digest.",
            where="X-Content-SHA256",
            hint="Send 64 hexadecimal digits, or leave the header out.",
        )
    return announced.lower()


def display_name(name: str | None, default: str) -> str:
    """A name that is safe to show and to save under: no folders, no control characters."""
    base = re.split(r"[/\\]", name or "")[-1]
    clean = "".join(c for c in base if c.isprintable() and not 0xD800 <= ord(c) <= 0xDFFF)
    return clean.strip().lstrip(".")[:_LONGEST_NAME] or default


BODY = {
    "required": True,
    "description": "The file itself, or a multipart form with the file as the part `file`.",
    "content": {
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": {"type": "string", "format": "binary"},
                    "name": {"type": "string", "examples": ["lenet.onnx"]},
                },
            }
        },
    },
}
