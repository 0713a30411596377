"""OBS as it was first meant: one weight at a time, each time the one that costs least then.

After weight q is gone the inverse of the survivors' curvature follows from the last one without a
new inversion, Hinv <- Hinv - Hinv[:,q] Hinv[q,:] / Hinv[q,q], and the weights move by
dw = -w_q / Hinv[q,q] Hinv[:,q] (Hassibi and Stork 1992, eq. 5). Between two computations of the
curvature the costs of the single steps add up to what removing their set at once would cost.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pruning.criteria.problem import Problem
from pruning.curvature.matrix import Dense
from pruning.errors import SecateurError
from pruning.solvers.null_space import free
from pruning.solvers.obs import SingularError, _cholesky, _damped


@dataclass(frozen=True)
class Deletion:
    """Weight `position` went at a predicted `cost`; `weights` are all weights after it, [A]."""

    position: int
    cost: float
    weights: Tensor


@dataclass(frozen=True)
class Path:
    """A finished path, all of shape [A].

    `scores` are the costs at which the removed weights went, and what the others would cost next.
    """

    scores: Tensor
    removed: Tensor
    change: Tensor


class Downdated:
    """(H + damping I)^-1 over a shrinking set of weights: inverted once, then only downdated.

    Args:
        curvature: H over A weights.
        damping: In the curvature's own units.

    Raises:
        SingularError: If the damped matrix can't be factorised.
    """

    def __init__(self, curvature: Dense, damping: float) -> None:
        self._damped = _damped(curvature.values, damping)
        everything = torch.arange(len(self._damped), device=self._damped.device)
        self.free = free(curvature, damping)
        factor = _cholesky(self._damped[None], everything[None], self.free[None])[0]
        self.values = torch.cholesky_inverse(factor)
        self.left = torch.ones(len(everything), dtype=torch.bool, device=everything.device)

    def saliencies(self, weights: Tensor) -> Tensor:
        """w_q^2 / (2 Hinv_qq), infinite for the weights that are gone, shape [A].

        Zero for those whose row of H is zero; see `pruning.solvers.null_space`.

        Raises:
            SingularError: Where rounding has used up the inverse's diagonal.
        """
        diagonal = self.values.diagonal()
        if not bool((diagonal[self.left] > 0).all()):
            at = self.left.nonzero()[:, 0]
            raise SingularError(at, self._damped[at][:, at])
        costs = (weights.square() / (2.0 * diagonal)).masked_fill(self.free, 0.0)
        return costs.masked_fill(~self.left, float("inf"))

    def cheapest(self, costs: Tensor) -> int:
        """The weight left of lowest cost, the first of equal ones."""
        costs = costs.masked_fill(~self.left, float("inf"))
        least = self.left & (costs == costs.min())
        return int(least.nonzero()[0, 0])

    def update(self, weights: Tensor, q: int) -> Tensor:
        """The weights once q is gone and the survivors made up for it, shape [A]."""
        moved = weights - weights[q] / self.values[q, q] * self.values[:, q]
        moved[q] = 0.0
        return moved

    def delete(self, q: int) -> None:
        """Take weight q out of the inverse: a rank-one downdate."""
        column = self.values[:, q].clone()
        self.values.addr_(column, column, alpha=-1.0 / float(column[q]))
        self.values[q, :] = 0.0
        self.values[:, q] = 0.0
        self.left[q] = False


def deletions(problem: Problem) -> Iterator[Deletion]:
    """The greedy path, weight by weight, until none is left; ties go to the lower position.

    Raises:
        SecateurError: `spec_conflict` if the curvature is not a dense matrix.
        SingularError: If the damped curvature can't be factorised.
    """
    inverse, weights = _inverse(problem), problem.weights.clone()
    for _ in range(len(weights)):
        costs = inverse.saliencies(weights)
        q = inverse.cheapest(costs)
        weights = inverse.update(weights, q)
        inverse.delete(q)
        yield Deletion(q, float(costs[q]), weights)


def path(problem: Problem, count: int) -> Path:
    """The first `count` deletions of the greedy path as one change.

    Raises:
        SecateurError: `spec_conflict` if the curvature is not a dense matrix.
        SingularError: If the damped curvature can't be factorised.
    """
    inverse, weights = _inverse(problem), problem.weights.clone()
    scores = inverse.saliencies(weights)
    for _ in range(count):
        q = inverse.cheapest(scores)
        weights = inverse.update(weights, q)
        inverse.delete(q)
        scores = torch.where(inverse.left, inverse.saliencies(weights), scores)
    return Path(scores, ~inverse.left, weights - problem.weights)


def _inverse(problem: Problem) -> Downdated:
    if not isinstance(problem.curvature, Dense):
        raise SecateurError(
            "spec_conflict",
            "schedule one_by_one downdates one inverse over all weights, and the curvature "
            f"is {type(problem.curvature).__name__}.",
            where="spec.schedule",
            hint="Use an inverse that is a full matrix, or schedule: {kind: one_shot}.",
        )
    return Downdated(problem.curvature, problem.damping)
