"""JSON of a .pt2 archive read with budgets, and its values taken out one by one, each checked.

Every function here gives a fresh value of a plain type, or refuses with the place in the document.
"""

import json
import keyword
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from pruning.errors import SecateurError
from pruning.formats.safetensors import unique

T = TypeVar("T")

MOST_BYTES = 32 * 1024 * 1024
MOST_VALUES = 600_000
LARGEST = 2**63 - 1
MOST_SIZE = 2**40

_HINT = "Export and save the model again with torch 2.11 or newer."
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")


def refuse(reason: str, where: str) -> SecateurError:
    """The error for a document that is not what torch.export writes."""
    return SecateurError("model_invalid", f"{reason}.", where=shown(where), hint=_HINT)


def shown(text: str) -> str:
    """A text of the file as it may stand in a message."""
    clean = "".join(c if c.isprintable() else "?" for c in str(text))
    return clean if len(clean) <= 120 else clean[:117] + "..."


def parse(raw: bytes, where: str) -> Any:
    """A JSON document without keys given twice, of bounded size.

    Raises:
        SecateurError: `model_too_large` or `model_unreadable`.
    """
    # The parser's objects take up to a hundred times the bytes of a comma or a bracket.
    values = sum(raw.count(mark) for mark in (b",", b"[", b"{"))
    if len(raw) > MOST_BYTES or values > MOST_VALUES:
        raise SecateurError(
            "model_too_large",
            f"{where} has {len(raw)} bytes and about {values} values; "
            f"the limits are {MOST_BYTES} and {MOST_VALUES}.",
            where=where,
        )
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=unique, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise SecateurError(
            "model_unreadable",
            f"{where} is not valid JSON: {shown(str(error))}.",
            where=where,
            hint=_HINT,
        ) from None


def _no_number(text: str) -> None:
    raise ValueError(f"the number {text}")


def record(
    value: Any, where: str, required: Iterable[str], optional: Iterable[str] = ()
) -> dict[str, Any]:
    """An object with these keys; further ones only where they say nothing."""
    if not isinstance(value, dict):
        raise refuse(f"Here stands {_kind(value)}, not an object", where)
    known = (*required, *optional)
    for key in required:
        if key not in value:
            raise refuse(f"The key {key} is missing", where)
    for key, part in value.items():
        if key not in known and part not in (None, False, "", [], {}):
            raise refuse(f"The key {shown(key)!r} is not one that is read", where)
    return {key: value[key] for key in known if key in value}


def mapping(value: Any, where: str, most: int) -> dict[str, Any]:
    """An object of names."""
    if not isinstance(value, dict):
        raise refuse(f"Here stands {_kind(value)}, not an object", where)
    if len(value) > most:
        raise refuse(f"There are {len(value)} entries, over {most}", where)
    return value


def variant(value: Any, where: str) -> tuple[str, Any]:
    """A union: an object with exactly one key, which says what its value is."""
    if not isinstance(value, dict) or len(value) != 1:
        raise refuse("Here stands no object with exactly one key", where)
    return next(iter(value.items()))


def listed(value: Any, where: str, read: Callable[[Any, str], T], most: int = 100_000) -> list[T]:
    """A list, each of its values read."""
    if not isinstance(value, list):
        raise refuse(f"Here stands {_kind(value)}, not a list", where)
    if len(value) > most:
        raise refuse(f"The list has {len(value)} values, over {most}", where)
    return [read(part, f"{where}[{index}]") for index, part in enumerate(value)]


def integer(value: Any, where: str, low: int = -LARGEST - 1, high: int = LARGEST) -> int:
    """An integer within bounds; True and False are none."""
    if type(value) is not int or not low <= value <= high:
        raise refuse(f"Here stands {_kind(value)}, not an integer in {low} to {high}", where)
    return value


def boolean(value: Any, where: str) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise refuse(f"Here stands {_kind(value)}, not true or false", where)
    return value


def number(value: Any, where: str) -> float | str:
    """A float, as JSON has it; torch writes those that JSON lacks as texts."""
    if value in ("Infinity", "-Infinity", "NaN") and isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise refuse(f"Here stands {_kind(value)}, not a number", where)
    return float(value)


def text(value: Any, where: str, pattern: str) -> str:
    """A text that matches a pattern as a whole."""
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise refuse(f"Here stands {_kind(value)}, not one that is read", where)
    return value


def identifier(value: Any, where: str) -> str:
    """A name that may become that of a variable: ASCII, no keyword, nothing Python knows."""
    if not isinstance(value, str) or not _IDENTIFIER.fullmatch(value):
        raise refuse(f"Here stands {_kind(value)}, not a name", where)
    if value.startswith("__") or value in RESERVED:
        raise refuse(f"The name {shown(value)!r} is reserved", where)
    return value


def path(value: Any, where: str) -> str:
    """A parameter's dotted path; parts may be numbers, none begins with two underscores."""
    parts = value.split(".") if isinstance(value, str) and len(value) <= 500 else []
    if not parts or len(parts) > 50 or not all(re.fullmatch(r"[A-Za-z0-9_\-]+", p) for p in parts):
        raise refuse(f"Here stands {_kind(value)}, not a parameter's path", where)
    if any(part.startswith("__") for part in parts):
        raise refuse(f"The path {shown(value)!r} is reserved", where)
    return str(value)


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return f"the text {shown(value)!r}"
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return f"{shown(json.dumps(value))}"


RESERVED = frozenset(
    (
        *keyword.kwlist,
        "self",
        "torch",
        "device",
        "inf",
        "nan",
        "NoneType",
        "fx_pytree",
        "pytree",
        "math",
        "operator",
        "eval",
        "exec",
        "getattr",
        "setattr",
        "globals",
        "locals",
        "vars",
    )
)
"""Names that generated code gives a meaning of its own."""
