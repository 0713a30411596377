"""The JSON files of a folder, read with budgets. Torch-free."""

import json
import math
from typing import Any

from pruning.errors import SecateurError
from pruning.formats.bundle import Bundle
from pruning.formats.json_cost import MOST, cost
from pruning.formats.safetensors import unique

MAX_DEPTH = 32


def read_object(bundle: Bundle, name: str, limit: int) -> dict[str, Any]:
    """A member that is one JSON object.

    Raises:
        SecateurError: As `parse`, and `model_unreadable` for anything but an object.
    """
    value = parse(bundle.read(name, limit), name)
    if not isinstance(value, dict):
        raise _refuse(name, "it is no JSON object")
    return value


def parse(raw: bytes, name: str, most: int = MOST) -> Any:
    """JSON with each key once, finite numbers and little nesting.

    Args:
        raw: The file.
        name: Its name.
        most: Bytes of memory that its values may take.

    Raises:
        SecateurError: `model_unreadable`, `model_too_large`, with the file in `where`.
    """
    if (taken := cost(raw)) > most:
        raise SecateurError(
            "model_too_large",
            f"{name} would take about {taken} bytes of memory; the limit is {most}.",
            where=name,
        )
    try:
        value = json.loads(
            raw.decode("utf-8-sig"),
            object_pairs_hook=unique,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
    except (ValueError, RecursionError) as error:
        raise _refuse(name, shown(str(error))) from None
    if _deeper(value, MAX_DEPTH):
        raise _refuse(name, f"it is nested deeper than {MAX_DEPTH}")
    return value


def shown(text: str) -> str:
    """Text of an upload as messages may carry it."""
    clean = "".join(c if c.isprintable() else "?" for c in text[:200])
    return clean if len(clean) <= 80 else clean[:77] + "..."


def _deeper(value: Any, most: int) -> bool:
    level = [value]
    for _ in range(most):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _no_constant(text: str) -> None:
    raise ValueError(f"the number {text}")


def _refuse(name: str, reason: str) -> SecateurError:
    return SecateurError("model_unreadable", f"{name} can't be read: {reason}.", where=name)
