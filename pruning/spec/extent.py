"""How large a spec may be: found out before anything of it is read.

What a wrong field costs to explain, and a pattern to match, is bounded by these.
"""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from pruning.errors import SecateurError

MOST_VALUES = 2_000
"""Keys and values of a spec, all levels together."""

LONGEST_TEXT = 1_000
"""Characters of one key or text."""

DEEPEST = 16
"""Mappings and lists within each other."""

LARGEST = 2**63
"""What no whole number of a spec reaches, either way."""

MOST_PATTERNS = 256

Pattern = Annotated[str, Field(min_length=1, max_length=256)]
"""A shell pattern over names of layers."""


def check_extent(data: Any) -> None:
    """Refuses a spec that is larger than any that is meant.

    Args:
        data: JSON or YAML values.

    Raises:
        SecateurError: `spec_invalid`.
    """
    ahead: list[Iterator[tuple[str, Any]]] = [iter([("spec", data)])]
    seen = 0
    while ahead:
        where, value = next(ahead[-1], (None, None))
        if where is None:
            ahead.pop()
            continue
        seen += 1
        if seen > MOST_VALUES:
            raise _too_large(f"more than {MOST_VALUES:,} keys and values", "spec")
        if isinstance(value, str) and len(value) > LONGEST_TEXT:
            raise _too_large(f"a text of {len(value):,} characters", where)
        if isinstance(value, int) and abs(value) >= LARGEST:
            raise _too_large("a whole number of 19 digits or more", where)
        if not isinstance(value, dict | list | tuple):
            continue
        if len(ahead) > DEEPEST:
            raise _too_large(f"more than {DEEPEST} levels of mappings and lists", where)
        ahead.append(_entries(where, value))


def _entries(where: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        for number, entry in enumerate(value):
            yield f"{where}.{number}", entry
        return
    for key, entry in value.items():
        if isinstance(key, str) and len(key) > LONGEST_TEXT:
            raise _too_large(f"a key of {len(key):,} characters", where)
        yield f"{where}.{key}", entry


def _too_large(what: str, where: str) -> SecateurError:
    return SecateurError(
        "spec_invalid",
        f"The spec has {what}.",
        where=where,
        hint=f"A spec has at most {MOST_VALUES:,} keys and values, {LONGEST_TEXT:,} characters in "
        f"a text, {DEEPEST} levels, and whole numbers below 2^63. Many layers are "
        "named by a shell pattern: encoder.*",
    )
