"""One line of JSON as one sample: bounded, of plain numbers and texts. Torch-free."""

import codecs
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pruning.data.labels import TARGET
from pruning.data.members import plain, shown
from pruning.data.text import Text
from pruning.errors import SecateurError
from pruning.formats.limits import Limits
from pruning.formats.safetensors import unique

HINT = 'One JSON object a line, for example {"text": "...", "label": 0}.'
_LABELS = ("label", TARGET)
_TEXT_KEYS = {"text", "text_pair", *_LABELS}


@dataclass(frozen=True)
class Sample:
    """One line; `place` is its number as messages have it."""

    place: str
    text: Text | None
    arrays: dict[str, np.ndarray]
    label: np.ndarray | str | None


def samples(path: Path, limits: Limits) -> Iterator[Sample]:
    """The samples of a file, line by line; blank lines are left out.

    Raises:
        SecateurError: `data_unreadable`, `data_too_large`, `data_dtype` or `data_non_finite`, with
            the line in `where`.
    """
    count = 0
    with path.open("rb") as file:
        if file.read(3) != codecs.BOM_UTF8:
            file.seek(0)
        while line := file.readline(limits.line_bytes + 1):
            count += 1
            place = f"line {count}"
            if len(line) > limits.line_bytes:
                raise SecateurError(
                    "data_too_large",
                    f"{place.capitalize()} has more than {limits.line_bytes} bytes.",
                    where=place,
                    hint="Cut texts to what the model reads; give large arrays as .npz.",
                )
            if count > limits.lines:
                raise SecateurError("data_too_large", f"There are more than {limits.lines} lines.")
            if line.strip():
                yield _sample(line, place, limits)


def _sample(line: bytes, place: str, limits: Limits) -> Sample:
    try:
        value = json.loads(line.decode(), object_pairs_hook=unique, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise unreadable(place, plain(error)) from None
    if not isinstance(value, dict):
        raise unreadable(place, "it is no JSON object")
    found = [key for key in _LABELS if key in value]
    if len(found) > 1:
        raise unreadable(place, "it has both label and target")
    label = _label(value.pop(found[0]), place, limits) if found else None
    if "text" in value:
        return Sample(place, _text(value, place), {}, label)
    if not value or len(value) > limits.arrays:
        raise unreadable(place, f"it has {len(value)} fields besides the label")
    arrays = {name: _numbers(v, name, place, limits) for name, v in value.items()}
    return Sample(place, None, arrays, label)


def _constant(text: str) -> Any:
    # Every such number is told as one that is not finite; see _numbers.
    return math.nan


def _text(value: dict[str, Any], place: str) -> Text:
    if unknown := sorted(value.keys() - _TEXT_KEYS):
        raise unreadable(place, f"the field {shown(unknown[0])!r} is not known beside text")
    for key, text in value.items():
        if not isinstance(text, str) or not text.strip():
            raise unreadable(place, f"{key} is empty or no text")
        if any(0xD800 <= ord(c) <= 0xDFFF for c in text):
            raise unreadable(place, f"{key} holds half of a surrogate pair")
    return (value["text"], value["text_pair"]) if "text_pair" in value else str(value["text"])


def _label(value: Any, place: str, limits: Limits) -> np.ndarray | str:
    if isinstance(value, str):
        return value
    numbers = _numbers(value, "label", place, limits)
    if numbers.dtype.kind == "b":
        raise SecateurError(
            "data_dtype", f"{place.capitalize()}: the label is true or false.", where=place,
            hint="Give class indices as whole numbers from 0.",
        )  # fmt: skip
    return numbers


def _numbers(value: Any, name: str, place: str, limits: Limits) -> np.ndarray:
    """A number, or nested lists of equal lengths, as int64, float64 or bool; all finite."""
    try:
        # NumPy would make a list of texts and numbers into as many texts of the longest's length.
        array = np.array(value) if _all_numbers(value) else np.array("")
    except (ValueError, OverflowError, RecursionError) as error:
        raise unreadable(place, f"{shown(name)!r} is no array ({plain(error)})") from None
    if array.dtype.kind not in "ifb" or array.ndim > limits.array_dims:
        raise SecateurError(
            "data_dtype",
            f"{place.capitalize()}: {shown(name)!r} is neither a number nor nested lists of them.",
            where=place,
            hint=HINT,
        )
    if not np.isfinite(array).all():
        raise SecateurError(
            "data_non_finite",
            f"{place.capitalize()}: {shown(name)!r} is or holds NaN or infinity.",
            where=place,
            hint="Remove or repair this sample.",
        )
    return array


def _all_numbers(value: Any) -> bool:
    """Whether nothing but numbers and lists of them is in it."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if type(part) is list:
            waiting += part
        elif type(part) not in (int, float, bool):
            return False
    return True


def unreadable(place: str, reason: str) -> SecateurError:
    """The error for a line that is not one to read."""
    return SecateurError(
        "data_unreadable",
        f"{place.capitalize()} can't be read: {reason}.",
        where=place,
        hint=HINT,
    )
