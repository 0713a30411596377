"""Predicted and measured increase of the loss at 10, 20, ..., 100 % of the target.

Every rung starts from the dense weights and goes there with what is known of the loss at these, by
the criterion's scores and with its compensation, so that it says how far one quadratic model
reaches. Where the schedule is one_by_one and the criterion obs, a rung is that much of the greedy
path, its inverse downdated from deletion to deletion and the curvature never computed anew.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from pruning.catalogue.criteria.obs import OBS
from pruning.choice import compensate, own_prediction, score, select
from pruning.criteria import Problem
from pruning.curvature.derivatives import lacks_derivative
from pruning.curvature.quadratic import along, gradient
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError
from pruning.job import Job
from pruning.metrics import evaluate
from pruning.report.trust import Ladder, LayerLadder, Rung
from pruning.schedule.step import removal_count
from pruning.solvers import greedy
from pruning.solvers.obs import SingularError
from pruning.spec import NM, OneByOne

RUNGS = tuple(i / 10 for i in range(1, 11))
"""Heights, as shares of the target."""

OWN_FACTOR = 1.1
"""How far a criterion's own prediction may be off: the 10 % of LeCun, Denker and Solla 1989."""


NEGLIGIBLE = 1e-5
"""Increases of at most this share of the largest on the ladder decide nothing: where a dead unit
wakes up, the model foretells zero and the truth is some millionth."""


@dataclass(frozen=True)
class _Step:
    """From the dense weights to one rung, all of shape [A]; `scores` are those it was chosen by."""

    removed: Tensor
    change: Tensor
    scores: Tensor

    def own(self, job: Job, problem: Problem, here: Tensor | None = None) -> float | None:
        """The criterion's own prediction, for all of the step or for the weights `here` alone."""
        removed, change = self.removed, self.change
        if here is not None:
            removed, change = removed & here, torch.where(here, change, 0.0)
        return own_prediction(job, problem, self.scores, removed, change)


@dataclass(frozen=True)
class _Ground:
    """The dense network on the samples that the ladder stands on.

    `gradient` is None where torch can't differentiate the network, and then nothing is predicted.
    """

    job: Job
    data: ArrayData
    weights: Tensor
    gradient: Tensor | None
    loss: float

    def rung(self, change: Tensor, removed: int, total: int, own: float | None) -> Rung:
        """Predict and measure one change of the weights, shape [W]."""
        job = self.job
        first = second = float("nan")
        if self.gradient is not None:
            first = float(self.gradient @ change)
            second = 0.5 * float(
                change @ along(job.network(), self.data, job.loss, change[None]).products[0]
            )
        moved = bool(change.any())
        measured, error = 0.0, None
        if moved:
            try:
                job.weights.write(self.weights + change)
                measured = evaluate(job.module, self.data, job.loss).loss - self.loss
            except SecateurError as failure:
                measured, error = float("nan"), str(failure)
            finally:
                job.weights.write(self.weights)
        return Rung(
            sparsity=removed / total,
            removed=removed,
            first_order=first,
            second_order=second,
            predicted=first + second,
            measured=measured,
            own=own,
            error=error,
        )


def _heights(job: Job, shares: Sequence[float]) -> list[int]:
    """Weights gone at each rung: whole groups of the pattern, and all of n:m or nothing."""
    pattern, start = job.spec.pattern, job.existing.removed
    if isinstance(pattern, NM):
        return [job.target]
    return [start + removal_count(share, job.target - start, pattern.unit) for share in shares]


def climb(
    job: Job,
    problem: Problem,
    data: ArrayData,
    *,
    in_loss_units: bool,
    shares: Sequence[float] = RUNGS,
) -> Ladder:
    """Measure every rung. The module is at the dense weights before and after.

    Args:
        job: Its spec says what is removed and how.
        problem: All weights that may go, with the criterion's curvature and damping.
        data: Samples to predict and measure on.
        in_loss_units: Whether the criterion's scores are increases of the loss.
        shares: Heights, as shares of the target, ascending.
    """
    weights, options = job.weights, job.spec.trust
    old, active = weights.read(), job.existing.active
    loss = evaluate(job.module, data, job.loss).loss
    slope, why_not = _gradient(job, data)
    ground = _Ground(job, data, old, slope, loss)
    own_factor = OWN_FACTOR
    epsilon = max(torch.finfo(p.weight.dtype).eps for p in weights.layers)
    measured_layers = len(weights.layers) <= options.layers
    rungs: list[Rung] = []
    layers: list[list[Rung]] = [[] for _ in weights.layers]
    counts = _heights(job, shares)
    for number, (count, step) in enumerate(zip(counts, _steps(job, problem, counts), strict=True)):
        job.narrator.progress(number, len(counts), "ladder")
        if isinstance(step, SingularError):
            nothing = Rung(sparsity=count / len(weights), removed=count, error=str(step))
            rungs.append(nothing)
            for group in layers if measured_layers else []:
                group.append(nothing.model_copy())
            continue
        removed, moved = job.existing.gone.clone(), torch.zeros_like(old)
        removed[active], moved[active] = step.removed, step.change
        change = _rounded(job, old, moved, removed)
        rungs.append(ground.rung(change, count, len(old), step.own(job, problem)))
        for index, size in enumerate(weights.sizes if measured_layers else []):
            here = weights.group == index
            layers[index].append(
                ground.rung(
                    torch.where(here, change, 0.0),
                    int(removed[here].sum()),
                    size,
                    step.own(job, problem, here[active]),
                )
            )
    largest = max((abs(r.measured) for r in rungs if r.measured is not None), default=0.0)
    resolution = max(4.0 * epsilon * abs(loss), NEGLIGIBLE * largest)
    return Ladder(
        samples=data.samples,
        factor=options.factor,
        own_factor=own_factor,
        resolution=resolution,
        not_predicted=why_not,
        rungs=rungs,
        holds_up_to=holds_up_to(rungs, "predicted", options.factor, resolution),
        own_holds_up_to=(
            holds_up_to(rungs, "own", own_factor, resolution) if in_loss_units else None
        ),
        layers=[
            LayerLadder(
                name=layer.layer,
                rungs=found,
                holds_up_to=holds_up_to(found, "predicted", options.factor, resolution),
                own_holds_up_to=(
                    holds_up_to(found, "own", own_factor, resolution) if in_loss_units else None
                ),
            )
            for layer, found in zip(weights.layers, layers, strict=True)
        ]
        if measured_layers
        else [],
        layers_left_out=(
            None
            if measured_layers
            else f"{len(layers)} layers are in scope, and each alone is measured with at most "
            f"{options.layers} (spec.trust.layers)"
        ),
    )


def _gradient(job: Job, data: ArrayData) -> tuple[Tensor | None, str | None]:
    """The gradient; where torch can't differentiate once and then again along it, the reason."""
    try:
        found = gradient(job.network(), data, job.loss)
        some = data.select(slice(0, 1))
        along(job.network(), some, job.loss, torch.ones_like(found)[None])
    except SecateurError as failure:
        if not lacks_derivative(failure):
            raise
        return None, failure.message
    return found, None


def _steps(job: Job, problem: Problem, counts: Sequence[int]) -> Iterator[_Step | SingularError]:
    """One for each of `counts`, ascending; what could not be solved in the place of a step."""
    spec: Any = job.spec
    if isinstance(spec.schedule, OneByOne) and isinstance(spec.criterion, OBS):
        yield from _along_the_path(problem, [n - job.existing.removed for n in counts])
        return
    active = job.existing.active
    scores = score(job, problem)
    for count in counts:
        removed = select(job, scores, active, count - job.existing.removed, count)
        try:
            change = compensate(job, problem, removed, active)
        except SingularError as failure:
            yield failure
            continue
        yield _Step(removed, change, scores)


def _along_the_path(problem: Problem, counts: Sequence[int]) -> Iterator[_Step | SingularError]:
    """Stops on one walk down the greedy path, where a deletion's score is its cost then."""
    old = problem.weights
    removed = torch.zeros(len(old), dtype=torch.bool, device=old.device)
    weights, costs = old, torch.zeros_like(old)
    path = greedy.deletions(problem)
    stuck: SingularError | None = None
    done = 0
    for count in counts:
        try:
            for deletion in islice(path, count - done):
                removed[deletion.position] = True
                costs[deletion.position] = deletion.cost
                weights = deletion.weights
        except SingularError as failure:
            stuck = failure
        done = count
        yield stuck or _Step(removed.clone(), weights - old, costs.clone())


def _rounded(job: Job, old: Tensor, change: Tensor, removed: Tensor) -> Tensor:
    """The change that is left of it in the weights' own dtypes, removed weights exactly zero."""
    job.weights.write(torch.where(removed, 0.0, old + change))
    try:
        return job.weights.read() - old
    finally:
        job.weights.write(old)


def holds(foretold: float | None, measured: float | None, factor: float, floor: float) -> bool:
    """Whether one number foretells the other within `factor` of the increase itself.

    Where both are at most `floor` they are too small to tell, and nothing speaks against it.
    """
    if foretold is None or measured is None:
        return False
    if abs(foretold) <= floor and abs(measured) <= floor:
        return True
    if foretold * measured <= 0:
        return False
    return max(foretold / measured, measured / foretold) <= factor


def holds_up_to(rungs: Sequence[Rung], field: str, factor: float, floor: float) -> float:
    """Sparsity of the last rung before the first at which the prediction fails; 0 if at once."""
    last = 0.0
    for rung in rungs:
        if not holds(getattr(rung, field), rung.measured, factor, floor):
            break
        last = rung.sparsity
    return last
