"""Stored files over HTTP: ETag, If-None-Match, If-Range and single byte ranges (RFC 9110).

Starlette's `FileResponse` streams the file and the range; what it lacks is If-None-Match, and it
answers plain text to a range it can't parse, where RFC 9110 (14.2) has the header ignored.
"""

import re
from datetime import datetime
from email.utils import format_datetime
from pathlib import Path

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from api.problems import ProblemResponse
from pruning.errors import SecateurError

_SINGLE_RANGE = re.compile(
    r"bytes=[ \t]*(?:(\d{1,18})-(\d{1,18})?|-(\d{1,18}))[ \t]*", re.IGNORECASE
)


def file_response(
    request: Request,
    path: Path,
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
        request: Its Range, If-Range and If-None-Match headers decide.
        path: The immutable file.
        sha256: Its digest; in quotes the strong ETag.
        size: Its length in bytes.
        modified: When it came to be, for its owner: shared storage may be older.
        filename: What a browser saves it as.
        media_type: The Content-Type.
        disposition: `attachment` to save it, `inline` to show it.
    """
    etag = f'"{sha256}"'
    headers = {
        "etag": etag,
        "last-modified": format_datetime(modified, usegmt=True),
        "cache-control": "private, no-cache",
        "x-content-type-options": "nosniff",
        "x-content-sha256": sha256,
    }
    if matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    asked = _usable_range(request.headers, headers)
    if asked is not None and not _satisfiable(asked, size):
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
    return _File(
        path,
        asked is not None,
        filename=filename,
        media_type=media_type,
        headers=headers,
        content_disposition_type=disposition,
    )


class _File(FileResponse):
    """A `FileResponse` that does not see a Range header that shall be ignored."""

    def __init__(self, path: Path, ranged: bool, **options: object) -> None:
        super().__init__(path, **options)  # type: ignore[arg-type]
        self.ranged = ranged

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self.ranged:
            kept = [(k, v) for k, v in scope["headers"] if k.lower() != b"range"]
            scope = {**scope, "headers": kept}
        await super().__call__(scope, receive, send)


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


def _satisfiable(found: re.Match[str], size: int) -> bool:
    first, _, suffix = found.groups()
    return int(first) < size if first else int(suffix) > 0 and size > 0
