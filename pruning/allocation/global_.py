"""One threshold for the whole network, or one marginal price where layers have their ladders."""

from pruning.allocation import Layers
from pruning.allocation.ladder import by_marginal
from pruning.spec import GlobalAllocation


def quotas(options: GlobalAllocation, layers: Layers, target: int) -> list[float] | None:
    """None, so that scores decide; with ladders, the counts of equal marginal loss."""
    return None if layers.ladders is None else by_marginal(layers.ladders(), target)
