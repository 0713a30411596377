"""From JSON or YAML values to a spec, or to a refusal in plain words."""

from typing import Any

from pydantic import ValidationError

from pruning import catalogue
from pruning.errors import SecateurError
from pruning.spec.extent import check_extent
from pruning.spec.places import places
from pruning.spec.refusal import refusal
from pruning.spec.spec import Spec


def default_spec(labelled: bool) -> dict[str, Any]:
    """The spec of a job that names none, by whether its calibration data have labels.

    Without labels half of the weights go layer by layer, and the dense model's own outputs stand in
    for the labels.
    """
    if labelled:
        return {}
    return {
        "objective": {"loss": "match_dense", "metrics": ["cosine"]},
        "compensation": {"kind": "layerwise"},
        "recovery": {"kind": "none"},
        "target": {"sparsity": 0.5},
    }


def parse_spec(data: Any) -> Spec:
    """The spec that JSON or YAML values describe.

    Raises:
        SecateurError: `not_available` for a method the design names but this version lacks,
            `spec_conflict` where two parts exclude each other, else `spec_invalid` with one
            entry a wrong field under `details.errors`.
    """
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise SecateurError(
            "spec_invalid", f"A spec is a mapping, not {type(data).__name__}.", where="spec"
        )
    check_extent(data)
    _refuse_planned(data)
    try:
        return Spec.model_validate(data)
    except ValidationError as error:
        raise refusal(error, data) from None


def _refuse_planned(data: dict[str, Any]) -> None:
    for field, kinds in catalogue.PLANNED.items():
        part = data.get(field)
        if not isinstance(part, dict):
            continue
        for kind in kinds:
            if kind == part.get("kind"):
                raise SecateurError(
                    "not_available",
                    f"{field} {kind} is planned, and this version does not have it.",
                    where=f"spec.{field}",
                    hint=f"There is: {_what_there_is(field)}.",
                )


def _what_there_is(field: str) -> str:
    return ", ".join(places()[f"spec.{field}"])
