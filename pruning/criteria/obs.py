"""Optimal Brain Surgeon (Hassibi and Stork 1992, eq. 5): s_q = w_q^2 / (2 [H^-1]_qq)."""

from torch import Tensor

from pruning.catalogue.criteria.obs import FULL_LIMIT, OBS
from pruning.criteria.problem import Problem
from pruning.curvature import Request
from pruning.errors import SecateurError
from pruning.solvers.obs import inverse_diagonal


def curvature(criterion: OBS, weights: int) -> Request:
    """The full Gauss-Newton matrix or blocks of the empirical Fisher matrix.

    Raises:
        SecateurError: `curvature_too_large` if `inverse: full` meets too many weights.
    """
    if criterion.resolve(weights) == "block_fisher":
        return Request("block_fisher", {"block": criterion.block})
    if weights > FULL_LIMIT:
        raise SecateurError(
            "curvature_too_large",
            f"inverse: full over {weights} weights; the limit is {FULL_LIMIT}.",
            where="spec.criterion.inverse",
            hint="Use inverse: block_fisher, or exclude layers from the scope.",
        )
    return Request("full")


def score(problem: Problem) -> Tensor:
    """Predicted increase of the loss for each weight alone, when all the others make up for it."""
    if problem.curvature is None:
        raise ValueError("OBS needs curvature")
    inverse = inverse_diagonal(problem.curvature, problem.damping)
    return problem.weights.square() / (2.0 * inverse)
