"""Which weights go in a step, and how all others change, by a criterion over the whole network."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pruning.catalogue.criteria.obs import OBS
from pruning.choice import compensate, score, select
from pruning.criteria import Problem
from pruning.curvature import Request, compute
from pruning.curvature.matrix import LINEAR, Matrix, average
from pruning.evidence import View, gather
from pruning.factorization import refusal
from pruning.job import Job, State
from pruning.registry import method
from pruning.solvers import damping as dampings
from pruning.solvers import greedy
from pruning.solvers.singular import SingularError
from pruning.spec import OneByOne
from pruning.sweep import best_damping


@dataclass(frozen=True)
class Cut:
    """Which active weights go, with their scores [A], and how all of them change [A].

    `problem` is what the criterion knew; None where no weights were left, and layer-wise. `macs`
    are the multiply-adds of the layers in scope over the calibration data, known layer-wise.
    """

    scores: Tensor
    removed: Tensor
    change: Tensor
    damping: float | None = None
    problem: Problem | None = None
    macs: int | None = None


def apply(job: Job, old: Tensor, active: Tensor, cut: Cut) -> Tensor:
    """Write the changed weights; the change that is left of it in the weights' own dtypes."""
    new = old.clone()
    new[active] += cut.change
    new[active[cut.removed]] = 0.0
    job.weights.write(new)
    return job.weights.read() - old


def cut(job: Job, state: State, old: Tensor, active: Tensor, target: int) -> Cut:
    """Score the active weights, choose which go, and let the compensation move the others.

    Args:
        job: The module is at the weights from which the step starts, and is left there.
        state: Takes the sweep of an automatic damping.
        old: All weights in scope, shape [W], float64.
        active: Flat positions of those that are left, ascending, shape [A].
        target: How many are gone in all afterwards.

    Raises:
        SecateurError: `factorization_failed` naming the layer, or what the curvature raises.
    """
    weights, count = old[active], target - (len(old) - len(active))
    if len(active) == 0:
        # A tiny network may be empty before the last step, and nothing has no curvature.
        return Cut(weights, torch.zeros_like(active, dtype=torch.bool), weights)
    criterion: Any = job.spec.criterion
    # Chosen by the weights in scope, so that all steps use the one that plan and report name.
    request: Request | None = method("criteria", criterion.kind).curvature(
        criterion, len(job.weights)
    )
    seed = job.spec.seed
    view = View(job.network(), job.data.calibration, job.loss, active, seed)
    problem = Problem(weights, evidence=gather(criterion, view), criterion=criterion)
    if request is None:
        return _solve(job, problem, active, count, target)
    damping = getattr(criterion, "damping", 0.0)
    if damping == "auto":
        return _with_best_damping(job, state, request, problem, active, count, target)
    curvature = compute(request, job.network(), job.data.calibration, job.loss, active, seed)
    absolute = dampings.absolute(damping, curvature)
    try:
        problem = replace(problem, curvature=curvature, damping=absolute)
        cut = _solve(job, problem, active, count, target)
    except SingularError as failure:
        raise refusal(job.weights, failure, active, damping, criterion) from None
    return replace(cut, damping=damping if hasattr(criterion, "damping") else None)


def _with_best_damping(
    job: Job,
    state: State,
    request: Request,
    bare: Problem,
    active: Tensor,
    count: int,
    target: int,
) -> Cut:
    """Compare dampings with the curvature of one part of the data on the other; then use both."""
    rest, held = job.held_out
    seed = job.spec.seed
    rest_curvature = compute(request, job.network(), rest, job.loss, active, seed)
    curvature: Matrix
    if isinstance(rest_curvature, LINEAR):
        held_curvature: Any = compute(request, job.network(), held, job.loss, active, seed)
        share = rest.samples / job.data.calibration.samples
        curvature = average(rest_curvature, held_curvature, share)
        del held_curvature
    else:
        curvature = compute(request, job.network(), job.data.calibration, job.loss, active, seed)
    old = job.weights.read()

    def solve(damping: float, known: Matrix) -> Cut:
        absolute = dampings.absolute(damping, known)
        problem = replace(bare, curvature=known, damping=absolute)
        try:
            return _solve(job, problem, active, count, target)
        except SingularError as failure:
            raise refusal(job.weights, failure, active, damping, job.spec.criterion) from None

    damping = best_damping(job, state, lambda d: apply(job, old, active, solve(d, rest_curvature)))
    return replace(solve(damping, curvature), damping=damping)


def _solve(job: Job, problem: Problem, active: Tensor, count: int, target: int) -> Cut:
    """Score, choose exactly `count` weights, and let the compensation move the others."""
    spec: Any = job.spec
    if isinstance(spec.schedule, OneByOne) and isinstance(spec.criterion, OBS):
        path = greedy.path(problem, count)
        return Cut(path.scores, path.removed, path.change, problem=problem)
    scores = score(job, problem)
    removed = select(job, scores, active, count, target)
    return Cut(scores, removed, compensate(job, problem, removed), problem=problem)
