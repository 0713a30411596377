"""Optimal Brain Surgeon (Hassibi and Stork 1992, eq. 5): s_q = w_q^2 / (2 [H^-1]_qq)."""

from torch import Tensor

from pruning.catalogue.criteria.obs import FULL_LIMIT, OBS
from pruning.catalogue.curvature import HESSIAN_LIMIT
from pruning.criteria.problem import Problem
from pruning.curvature import Request
from pruning.errors import SecateurError
from pruning.solvers.obs import inverse_diagonal


def curvature(criterion: OBS, weights: int) -> Request:
    """The matrix that the declaration inverts.

    Raises:
        SecateurError: `curvature_too_large` if `inverse: full` meets too many weights.
    """
    kind = criterion.kind_of_curvature(weights)
    limit = {"full": FULL_LIMIT, "fisher": FULL_LIMIT, "hessian": HESSIAN_LIMIT}.get(kind, weights)
    if weights > limit:
        raise SecateurError(
            "curvature_too_large",
            f"inverse: full of curvature {criterion.curvature} over {weights} weights; the limit "
            f"is {limit}.",
            where="spec.criterion.inverse",
            hint="Use inverse: block_fisher, low_rank or kfac, or exclude layers from the scope.",
        )
    if kind == "block_fisher":
        return Request(kind, {"block": criterion.block})
    if kind == "low_rank":
        return Request(kind, {"samples": criterion.gradients}, seeded=True)
    return Request(kind)


def score(problem: Problem) -> Tensor:
    """Predicted increase of the loss for each weight alone, when all the others make up for it."""
    if problem.curvature is None:
        raise ValueError("OBS needs curvature")
    inverse = inverse_diagonal(problem.curvature, problem.damping)
    return problem.weights.square() / (2.0 * inverse)
