"""Every error as RFC 9457 problem+json: one shape, stable codes, nothing leaked."""

import json
import logging
import math
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Scope

from api.failures import with_causes
from api.methods import allowed
from pruning.errors import SecateurError
from store import failures

MEDIA_TYPE = "application/problem+json"
REQUEST_ID = "secateur.request_id"
_MOST_ERRORS = 50
_LONGEST_PLACE = 200
_SEND_JSON = "Send one JSON object with Content-Type: application/json."

_STATUS_CODES = {
    400: "invalid_json",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    409: "conflict",
    413: "too_large",
    415: "unsupported_format",
    422: "invalid_request",
    503: "unavailable",
}

# Seconds after which it is worth trying again, where the error itself doesn't say.
_RETRY_AFTER = {429: 10, 503: 5, 507: 60}

log = logging.getLogger("secateur.api")


class ProblemResponse(Response):
    """A `SecateurError` as a response.

    ASCII JSON, because a refused value that is echoed in `where` may hold lone surrogates.
    """

    media_type = MEDIA_TYPE

    def __init__(
        self, error: SecateurError, scope: Scope, headers: Mapping[str, str] | None = None
    ) -> None:
        own = {"cache-control": "no-store", **(headers or {})}
        if error.status == 401:
            own.setdefault("www-authenticate", 'Bearer realm="secateur"')
        if (seconds := retry_after(error)) is not None:
            own.setdefault("retry-after", str(seconds))
        super().__init__(
            json.dumps(problem(error, scope)).encode("ascii"), error.status, headers=own
        )


def problem(error: SecateurError, scope: Scope) -> dict[str, Any]:
    """The members of the problem; those without a value are left out."""
    fields = {
        "type": f"/problems/{error.code}",
        "title": error.title,
        "status": error.status,
        "code": error.code,
        "detail": error.message,
        "instance": scope.get("path"),
        "where": _shortened(error.where),
        "hint": error.hint,
        "errors": [
            {**item, "where": _shortened(item.get("where"))}
            for item in error.details.get("errors", [])[:_MOST_ERRORS]
        ]
        or None,
        "details": with_causes({k: v for k, v in error.details.items() if k != "errors"}),
        "request_id": scope.get(REQUEST_ID),
    }
    return {key: value for key, value in fields.items() if value is not None}


def retry_after(error: SecateurError) -> int | None:
    """Whole seconds after which to try again: `retry_after` of the error, else by its status."""
    given = error.details.get("retry_after")
    return _RETRY_AFTER.get(error.status) if given is None else max(1, math.ceil(given))


def _shortened(place: str | None) -> str | None:
    return place if place is None else place[:_LONGEST_PLACE]


def validation_error(error: RequestValidationError) -> SecateurError:
    """FastAPI's validation errors, with the place of each; `invalid_json` for unreadable JSON."""
    found = error.errors()
    if any(item["type"] == "json_invalid" for item in found):
        reason = found[0].get("ctx", {}).get("error", "it can't be parsed")
        return SecateurError(
            "invalid_json",
            f"The body is not valid JSON: {reason}.",
            hint=_SEND_JSON,
        )
    entries = [
        {"where": _place(item["loc"]), "message": item["msg"].removeprefix("Value error, ")}
        for item in found
    ]
    first = entries[0]
    more = f" (and {len(entries) - 1} more)" if len(entries) > 1 else ""
    return SecateurError(
        "invalid_request",
        f"{first['where'] or 'body'}: {first['message']}{more}",
        where=first["where"],
        hint="Correct the fields under errors; /openapi.json describes the request."
        if first["where"]
        else _SEND_JSON,
        errors=entries,
    )


def _place(location: tuple[Any, ...]) -> str:
    source, *rest = location
    return ".".join(str(part) for part in (rest if source in ("body", "query") else location))


def http_error(error: HTTPException, scope: Scope) -> SecateurError:
    """The framework's own refusals: unknown route, method, body it could not parse."""
    code = _STATUS_CODES.get(
        error.status_code, "invalid_request" if error.status_code < 500 else "internal_error"
    )
    if code == "not_found":
        return SecateurError(
            code, "There is nothing at this path.", hint="/openapi.json lists every path."
        )
    if code == "method_not_allowed":
        return SecateurError(
            code,
            f"{scope['method']} is not offered here.",
            hint="The Allow header names the methods that are.",
        )
    if code == "invalid_json":
        # The parser's own message is lost; too deep, or a number with thousands of digits.
        return SecateurError(code, "The body can't be parsed as JSON.", hint=_SEND_JSON)
    return SecateurError(code, str(error.detail))


def unexpected(scope: Scope, error: BaseException) -> SecateurError:
    """Logs what happened under the request's id and returns what is told of it.

    A full disk and a database that does not answer have codes of their own; of anything else the
    answer tells nothing.
    """
    known = failures.told(error)
    if known is not None:
        log.warning("%s request_id=%s: %s", known.code, scope.get(REQUEST_ID), error)
        return known
    log.error(
        "unhandled error request_id=%s %s %r",
        scope.get(REQUEST_ID),
        scope.get("method"),
        scope.get("path"),
        exc_info=error,
    )
    return SecateurError(
        "internal_error",
        "Something failed on our side; it has been logged under the request_id.",
        hint="Try again; if it stays, report the request_id.",
    )


def install(app: FastAPI) -> None:
    """Registers the handlers of everything that can be raised inside a route."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, SecateurError)
        return ProblemResponse(error, request.scope)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return ProblemResponse(validation_error(error), request.scope)

    async def framework(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = allowed(app, request.scope)
        return ProblemResponse(http_error(error, request.scope), request.scope, headers)

    async def gone(request: Request, error: Exception) -> Response:
        return ProblemResponse(
            SecateurError("upload_incomplete", "The connection ended before the body did."),
            request.scope,
        )

    app.add_exception_handler(SecateurError, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, framework)
    app.add_exception_handler(ClientDisconnect, gone)
