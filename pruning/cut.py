"""Which weights go in a step, and how all others change, by a criterion over the whole network."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from pruning.catalogue.criteria.obs import OBS
from pruning.choice import Selection, compensate, score, settled
from pruning.criteria import Problem
from pruning.curvature import Request, compute
from pruning.curvature.matrix import LINEAR, Matrix, average
from pruning.data.batches import ArrayData
from pruning.evidence import View, gather
from pruning.factorization import refusal
from pruning.job import Job, State
from pruning.registry import method
from pruning.schedule.step import Step
from pruning.solvers import damping as dampings
from pruning.solvers import greedy
from pruning.solvers.singular import SingularError
from pruning.spec import OneByOne
from pruning.sweep import best_damping

T = TypeVar("T")


@dataclass(frozen=True)
class Cut:
    """Which active weights go, with their scores [A], and how all of them change [A].

    `problem` is what the criterion knew; None where no weights were left, and layer-wise.
    `problem_scores` are its scores, [A]; None where a path of single removals has none. `macs` are
    the multiply-adds of the layers in scope over the calibration data, known layer-wise.
    """

    scores: Tensor
    removed: Tensor
    change: Tensor
    damping: float | None = None
    problem: Problem | None = None
    problem_scores: Tensor | None = None
    macs: int | None = None


@dataclass(frozen=True)
class _Known:
    """What runs that begin at the same weights share: what is made while none of these is gone."""

    job: Job
    whole: bool

    def __call__(self, what: str, key: str, make: Callable[[], T]) -> T:
        """`make()`, or what an earlier run made."""
        if not self.whole:
            return make()
        return self.job.shared(what, (key, self.job.spec.seed), make)


def apply(job: Job, old: Tensor, active: Tensor, cut: Cut) -> Tensor:
    """Write the changed weights; the change that is left of it in the weights' own dtypes."""
    new = old.clone()
    new[active] += cut.change
    new[active[cut.removed]] = 0.0
    new[job.existing.held] = 0.0
    job.weights.write(new)
    return job.weights.read() - old


def cut_by_way(job: Job, state: State, old: Tensor, active: Tensor, step: Step) -> Cut:
    """As `cut`, by way of the step's `via`: at each of them the rest is scored anew.

    The scores are those that weights went by, and the last ones for those that stay; problem and
    damping are the first ones, which refer to the weights that the step starts from.

    Args:
        job: The module is at the weights from which the step starts, and is left there.
        state: Takes the sweep of an automatic damping, of the first scoring alone.
        old: All weights in scope, shape [W], float64.
        active: Flat positions of those that are left, ascending, shape [A].
        step: Where it goes and by way of what.
    """
    made = cut(job, state, old, active, min([*step.via, step.removed]))
    scores, removed, change = made.scores.clone(), made.removed.clone(), made.change.clone()
    ways = [*step.via, step.removed][1:]
    for number, target in enumerate(ways, 1):
        job.narrator.progress(number, len(ways) + 1, "removals")
        left = (~removed).nonzero()[:, 0]
        new = old.clone()
        new[active] += change
        new[active[removed]] = 0.0
        job.weights.write(new)
        new = job.weights.read()
        more = cut(job, replace(state, sweep=[]), new, active[left], target)
        scores[left], removed[left] = more.scores, more.removed
        change[left] += more.change
    job.weights.write(old)
    return replace(made, scores=scores, removed=removed, change=change)


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
    known = _Known(job, whole=len(active) == len(job.existing.active))
    evidence = known("evidence", criterion.model_dump_json(), lambda: gather(criterion, view))
    problem = Problem(weights, evidence=evidence, criterion=criterion)
    if request is None:
        return _solve(job, problem, active, count, target)
    damping = getattr(criterion, "damping", 0.0)
    if damping == "auto":
        return _with_best_damping(job, state, request, problem, active, count, target)
    curvature: Matrix = known(
        "curvature",
        repr(request),
        lambda: compute(request, job.network(), job.data.calibration, job.loss, active, seed),
    )
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

    def of(data: ArrayData) -> Matrix:
        return compute(request, job.network(), data, job.loss, active, job.spec.seed)

    def both() -> Matrix:
        if not isinstance(rest_curvature, LINEAR):
            return of(job.data.calibration)
        held_curvature: Any = of(held)
        share = rest.samples / job.data.calibration.samples
        return average(rest_curvature, held_curvature, share)

    known = _Known(job, whole=len(active) == len(job.existing.active))
    rest_curvature = known("curvature of the rest", repr(request), lambda: of(rest))
    curvature = known("curvature by parts", repr(request), both)
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
    selection = Selection(job, scores, active)
    if job.budget is not None:
        count, target = settled(job, selection, target)
    removed = selection.removed(count, target)
    change = compensate(job, problem, removed, active)
    return Cut(scores, removed, change, problem=problem, problem_scores=scores)
