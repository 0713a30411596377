"""From problem+json answers and failed connections to the one error type of this project."""

import importlib.util
import json
import re
from typing import Any

from pruning.errors import CODES, SecateurError

__all__ = ["SecateurError", "connection_failed", "from_problem", "require"]

_BY_STATUS = {
    400: "invalid_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    409: "conflict",
    413: "too_large",
    415: "unsupported_format",
    416: "range_not_satisfiable",
    422: "invalid_request",
    429: "unavailable",
    502: "unavailable",
    503: "unavailable",
    504: "unavailable",
}


def from_problem(status: int, body: bytes) -> SecateurError:
    """The error that a response of status >= 400 carries.

    A code this version does not know is kept as `details["original_code"]`, and the status decides.
    So it does for a body that is not problem+json, as a proxy in between may send.
    """
    try:
        problem = json.loads(body)
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        return SecateurError(
            _BY_STATUS.get(status, "internal_error"),
            f"The service answered with status {status} and no explanation.",
            http_status=status,
        )
    details: dict[str, Any] = dict(problem.get("details") or {})
    for key in ("errors", "request_id"):
        if problem.get(key) is not None:
            details[key] = problem[key]
    return from_fields(problem, details, _BY_STATUS.get(status, "internal_error"))


def from_fields(
    fields: dict[str, Any], details: dict[str, Any] | None = None, fallback: str = "internal_error"
) -> SecateurError:
    """The error described by JSON values with `code`, `message` or `detail`, `where`, `hint`."""
    details = dict(fields.get("details") or {}) if details is None else details
    code = str(fields.get("code", fallback))
    if code not in CODES:
        details["original_code"] = code
        code = fallback
    # These names belong to the error itself.
    details = {k: v for k, v in details.items() if k not in ("code", "message", "where", "hint")}
    return SecateurError(
        code,
        str(fields.get("message") or fields.get("detail") or fields.get("title") or code),
        where=fields.get("where"),
        hint=fields.get("hint"),
        **details,
    )


def connection_failed(url: str, error: Exception) -> SecateurError:
    """No answer came from `url`."""
    hint = "Start a service with `secateur up`, or point SECATEUR_URL at one that runs."
    if type(error).__name__ == "ConnectTimeout":
        hint += " SECATEUR_CONNECT_SECONDS=5 waits longer where the way to it is slow."
    reason = re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__
    return SecateurError(
        "connection_failed",
        f"No answer from {url}: {reason[0].lower()}{reason[1:]}.",
        where=url,
        hint=hint,
    )


def require(extras: str, *modules: str) -> None:
    """Refuses to go on where a module that belongs to an optional extra is not installed.

    Raises:
        SecateurError: `package_missing`, with the command that installs it.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise SecateurError(
            "package_missing",
            f"This needs {', '.join(missing)}, which the base install leaves out.",
            where=missing[0],
            hint=f"pip install 'secateur[{extras}]'",
        )
