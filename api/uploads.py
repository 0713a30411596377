"""Uploads, streamed: raw body or multipart, straight into a blob writer that hashes as it writes.

At most a few megabytes are held at any time. The client may send anything in any order and may go
away: unless the whole body was good, the writer is aborted and nothing is left.
"""

import json
import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar
from starlette.requests import ClientDisconnect, Request

from api.bodies import announced_length, too_large
from api.content import Announced
from api.multipart import LONGEST_NAME, FileParts, Piece
from pruning.errors import SecateurError
from pruning.formats.magic import HEAD
from store.blobs import Blobs, BlobWriter, StoredBlob
from store.queries.uploads import UploadedFile

_BATCH = 1 << 20
_THREADS = 8
_of_loop: RunVar[anyio.CapacityLimiter] = RunVar("upload_threads")
_MULTIPART_OVERHEAD = 256 << 10
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_LONGEST_NAME = 200
_OURS = frozenset({"report.json", "report.html", "manifest.json"})
_LONGEST_FILE = 255  # bytes, of a name that a file system takes

T = TypeVar("T")
Refuse = Callable[[bytes, int], None]
Accept = Callable[[Mapping[str, Sequence[str]]], None]


@dataclass(frozen=True)
class Upload:
    """What arrived: the committed blob, and the name that the body itself gave.

    Of several `files`, `blob` is their canonical list. `options` holds what further parts said.
    """

    blob: StoredBlob
    name: str | None
    files: tuple[UploadedFile, ...] = ()
    options: Mapping[str, Sequence[str]] = field(default_factory=dict)


async def receive(
    request: Request,
    blobs: Blobs,
    limit: int,
    idle_seconds: float,
    refuse: Refuse,
    *,
    several: bool = False,
    options: Collection[str] = (),
    accept: Accept | None = None,
) -> Upload:
    """Streams the request's body into a blob, or into one for each of several files.

    Args:
        request: Its headers were accepted; nothing of its body was read.
        blobs: Where it goes.
        limit: Most bytes of all files together.
        idle_seconds: Longest wait for the next bytes.
        refuse: Raises for a file that can't be read here, told its first bytes and its size.
        several: Whether a multipart body may hold more than one file.
        options: Names of further parts that it may hold.
        accept: Raises for what those parts say; nothing is stored then.

    Raises:
        SecateurError: `too_large` (at once if Content-Length says so), `upload_empty`,
            `upload_incomplete`, `digest_mismatch`, `multipart_invalid`, and what `refuse` and
            `accept` raise.
    """
    digests = Announced(request.headers)
    expected = _expected_digest(request)
    parts = FileParts.of(request.headers.get("content-type", ""), several, options)
    announced = announced_length(request.headers)
    if announced > limit + (_MULTIPART_OVERHEAD if parts else 0):
        raise too_large(limit)
    await _in_thread(blobs.refuse_without_room, announced)
    body = digests.checked(_steady(request.stream(), idle_seconds))
    pieces = _whole(body) if parts is None else parts.read(body, _MULTIPART_OVERHEAD)
    writers = [await _in_thread(blobs.writer)]
    try:
        head = await _write(pieces, blobs, limit, writers)
        if parts is not None and accept is not None:
            accept(parts.options)
        if parts is None or len(parts.filenames) == 1:
            blob = await _one(writers, expected, lambda size: refuse(head, size))
            return Upload(blob, *((parts.name, (), parts.options) if parts else (None,)))
        names = _file_names(parts.filenames)
        files, listed = await _several(names, writers, blobs, expected)
        return Upload(listed, parts.name, files, parts.options)
    except BaseException as error:
        with anyio.CancelScope(shield=True):
            for writer in writers:
                await _in_thread(writer.abort)
        if isinstance(error, ClientDisconnect):
            raise SecateurError(
                "upload_incomplete", "The connection ended before the body did."
            ) from None
        raise


async def _in_thread(do: Callable[..., T], *arguments: Any) -> T:
    """What `do` returns, from one of the threads that uploads have for themselves.

    Writing and syncing files waits for the disk: other requests do not wait behind it.
    """
    return await anyio.to_thread.run_sync(do, *arguments, limiter=_threads())


def _threads() -> anyio.CapacityLimiter:
    try:
        return _of_loop.get()
    except LookupError:
        _of_loop.set(anyio.CapacityLimiter(_THREADS))
        return _of_loop.get()


async def _write(
    pieces: AsyncIterator[Piece], blobs: Blobs, limit: int, writers: list[BlobWriter]
) -> bytes:
    """Writes each file to a writer of its own, put into `writers` when its first byte comes.

    Returns:
        The first bytes of the first file.
    """
    head = b""
    async for piece in _batches(_bounded(pieces, limit)):
        head = head or piece.data[:HEAD]
        while len(writers) <= piece.file:
            writers.append(await _in_thread(blobs.writer))
        await _in_thread(_append, writers[piece.file], piece.data, blobs)
    return head


def _append(writer: BlobWriter, data: bytes, blobs: Blobs) -> None:
    blobs.refuse_without_room(len(data))  # others may have filled the disk meanwhile
    writer.write(data)


async def _one(
    writers: list[BlobWriter], expected: str | None, refuse: Callable[[int], None]
) -> StoredBlob:
    (writer,) = writers
    if writer.size == 0:
        raise SecateurError(
            "upload_empty", "The upload has no bytes.", where="body", hint="Send the file."
        )
    _compare(writer, expected, f"The {writer.size} bytes that arrived have")
    refuse(writer.size)
    return await _in_thread(writer.commit)


async def _several(
    names: list[str], writers: list[BlobWriter], blobs: Blobs, expected: str | None
) -> tuple[tuple[UploadedFile, ...], StoredBlob]:
    while len(writers) < len(names):  # the last parts were empty
        writers.append(await _in_thread(blobs.writer))
    listed = {
        name: {"bytes": writer.size, "path": name, "sha256": writer.sha256}
        for name, writer in zip(names, writers, strict=True)
    }
    canonical = [listed[name] for name in sorted(listed)]
    index = await _in_thread(blobs.writer)
    writers.append(index)
    await _in_thread(index.write, json.dumps(canonical, separators=(",", ":")).encode())
    _compare(index, expected, "The canonical list of the files that arrived has")
    stored = [await _in_thread(writer.commit) for writer in writers]
    files = tuple(UploadedFile(n, blob) for n, blob in zip(names, stored, strict=False))
    return files, stored[-1]


def _compare(writer: BlobWriter, expected: str | None, what: str) -> None:
    if expected is not None and writer.sha256 != expected:
        raise SecateurError(
            "digest_mismatch",
            f"{what} the SHA-256 {writer.sha256}, not the announced {expected}.",
            where="X-Content-SHA256",
            hint="Send the file again.",
        )


def _file_names(given: list[str | None]) -> list[str]:
    """The files' names, which are all that tells them apart.

    Raises:
        SecateurError: `multipart_invalid` for names that are missing, given twice or not plain.
    """
    for name in given:
        if name is None or name != display_name(name, "") or len(name.encode()) > _LONGEST_FILE:
            raise SecateurError(
                "multipart_invalid",
                f"{'A file has no name' if not name else f'{name[:80]!r} is no plain file name'}.",
                where="file",
                hint="Give each part file its own filename without folders; for files in folders "
                "upload a .tar or a .zip.",
            )
    names = [name for name in given if name is not None]
    if taken := sorted(_OURS.intersection(names)):
        raise SecateurError(
            "multipart_invalid",
            f"{taken[0]} is what a job's own file beside the model is called.",
            where="file",
            hint="Leave it out or rename it.",
        )
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SecateurError("multipart_invalid", f"Two files are called {twice}.", where="file")
    return names


async def _whole(chunks: AsyncIterator[bytes]) -> AsyncIterator[Piece]:
    """A raw body as the only file."""
    async for chunk in chunks:
        yield Piece(0, chunk)


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


async def _bounded(pieces: AsyncIterator[Piece], limit: int) -> AsyncIterator[Piece]:
    """The pieces up to the limit: over it before anything that may be wrong with the rest."""
    size = 0
    async for piece in pieces:
        size += len(piece.data)
        if size > limit:
            raise too_large(limit)
        yield piece


async def _batches(pieces: AsyncIterator[Piece]) -> AsyncIterator[Piece]:
    """Servers hand over small chunks; a thread for each would cost more than the write."""
    held: list[bytes] = []
    size, file = 0, 0
    async for piece in pieces:
        if held and (piece.file != file or size >= _BATCH):
            yield Piece(file, b"".join(held))
            held, size = [], 0
        file = piece.file
        held.append(piece.data)
        size += len(piece.data)
    if held:
        yield Piece(file, b"".join(held))


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


_BYTES = {"type": "string", "format": "binary"}


def body(description: str, **more: Any) -> dict[str, Any]:
    """How the document tells what an upload's body is.

    Args:
        description: In words.
        more: Schemas of further parts of a form.
    """
    name = {"type": "string", "description": "The file's name.", "maxLength": LONGEST_NAME}
    form = {
        "type": "object",
        "required": ["file"],
        "properties": {"file": _BYTES, "name": name, **more},
        "additionalProperties": False,
    }
    return {
        "required": True,
        "description": description,
        "content": {
            "application/octet-stream": {"schema": _BYTES},
            "multipart/form-data": {"schema": form},
        },
    }
