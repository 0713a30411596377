"""Predicted and measured increase of the loss at 10, 20, ..., 100 % of the target.

Every rung starts from the dense weights and goes there with what is known of the loss at these, by
the criterion's scores and with its compensation, so that it says how far one quadratic model
reaches. Where the schedule is one_by_one and the criterion obs, a rung is that much of the greedy
path, its inverse downdated from deletion to deletion and the curvature never computed anew.
"""

import math
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
from pruning.curvature.quadratic import QuadraticModel
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError
from pruning.job import Job
from pruning.metrics import evaluate
from pruning.report.trust import Ladder, LayerLadder, Rung
from pruning.schedule.step import removal_count
from pruning.solvers import greedy
from pruning.solvers.obs import SingularError
from pruning.spec import NM, OneByOne
from pruning.trust.directions import Directions

RUNGS = tuple(i / 10 for i in range(1, 11))
"""Heights, as shares of the target."""

BYTES = 128 * 2**20
"""What the directions of several rungs, and the products with them, may take together."""

OWN_FACTOR = 1.1
"""How far a criterion's own prediction may be off: the 10 % of LeCun, Denker and Solla 1989."""


NEGLIGIBLE = 1e-5
"""Increases of at most this share of the largest on the ladder decide nothing: where a dead unit
wakes up, the model predicts zero and the truth is some millionth."""


Terms = tuple[float, float]
"""g.dw and 1/2 dw'Hdw."""


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
class _Rise:
    """What one rung of the whole network and of each layer alone is about.

    Args:
        removed: Weights removed.
        total: Weights there are, of the network or of the layer.
        own: The criterion's own prediction.
    """

    removed: int
    total: int
    own: float | None


@dataclass
class _Ground:
    """The dense network on the samples that the ladder stands on.

    `not_predicted` says why nothing is, where torch can't differentiate the network.
    """

    job: Job
    data: ArrayData
    model: Directions
    weights: Tensor
    loss: float
    not_predicted: str | None = None

    def predicted(self, changes: list[Tensor], *, by_layer: bool) -> list[list[Terms]]:
        """g.dw and 1/2 dw'Hdw of some changes [W], as many in one pass as memory allows.

        Returns:
            For each change the terms of the whole, and after these of each layer's part.
        """
        group, layers = self.job.weights.group, len(self.job.weights.layers)
        by_layer = by_layer and layers > 1
        parts = [(change, layer) for change in range(len(changes))
                 for layer in (range(layers) if by_layer else [None])]  # fmt: skip
        alone: list[list[Terms]] = [[] for _ in changes]
        whole = [0.0] * len(changes)
        slope = None
        for start in range(0, len(parts), _directions_at_once(self.job)):
            some = parts[start : start + _directions_at_once(self.job)]
            model = self._along(torch.stack([_part(changes[c], group, at) for c, at in some]))
            if model is None:
                return [[(math.nan, math.nan)] * (1 + layers * by_layer) for _ in changes]
            slope = model.gradient
            for (number, layer), product in zip(some, model.products, strict=True):
                part = _part(changes[number], group, layer)
                alone[number].append((float(slope @ part), 0.5 * float(part @ product)))
                whole[number] += 0.5 * float(changes[number] @ product)
        return [
            [(float(slope @ change), second), *(terms if by_layer else [])]
            for change, second, terms in zip(changes, whole, alone, strict=True)
            if slope is not None
        ]

    def _along(self, directions: Tensor) -> QuadraticModel | None:
        """The quadratic model; None where there is none, which is then remembered."""
        if self.not_predicted is None:
            try:
                return self.model.along(directions)
            except SecateurError as failure:
                if not lacks_derivative(failure):
                    raise
                self.not_predicted = failure.message
        return None

    def rung(self, change: Tensor, about: _Rise, predicted: Terms) -> Rung:
        """Measure one change of the weights, shape [W]."""
        measured, error = 0.0, None
        if bool(change.any()):
            try:
                self.job.weights.write(self.weights + change)
                after = evaluate(self.job.module, self.data, self.job.loss).loss
                measured = after - self.loss
            except SecateurError as failure:
                measured, error = math.nan, str(failure)
            finally:
                self.job.weights.write(self.weights)
        first, second = predicted
        return Rung(
            sparsity=about.removed / about.total,
            removed=about.removed,
            first_order=first,
            second_order=second,
            predicted=first + second,
            measured=measured,
            own=about.own,
            error=error,
        )


def heights(job: Job, shares: Sequence[float]) -> list[int]:
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
    layers_left_out: str | None = None,
    scores: Tensor | None = None,
    model: Directions | None = None,
) -> Ladder:
    """Measure every rung. The module is at the dense weights before and after.

    Args:
        job: Its spec says what is removed and how.
        problem: All weights that may go, with the criterion's curvature and damping.
        data: Samples to predict and measure on.
        in_loss_units: Whether the criterion's scores are increases of the loss.
        shares: Heights, as shares of the target, ascending.
        layers_left_out: Why no layer is measured alone, if none is.
        scores: Saliencies of these, where they are known already, shape [A].
        model: Takes the products, on `data`, with those of other parts.
    """
    weights, options = job.weights, job.spec.trust
    old, active = weights.read(), job.existing.active
    known = job.dense.measured if data is job.data.calibration else None
    loss = evaluate(job.module, data, job.loss).loss if known is None else known.loss.loss
    ground = _Ground(job, data, model or Directions(job, data), old, loss)
    epsilon = max(torch.finfo(p.weight.dtype).eps for p in weights.layers)
    layers_left_out = layers_left_out or too_many_layers(job)
    rungs: list[Rung] = []
    layers: list[list[Rung]] = [[] for _ in weights.layers]
    counts = heights(job, shares)
    by_layer = layers_left_out is None
    rows = len(weights.layers) if by_layer else 1
    climbed = zip(counts, _steps(job, problem, counts, scores), strict=True)
    while some := [*islice(climbed, max(1, _directions_at_once(job) // rows))]:
        job.narrator.progress(len(rungs), len(counts), "ladder", whole=True)
        changes = [_change(job, old, step) for _, step in some if isinstance(step, _Step)]
        told = iter(zip(changes, ground.predicted(changes, by_layer=by_layer), strict=True))
        for count, step in some:
            if isinstance(step, SingularError):
                nothing = Rung(sparsity=count / len(weights), removed=count, error=str(step))
                rungs.append(nothing)
                for group in layers if by_layer else []:
                    group.append(nothing.model_copy())
                continue
            change, terms = next(told)
            removed = job.existing.gone.clone()
            removed[active] = step.removed
            about = _Rise(count, len(old), step.own(job, problem))
            rungs.append(ground.rung(change, about, terms[0]))
            for index, size in enumerate(weights.sizes if by_layer else []):
                here = weights.group == index
                about = _Rise(int(removed[here].sum()), size, step.own(job, problem, here[active]))
                if len(weights.layers) == 1:
                    # The layer alone is the network.
                    layers[0].append(rungs[-1].model_copy(update={"own": about.own}))
                else:
                    part = torch.where(here, change, 0.0)
                    layers[index].append(ground.rung(part, about, terms[1 + index]))
    largest = max((abs(r.measured) for r in rungs if r.measured is not None), default=0.0)
    resolution = max(4.0 * epsilon * abs(loss), NEGLIGIBLE * largest)
    return Ladder(
        samples=data.samples,
        factor=options.factor,
        own_factor=OWN_FACTOR,
        resolution=resolution,
        not_predicted=ground.not_predicted,
        rungs=rungs,
        holds_up_to=holds_up_to(rungs, "predicted", options.factor, resolution),
        own_holds_up_to=(
            holds_up_to(rungs, "own", OWN_FACTOR, resolution) if in_loss_units else None
        ),
        layers=[
            LayerLadder(
                name=layer.layer,
                rungs=found,
                holds_up_to=holds_up_to(found, "predicted", options.factor, resolution),
                own_holds_up_to=(
                    holds_up_to(found, "own", OWN_FACTOR, resolution) if in_loss_units else None
                ),
            )
            for layer, found in zip(weights.layers, layers, strict=True)
        ]
        if by_layer
        else [],
        layers_left_out=layers_left_out,
    )


def too_many_layers(job: Job) -> str | None:
    """Why the ladder of each layer alone is left out, where there are too many of them."""
    layers, most = len(job.weights.layers), job.spec.trust.layers
    if layers <= most:
        return None
    return (
        f"{layers} layers are in scope, and each alone is measured with at most {most} "
        "(spec.trust.layers)"
    )


def _part(change: Tensor, group: Tensor, layer: int | None) -> Tensor:
    """A layer's part of a change, or all of it."""
    return change if layer is None else torch.where(group == layer, change, 0.0)


def _directions_at_once(job: Job) -> int:
    """Directions that fit in memory together with the products."""
    return max(1, BYTES // (16 * len(job.weights)))


def _steps(
    job: Job, problem: Problem, counts: Sequence[int], scores: Tensor | None
) -> Iterator[_Step | SingularError]:
    """One for each of `counts`, ascending; what could not be solved in the place of a step."""
    spec: Any = job.spec
    if isinstance(spec.schedule, OneByOne) and isinstance(spec.criterion, OBS):
        yield from _along_the_path(problem, [n - job.existing.removed for n in counts])
        return
    active = job.existing.active
    scores = score(job, problem) if scores is None else scores
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


def _change(job: Job, old: Tensor, step: _Step) -> Tensor:
    """A step of the weights that may go as a change of all in scope, shape [W]."""
    removed, moved = job.existing.gone.clone(), torch.zeros_like(old)
    removed[job.existing.active], moved[job.existing.active] = step.removed, step.change
    return _rounded(job, old, moved, removed)


def _rounded(job: Job, old: Tensor, change: Tensor, removed: Tensor) -> Tensor:
    """The change that is left of it in the weights' own dtypes, removed weights exactly zero."""
    job.weights.write(torch.where(removed, 0.0, old + change))
    try:
        return job.weights.read() - old
    finally:
        job.weights.write(old)


def holds(predicted: float | None, measured: float | None, factor: float, floor: float) -> bool:
    """Whether one number predicts the other within `factor` of the increase itself.

    Where both are at most `floor` they are too small to tell, and nothing speaks against it.
    """
    if predicted is None or measured is None:
        return False
    if abs(predicted) <= floor and abs(measured) <= floor:
        return True
    if predicted * measured <= 0:
        return False
    return max(predicted / measured, measured / predicted) <= factor


def holds_up_to(rungs: Sequence[Rung], field: str, factor: float, floor: float) -> float:
    """Sparsity of the last rung before the first at which the prediction fails; 0 if at once."""
    last = 0.0
    for rung in rungs:
        if not holds(getattr(rung, field), rung.measured, factor, floor):
            break
        last = rung.sparsity
    return last
