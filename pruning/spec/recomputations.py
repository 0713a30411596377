"""How often schedule one_shot scores the weights where the spec leaves it open."""

from typing import TYPE_CHECKING, Any

from pruning.catalogue.compensation.layerwise import Layerwise
from pruning.spec.pattern import NM

if TYPE_CHECKING:
    from pruning.spec.spec import Spec


def by_itself(spec: "Spec") -> tuple[int, str]:
    """What `recomputations: auto` stands for, and why."""
    criterion: Any = spec.criterion
    if isinstance(spec.pattern, NM):
        return 1, "pattern nm takes one step"
    if isinstance(spec.compensation, Layerwise):
        return 1, "each layer is pruned for its own outputs, in one walk through the network"
    count = criterion.about.scorings
    if count == 1:
        return (
            1,
            f"scores of {criterion.kind} would gain nothing from being computed again on the way",
        )
    return count, f"scores of {criterion.kind} change as weights are removed"
