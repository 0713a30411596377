"""What is wrong with a spec, in plain words, with the place and the value that is."""

import re
import reprlib
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from pruning.errors import SecateurError
from pruning.spec.places import places, unions

_BOUNDS = {
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
}


def refusal(error: ValidationError) -> SecateurError:
    """`spec_conflict` if only parts that exclude each other are wrong, else `spec_invalid`."""
    messages: dict[str, list[str]] = {}
    found = error.errors(include_url=False)
    for e in found:
        place = _place(e["loc"])
        messages.setdefault(place, []).append(_explain(e, place))
    problems = [{"where": w, "message": " or: ".join(m)} for w, m in messages.items()]
    first = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return SecateurError(
        "spec_conflict" if all(e["type"] == "value_error" for e in found) else "spec_invalid",
        first["message"] + more,
        where=first["where"],
        hint="docs/spec.md and GET /v1/criteria list the fields and their values.",
        errors=problems,
    )


def _place(loc: tuple[int | str, ...]) -> str:
    """Dotted path of a wrong field, without the tags that pydantic puts in for unions."""
    place, tag = "spec", False
    for part in map(str, loc):
        if part.isdigit():
            place = f"{place}.{part}"
        elif tag:
            tag = False
        elif "[" not in part and not part.startswith("constrained-"):
            place = f"{place}.{part}"
            tag = _place_of_kind(place) in unions()
    return place


def _place_of_kind(place: str) -> str:
    """The place in the models: that of an entry of a list is that of the list."""
    return re.sub(r"\.\d+(?=\.|$)", "", place)


def _explain(error: Any, place: str) -> str:
    """What is wrong, in plain words and with the value that is."""
    place = _place_of_kind(place)
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return _stray_field(place, error["loc"])
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        bound = context[key]
        shown = f"{bound:g}" if isinstance(bound, float) else str(bound)
        return f"{_shown(error['input'])} is not {words} {shown}."
    if kind == "literal_error":
        return f"{_shown(error['input'])} is not {context['expected']}." + _did_you_mean(
            error["input"], re.findall(r"'([^']*)'", context["expected"])
        )
    if kind.startswith("union_tag") or (kind == "model_attributes_type" and place in places()):
        return _wrong_kind(place, error["input"])
    if kind == "model_type":
        return f"{place.rsplit('.', 1)[-1]} is a mapping, not {_shown(error['input'])}."
    return str(error["msg"]).removeprefix("Value error, ")


def _wrong_kind(place: str, given: Any) -> str:
    what, kinds = place.rsplit(".", 1)[-1], list(places().get(place, {}))
    listed = f" The kinds are {', '.join(kinds)}."
    if not isinstance(given, dict):
        if given in kinds:
            return f"{what} is a mapping: write {{kind: {given}}}."
        return f"{what} is a mapping with a kind, not {_shown(given)}.{listed}"
    if "kind" not in given:
        return f"{what} needs a kind.{listed}"
    kind = given["kind"]
    return f"There is no {what} of kind {_shown(kind)}.{_did_you_mean(kind, kinds)}{listed}"


def _stray_field(place: str, loc: tuple[int | str, ...]) -> str:
    parent, name = place.rsplit(".", 1)
    variants = places().get(parent, {})
    tag = str(loc[-2]) if len(loc) > 1 else ""
    here = variants.get(tag) or next(iter(variants.values()), None)
    nothing = f"There is no field {name!r} here."
    kinds = [kind for kind, part in variants.items() if name in part.model_fields]
    if kinds:
        return f"The field {name!r} belongs to kind: {' or '.join(kinds)}, not to kind: {tag}."
    if here is not None and (near := get_close_matches(name, here.model_fields, n=1)):
        return f"{nothing} Did you mean {near[0]!r}?"
    others: dict[str, str] = {}
    for where, found in places().items():
        for part in found.values():
            for field in part.model_fields.keys() - {"kind"}:
                others.setdefault(field, f"{where}.{field}".removeprefix("spec."))
    return nothing + _did_you_mean(name, others, others)


def _did_you_mean(given: Any, known: Iterable[str], shown: dict[str, str] | None = None) -> str:
    near = get_close_matches(given, list(known), n=1) if isinstance(given, str) else []
    return f" Did you mean {(shown or {}).get(near[0], near[0])!r}?" if near else ""


def _shown(value: Any) -> str:
    """A given value, cut where it is long."""
    return reprlib.repr(value)
