"""What a criterion may look at."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from pruning.curvature.matrix import Matrix


@dataclass(frozen=True)
class Problem:
    """The active weights (in scope and not yet removed) and what is known of the loss around them.

    Args:
        weights: Shape [A], float64.
        curvature: Undamped, over the same A weights; None where the criterion asked for none.
        damping: Added to the diagonal before inverting, in the curvature's own units.
        evidence: What the criterion asked for of `pruning.evidence`, by kind, each of shape [A].
        criterion: Its declaration, for its parameters.
    """

    weights: Tensor
    curvature: Matrix | None = None
    damping: float = 0.0
    evidence: Mapping[str, Tensor] = field(default_factory=dict)
    criterion: Any = None
