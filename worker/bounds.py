"""How much of what a child says is kept. Its words go to the store and to users, and are its own.

Longer text is cut and ends in "…". What no JSON column takes, NUL and numbers that are not finite,
is replaced. Together with the number of events and the length of a line (`worker.process`) this
bounds what one child can make the store keep.
"""

import json
import math
from collections.abc import Callable
from typing import Any

from pruning.errors import SecateurError
from pruning.events import (
    CheckpointEvent,
    DoneEvent,
    Event,
    FailedEvent,
    MetricEvent,
    ProgressEvent,
)

MESSAGE, PLACE, NAME, PROGRESS = 4096, 512, 200, 500
SUMMARY_BYTES = 64 << 10
DETAILS_BYTES = 16 << 10
_DETAIL_TEXT, _DETAIL_ITEMS, _DETAIL_DEPTH = 1000, 100, 4
_FIELDS = {"message": MESSAGE, "hint": MESSAGE, "where": PLACE}
_ARGUMENTS = ("self", "code", "message", "where", "hint")
_UNSAID = {"code": "internal_error", "message": "The job failed without saying why."}


def cut(text: str, limit: int) -> str:
    """At most so many characters, the last one "…" where some are missing."""
    text = text[: limit + 1].replace("\0", "\ufffd")
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def bounded(event: Event) -> Event:
    """The event as it is handed on.

    Raises:
        ValueError: A number in it is not finite.
    """
    if isinstance(event, FailedEvent):
        return FailedEvent(error=bounded_error(event.error))
    if isinstance(event, DoneEvent):
        return event.model_copy(update={"result": storable(event.result)})
    if isinstance(event, CheckpointEvent):
        return event  # its name is a file's, or nothing is kept of it
    texts = {name: value for name, value in event if isinstance(value, str)}
    numbers = [value for _, value in event if isinstance(value, float)]
    if isinstance(event, ProgressEvent | MetricEvent) and not all(map(math.isfinite, numbers)):
        raise ValueError(f"{event.type} has a number that is not finite")
    limits = _FIELDS | ({"message": PROGRESS} if isinstance(event, ProgressEvent) else {})
    return event.model_copy(
        update={name: cut(text, limits.get(name, NAME)) for name, text in texts.items()}
    )


def bounded_error(fields: dict[str, Any]) -> dict[str, Any]:
    """`SecateurError.as_dict()` as it is kept; another one where the fields are not those."""
    code, message = fields.get("code"), fields.get("message")
    if not isinstance(code, str) or not isinstance(message, str):
        return _UNSAID
    kept = {"code": cut(code, NAME), "message": cut(message, MESSAGE)}
    for name in ("where", "hint"):
        if isinstance(value := fields.get(name), str):
            kept[name] = cut(value, _FIELDS[name])
    details = fields.get("details")
    return kept | ({"details": found} if (found := _details(details)) else {})


def shortened(error: SecateurError) -> dict[str, Any]:
    """An error, ours or a child's, as it is kept."""
    return bounded_error(error.as_dict())


def storable(value: Any) -> Any:
    """JSON values that every database takes."""
    return _mapped(value, lambda text: text.replace("\0", "\ufffd"))


def _mapped(value: Any, text: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [_mapped(item, text) for item in value]
    if isinstance(value, dict):
        return {text(key): _mapped(item, text) for key, item in value.items()}
    return value


def _details(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        return None
    # The names of arguments of `SecateurError` are no details.
    own = {name: item for name, item in value.items() if name not in _ARGUMENTS}
    kept = _fewer(own, _DETAIL_DEPTH)
    found: dict[str, Any] = _mapped(kept, lambda text: cut(text, _DETAIL_TEXT))
    return found if len(json.dumps(found)) <= DETAILS_BYTES else None


def _fewer(value: Any, depth: int) -> Any:
    if isinstance(value, list):
        return [_fewer(v, depth - 1) for v in value[:_DETAIL_ITEMS]] if depth else "…"
    if isinstance(value, dict):
        items = list(value.items())[:_DETAIL_ITEMS]
        return {name: _fewer(v, depth - 1) for name, v in items} if depth else "…"
    return value
