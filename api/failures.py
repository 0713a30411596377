"""The error that a job, an attempt or an upload keeps, with the fields that a problem has.

The store has errors as they were raised: code, message, place, hint, details. Whoever is told of
one finds the same fields wherever it stands: in a job, an attempt, an upload, an event, or as the
cause in another error's details.
"""

from collections.abc import Mapping
from typing import Any

from pruning.errors import CODES

_CAUSES = ("last_error", "reason")
"""Entries of details that are errors themselves."""


def failure(error: Mapping[str, Any]) -> dict[str, Any]:
    """A kept error as it is told. `message` is what `detail` is called from before."""
    code = str(error.get("code", "internal_error"))
    message = str(error.get("message", ""))
    return {
        "type": f"/problems/{code}",
        "title": CODES[code][1] if code in CODES else "",
        "code": code,
        "detail": message,
        "message": message,
        "where": error.get("where"),
        "hint": error.get("hint"),
        "details": with_causes(error.get("details")),
    }


def with_causes(details: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Details, with the errors among them told as failures."""
    if not details:
        return None
    return {
        key: failure(value) if key in _CAUSES and _is_error(value) else value
        for key, value in details.items()
    }


def _is_error(value: Any) -> bool:
    return isinstance(value, Mapping) and "code" in value
