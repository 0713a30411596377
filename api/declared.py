"""What an upload says of the axes of a model's inputs, checked before anything is stored."""

from collections.abc import Iterable

from pydantic import ValidationError

from pruning.axes import as_inputs, parse_declared
from pruning.errors import SecateurError
from pruning.facts import SampleAxis
from pruning.spec.inputs import Input

_WHERE = "samples"
WRITTEN = r"^.+=(shared|0*([0-9]|[1-5][0-9]|6[0-3]))$"
"""How a declaration is written: INPUT=AXIS or INPUT=shared."""


def declared_axes(options: Iterable[str]) -> dict[str, SampleAxis]:
    """The axis of the samples by input.

    Raises:
        SecateurError: `invalid_request` for what is no declaration, for an axis that no input has,
            and for an input of which two are said.
    """
    found: dict[str, SampleAxis] = {}
    for option in options:
        (name, axis), *_ = parse_declared([option], _WHERE).items()
        try:
            Input.model_validate(as_inputs({name: axis})[name])
        except ValidationError:
            raise _refusal(f"No input has as many axes as {option[:80]!r} needs.") from None
        if found.setdefault(name, axis) != axis:
            raise _refusal(f"Two axes are said of the input {name[:80]!r}.")
    return found


def _refusal(message: str) -> SecateurError:
    return SecateurError(
        "invalid_request",
        message,
        where=_WHERE,
        hint="Write INPUT=AXIS once for an input, axes counted from 0.",
    )
