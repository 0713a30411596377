"""What is wrong with a spec, in plain words, with the place and the value that is."""

import re
import reprlib
from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pruning.errors import SecateurError
from pruning.near_miss import near_miss
from pruning.spec.places import mappings, places, unions

_EXPLAINED = 50
_COMPARED = 8
"""Wrong fields for which near names are looked for, which is what an explanation takes longest."""

_BOUNDS = {
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
}


class _Wrong(NamedTuple):
    """A field that is wrong.

    Args:
        place: Its path, as the user would write it.
        model: Its place in the models, as `places` has it.
        error: Pydantic's entry for it.
        compared: Whether near names are looked for.
    """

    place: str
    model: str
    error: ErrorDetails
    compared: bool


def refusal(error: ValidationError, data: dict[Any, Any]) -> SecateurError:
    """`spec_conflict` if only parts that exclude each other are wrong, else `spec_invalid`.

    Args:
        error: Of pydantic.
        data: What was read.
    """
    messages: dict[str, list[str]] = {}
    found = error.errors(include_url=False)
    for number, e in enumerate(found[:_EXPLAINED]):
        wrong = _Wrong(*_places(e["loc"], data), e, number < _COMPARED)
        messages.setdefault(wrong.place, []).append(_explain(wrong))
    problems = [{"where": w, "message": " or: ".join(m)} for w, m in messages.items()]
    first = problems[0]
    others = len(problems) - 1 + max(0, len(found) - _EXPLAINED)
    return SecateurError(
        "spec_conflict" if all(e["type"] == "value_error" for e in found) else "spec_invalid",
        first["message"] + (f" (and {others} more)" if others else ""),
        where=first["where"],
        hint="docs/spec.md and GET /v1/criteria list the fields and their values.",
        errors=problems,
    )


def _places(loc: tuple[int | str, ...], data: Any) -> tuple[str, str]:
    """The path of a wrong field in what was given, and its place in the models.

    Pydantic puts the tags of unions into its path, and names of types where several are taken: a
    part is one of the user's where the values have it.
    """
    given, model, value = ["spec"], ["spec"], data
    tag = named = False
    for last, part in ((n == len(loc) - 1, part) for n, part in enumerate(loc)):
        if isinstance(part, int):
            given.append(str(part))
            value = _within(value, part)
        elif tag:
            tag = False
        elif named:
            named = False
            given.append(part)
            value = _within(value, part)
        elif part == "[key]" and ".".join(model) in mappings():
            continue  # the key before it is what is wrong
        elif _within(value, part) is not None or (last and isinstance(value, dict)):
            given.append(part)
            model.append(part)
            value = _within(value, part)
            place = ".".join(model)
            tag, named = place in unions(), place in mappings()
    return ".".join(given), ".".join(model)


def _within(value: Any, part: int | str) -> Any:
    """What lies there; None where nothing does."""
    if isinstance(value, dict):
        return value.get(part)
    if isinstance(part, int) and isinstance(value, list | tuple) and part < len(value):
        return value[part]
    return None


def _explain(wrong: _Wrong) -> str:
    """What is wrong, in plain words and with the value that is."""
    place, error = wrong.model, wrong.error
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return _stray_field(wrong)
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        bound = context[key]
        shown = f"{bound:g}" if isinstance(bound, float) else str(bound)
        return f"{_shown(error['input'])} is not {words} {shown}."
    if kind == "literal_error":
        expected = context["expected"]
        near = _did_you_mean(wrong, error["input"], re.findall(r"'([^']*)'", expected))
        return f"{_shown(error['input'])} is not {expected}.{near}"
    if kind.startswith("union_tag") or (kind == "model_attributes_type" and place in places()):
        return _wrong_kind(wrong)
    if kind == "model_type":
        return f"{wrong.place.rsplit('.', 1)[-1]} is a mapping, not {_shown(error['input'])}."
    return str(error["msg"]).removeprefix("Value error, ")


def _wrong_kind(wrong: _Wrong) -> str:
    given = wrong.error["input"]
    what, kinds = wrong.model.rsplit(".", 1)[-1], list(places().get(wrong.model, {}))
    listed = f" The kinds are {', '.join(kinds)}."
    if not isinstance(given, dict):
        if isinstance(given, str) and given in kinds:
            return f"{what} is a mapping: write {{kind: {given}}}."
        return f"{what} is a mapping with a kind, not {_shown(given)}.{listed}"
    if "kind" not in given:
        return f"{what} needs a kind.{listed}"
    kind = given["kind"]
    near = _did_you_mean(wrong, kind, kinds)
    return f"There is no {what} of kind {_shown(kind)}.{near}{listed}"


def _stray_field(wrong: _Wrong) -> str:
    loc = wrong.error["loc"]
    name, parent = str(loc[-1]), wrong.model.removesuffix(f".{loc[-1]}")
    variants = places().get(parent, {})
    tag = str(loc[-2]) if len(loc) > 1 else ""
    here = variants.get(tag) or next(iter(variants.values()), None)
    nothing = f"There is no field {_shown(name)} here."
    kinds = [kind for kind, part in variants.items() if name in part.model_fields]
    if kinds:
        return f"The field {name!r} belongs to kind: {' or '.join(kinds)}, not to kind: {tag}."
    if here is not None and (near := _did_you_mean(wrong, name, here.model_fields)):
        return nothing + near
    return nothing + _did_you_mean(wrong, name, *_elsewhere())


@cache
def _elsewhere() -> tuple[tuple[str, ...], dict[str, str]]:
    """Every field of a spec, and the first place that has it."""
    found: dict[str, str] = {}
    for where, variants in places().items():
        for part in variants.values():
            for field in part.model_fields.keys() - {"kind"}:
                found.setdefault(field, f"{where}.{field}".removeprefix("spec."))
    return tuple(found), found


def _did_you_mean(
    wrong: _Wrong, given: Any, known: Iterable[str], shown: dict[str, str] | None = None
) -> str:
    near = near_miss(given, known) if wrong.compared else None
    return "" if near is None else f" Did you mean {(shown or {}).get(near, near)!r}?"


def _shown(value: Any) -> str:
    """A given value, cut where it is long."""
    return reprlib.repr(value)
