"""Stored files over HTTP: ETag, If-None-Match, If-Range and single byte ranges (RFC 9110).

Every byte is checked before it is sent. A file whose first bytes are damaged is answered with the
problem `file_damaged`; where a later piece is, the connection is cut, so that the answer never has
the length that it announced.
"""

import re
from collections.abc import Generator
from datetime import datetime
from email.utils import format_datetime
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from api.content import repr_digest
from api.problems import ProblemResponse
from pruning.errors import SecateurError
from store.blobs import BlobReader, Blobs, DamagedBlobError

_SINGLE_RANGE = re.compile(
    r"bytes=[ \t]*(?:(\d{1,18})-(\d{1,18})?|-(\d{1,18}))[ \t]*", re.IGNORECASE
)


def file_response(
    request: Request,
    blobs: Blobs,
    *,
    sha256: str,
    size: int,
    modified: datetime,
    filename: str,
    media_type: str,
    disposition: str = "attachment",
) -> Response:
    """The file as the request's headers ask for it: 200, 206, 304 or 416.

    Args:
        request: Its method and its Range, If-Range and If-None-Match headers decide.
        blobs: Where the file is.
        sha256: Its digest; in quotes the strong ETag.
        size: Its length in bytes.
        modified: When it came to be, for its owner: shared storage may be older.
        filename: What a browser saves it as.
        media_type: The Content-Type.
        disposition: `attachment` to save it, `inline` to show it.

    Raises:
        DamagedBlobError: The file or its first bytes can't be given.
    """
    etag = f'"{sha256}"'
    headers = {
        "etag": etag,
        "last-modified": format_datetime(modified, usegmt=True),
        "cache-control": "private, no-cache",
        "x-content-type-options": "nosniff",
        "x-content-sha256": sha256,
        "repr-digest": repr_digest(sha256),
    }
    if matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    asked = _usable_range(request.headers, headers) if request.method == "GET" else None
    start, stop = (0, size) if asked is None else _bounds(asked, size)
    if start >= stop and asked is not None:
        return _outside(request, size, etag)
    body = _checked(blobs.open(sha256, size), start, stop)
    next(body)  # also for HEAD: it announces what GET would send
    headers |= {
        "accept-ranges": "bytes",
        "content-length": str(stop - start),
        "content-disposition": _disposition(disposition, filename),
    }
    if asked is not None:
        headers["content-range"] = f"bytes {start}-{stop - 1}/{size}"
    status = 200 if asked is None else 206
    if request.method == "HEAD":
        body.close()
        return Response(status_code=status, headers=headers, media_type=media_type)
    return StreamingResponse(body, status, headers, media_type)


class CutError(Exception):
    """Ends an answer that has begun, so that it stays shorter than it announced."""


def _checked(file: BlobReader, start: int, stop: int) -> Generator[bytes]:
    """Nothing once the first piece is checked, then the pieces."""
    with file:
        pieces = file.part(start, stop)
        first = next(pieces)
        yield b""
        yield first
        try:
            yield from pieces
        except DamagedBlobError as error:
            raise CutError(error.message) from error


def _outside(request: Request, size: int, etag: str) -> Response:
    return ProblemResponse(
        SecateurError(
            "range_not_satisfiable",
            f"The file has {size} bytes, and the range asks for none of them.",
            where="Range",
            hint="Ask for a range inside the file, or leave the header out.",
        ),
        request.scope,
        {"content-range": f"bytes */{size}", "etag": etag},
    )


def _disposition(kind: str, filename: str) -> str:
    """RFC 6266: in ASCII where the name allows it, else as RFC 8187 writes it."""
    quoted = quote(filename)
    if quoted == filename:
        return f'{kind}; filename="{filename}"'
    return f"{kind}; filename*=utf-8''{quoted}"


def matches(condition: str | None, etag: str) -> bool:
    """Whether If-None-Match names the ETag; it compares weakly (RFC 9110, 13.1.2)."""
    if condition is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in condition.split(",")]
    return "*" in tags or etag in tags


def _usable_range(request: Headers, own: dict[str, str]) -> re.Match[str] | None:
    """The single range to answer, or None where the whole file is the answer."""
    if_range = request.get("if-range")
    if if_range is not None and if_range not in (own["etag"], own["last-modified"]):
        return None
    found = _SINGLE_RANGE.fullmatch(request.get("range", ""))
    if found is None:
        return None
    first, last, _ = found.groups()
    return None if first and last and int(last) < int(first) else found


def _bounds(found: re.Match[str], size: int) -> tuple[int, int]:
    """First byte and the one behind the last; the same or less where the range lies outside."""
    first, last, suffix = found.groups()
    if not first:
        return max(0, size - int(suffix)), size
    return int(first), size if last is None else min(int(last) + 1, size)
