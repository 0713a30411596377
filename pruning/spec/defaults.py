"""What parts of a spec are where it leaves them open, given the others."""

from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from pruning.spec.pattern import NM


def filled(spec: dict[str, Any]) -> dict[str, Any]:
    """The spec with the parts that follow from others.

    The compensation is the OBS update for criterion obs and none for others; the criterion and
    allocation of layer-wise pruning are its own; a pattern n:m fixes the target; soft pruning ends
    by magnitude, and what goes at initialisation goes by snip.
    """
    found = dict(spec)
    if _kind(spec.get("pattern")) == "nm":
        found.setdefault("allocation", {"kind": "uniform"})
        with suppress(ValidationError):
            pattern = NM.model_validate(spec["pattern"])
            found.setdefault("target", {"sparsity": pattern.sparsity})
    schedule = _kind(spec.get("schedule"))
    if schedule == "at_initialisation":
        found.setdefault("criterion", {"kind": "snip"})
        found.setdefault("compensation", {"kind": "none"})
    elif schedule == "proximal":
        found.setdefault("criterion", {"kind": "magnitude"})
    if _kind(spec.get("compensation")) == "layerwise":
        for field, value in _with_layerwise(spec["compensation"]).items():
            found.setdefault(field, value)
    elif "compensation" not in found:
        obs = _kind(found.get("criterion", {"kind": "obs"})) == "obs"
        found["compensation"] = {"kind": "obs" if obs else "none"}
    return found


def _kind(part: Any) -> Any:
    return part.get("kind") if isinstance(part, dict) else getattr(part, "kind", None)


def _with_layerwise(compensation: Any) -> dict[str, Any]:
    """What goes with layer-wise pruning."""
    given = compensation if isinstance(compensation, dict) else compensation.model_dump()
    chooses = given.get("solver", "auto") != "least_squares"
    criterion: dict[str, Any] = {"kind": "layer_obs" if chooses else "wanda"}
    if chooses and given.get("damping", "auto") != "auto":
        criterion["damping"] = given["damping"]
    return {
        "criterion": criterion,
        "allocation": {"kind": "global" if chooses else "uniform"},
    }
