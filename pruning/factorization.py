"""What a user is told where the curvature can't be inverted: layer, rank, condition, what helps."""

import math
from typing import Any

from torch import Tensor

from pruning.errors import SecateurError
from pruning.layers import FlatWeights
from pruning.solvers.singular import SingularError


def refusal(
    weights: FlatWeights, failure: SingularError, active: Tensor, damping: float, criterion: Any
) -> SecateurError:
    """The failure of a solver as an error that a user can act on.

    Args:
        weights: The weights in scope.
        failure: What the solver raised; it knows active positions only.
        active: Flat positions of the active weights, shape [A].
        damping: Relative, with which it failed.
        criterion: Its declaration, for what can be changed.
    """
    groups = weights.group[active[failure.weights]]
    diagonal = failure.diagonal
    numbers = groups.unique().tolist()
    means = [float(diagonal[groups == n].mean()) for n in numbers]
    layer = weights.layers[min(zip(means, numbers, strict=True))[1]].layer
    size, known = len(failure.weights), failure.rank_and_condition()
    rank, condition = known if known is not None else (None, None)
    if known is not None:
        what = (
            f"The curvature over {size} weights has numerical rank {rank} and condition number "
            f"{condition:.1e} at damping {damping:g}"
        )
    else:
        bound = "" if failure.bound is None else f", condition number at most {failure.bound:.1e}"
        what = f"{failure.reason}, over {size} weights at damping {damping:g}{bound}"
    place = "in layer" if len(numbers) == 1 else "the least curvature is in layer"
    automatic = getattr(criterion, "damping", None) == "auto"
    return SecateurError(
        "factorization_failed",
        f"{what}; {place} {layer}.",
        where=layer,
        hint=(
            "Every damping that damping: auto tried failed: give more calibration samples, lower "
            "the sparsity, use allocation: {kind: uniform}, or exclude the layer."
            if automatic
            else "Use a larger criterion.damping or damping: auto, more calibration samples, or "
            "exclude the layer."
        ),
        rank=rank,
        condition=condition if condition is not None and math.isfinite(condition) else None,
        weights=size,
        damping=damping,
    )
