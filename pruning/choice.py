"""Which weights go and how the others move: criterion, allocation, pattern, compensation."""

from typing import Any

import torch
from torch import Tensor

from pruning.catalogue.criteria.obs import OBS
from pruning.criteria import Problem
from pruning.curvature.form import quadratic_form
from pruning.job import Job
from pruning.registry import method


def score(job: Job, problem: Problem) -> Tensor:
    """The saliency of every active weight by the spec's criterion, shape [A]."""
    spec: Any = job.spec
    scores: Tensor = method("criteria", spec.criterion.kind).score(problem)
    return scores


def select(job: Job, scores: Tensor, active: Tensor, count: int, target: int) -> Tensor:
    """Choose exactly `count` of the active weights, as allocation and pattern say.

    Args:
        job: Its spec names them.
        scores: Saliencies of the active weights, shape [A].
        active: Their flat positions, ascending, shape [A].
        count: How many go now.
        target: How many are gone in all afterwards.

    Returns:
        True for the weights that go, shape [A].
    """
    spec: Any = job.spec
    shares = method("allocation", spec.allocation.kind).shares(
        job.weights.group[active], job.weights.sizes, count, target
    )
    removed = torch.zeros(len(active), dtype=torch.bool, device=active.device)
    for positions, share in shares:
        removed[positions] = method("patterns", spec.pattern.kind).smallest(
            scores[positions], share
        )
    return removed


def compensate(job: Job, problem: Problem, removed: Tensor) -> Tensor:
    """The change of all active weights for the removed set, shape [A].

    Raises:
        SingularError: If the survivors' curvature can't be factorised.
    """
    spec: Any = job.spec
    change: Tensor = method("solvers", spec.compensation.kind).compensate(problem, removed)
    return change


def own_prediction(
    job: Job, problem: Problem, scores: Tensor, removed: Tensor, change: Tensor
) -> float | None:
    """What the criterion itself foretells a removal to cost; None if not in units of the loss.

    For OBS it is 1/2 dw'(H + damping I)dw of the whole change, with the criterion's own H; at its
    minimum over the survivors that is 1/2 w_Q' ([(H + damping I)^-1]_QQ)^-1 w_Q, no sum of single
    deletions. For any other criterion it is the sum of the saliencies.

    Args:
        job: Its spec names the criterion.
        problem: What the criterion knew.
        scores: Saliencies of the active weights, shape [A].
        removed: True for the removed set Q, shape [A].
        change: dw of all active weights, shape [A].
    """
    criterion: Any = job.spec.criterion
    if criterion.about.unit != "loss":
        return None
    if isinstance(criterion, OBS) and problem.curvature is not None:
        damped = problem.damping * float(change @ change)
        return 0.5 * (quadratic_form(problem.curvature, change) + damped)
    return float(scores[removed].sum())
