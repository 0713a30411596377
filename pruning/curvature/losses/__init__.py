"""Losses as second-order theory needs them: per sample, with a square root of the output Hessian.

The objective is always L(w) = 1/N sum_n l(f(x_n; w), y_n). For each l there is a matrix S(z, y)
with S S' = d2 l / dz dz', in closed form, so that no factorisation of the output Hessian is needed
and the Gauss-Newton matrix is G = 1/N sum_n J_n' S_n S_n' J_n. S depends on the target only through
the positions that it leaves out.
"""

from pruning.curvature.losses.binary_cross_entropy import BinaryCrossEntropy
from pruning.curvature.losses.causal_lm import IGNORED, CausalLM
from pruning.curvature.losses.cross_entropy import CrossEntropy
from pruning.curvature.losses.loss import Loss, required
from pruning.curvature.losses.match_dense import MatchDense, MatchDenseKL
from pruning.curvature.losses.squared_error import MeanSquaredError
from pruning.spec import Objective

__all__ = [
    "IGNORED",
    "LOSSES",
    "BinaryCrossEntropy",
    "CausalLM",
    "CrossEntropy",
    "Loss",
    "MatchDense",
    "MatchDenseKL",
    "MeanSquaredError",
    "loss_of",
    "required",
]

LOSSES: dict[str, Loss] = {
    loss.name: loss
    for loss in (
        CrossEntropy(),
        MeanSquaredError(),
        BinaryCrossEntropy(),
        CausalLM(),
        MatchDense(),
    )
}
"""By the name that `objective.loss` uses; `match_dense` with its squared distance."""


def loss_of(objective: Objective) -> Loss:
    """The loss that an objective describes."""
    if objective.loss == "match_dense" and objective.distance == "kl":
        return MatchDenseKL()
    return LOSSES[objective.loss]
