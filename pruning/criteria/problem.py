"""What a criterion may look at."""

from dataclasses import dataclass

from torch import Tensor

from pruning.curvature.matrix import Matrix


@dataclass(frozen=True)
class Problem:
    """The active weights (in scope and not yet removed) and what is known of the loss around them.

    Args:
        weights: Shape [A], float64.
        curvature: Undamped, over the same A weights; None where the criterion asked for none.
        damping: Added to the diagonal before inverting, in the curvature's own units.
    """

    weights: Tensor
    curvature: Matrix | None = None
    damping: float = 0.0
