"""Which weights go and how the others move: criterion, allocation, pattern, compensation."""

from functools import cache, cached_property, partial
from typing import Any

import torch
from torch import Tensor

from pruning.allocation import Layers, lacking, largest_remainder, split
from pruning.budget import fewest
from pruning.catalogue.criteria.obs import OBS
from pruning.criteria import Problem
from pruning.curvature.form import quadratic_form
from pruning.evidence import View, input_norms
from pruning.job import Job
from pruning.patterns.groups import groups_of, lowest_of_each
from pruning.patterns.shape import layer_pattern
from pruning.patterns.unstructured import smallest
from pruning.registry import method

NEAR = 16
"""Counts below the one found that are looked at too where layers are given shares: their rounding
may make the cost rise by a weight or so where one more goes."""


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
    return Selection(job, scores, active).removed(count, target)


class Selection:
    """What would go of the active weights, whatever their number.

    Args:
        job: Its spec names allocation and pattern.
        scores: Saliencies of the active weights, shape [A].
        active: Their flat positions, ascending, shape [A].
    """

    def __init__(self, job: Job, scores: Tensor, active: Tensor) -> None:
        pattern: Any = job.spec.pattern
        self.job, self.scores, self.active = job, scores, active
        self.shape = layer_pattern(pattern)
        # Zeros of the upload come first where a group loses some of its weights.
        self.zero = job.existing.held[active]
        # Groups of weights are chosen as single weights are, each with the sum of its scores.
        self.members = groups_of(job.weights.layers, active, self.shape)
        members = self.members
        self.worth = scores if members is None else scores[members].sum(1)
        self.number = job.weights.group[active if members is None else active[members[:, 0]]]
        self.size = self.shape.rows * self.shape.columns
        self.sizes = [n // self.size for n in job.weights.sizes]
        self.layers = layers_of(job)

    def removed(self, count: int, target: int) -> Tensor:
        """True for the weights that go if `count` of them do and `target` are gone then, [A]."""
        members, worth = self.members, self.worth
        if self.shape.kind == "nm":
            assert members is not None
            scores = self.scores.masked_fill(self.zero, -torch.inf)
            return lowest_of_each(scores, members, self.shape.columns - self.shape.keep)
        gone = torch.zeros(len(worth), dtype=torch.bool, device=self.active.device)
        wanted = self._wanted(target)
        for positions, share in split(self.number, self.sizes, wanted, count // self.size):
            gone[positions] = smallest(worth[positions], share)
        if members is None:
            return gone
        removed = torch.zeros(len(self.active), dtype=torch.bool, device=self.active.device)
        removed[members[gone].flatten()] = True
        return removed

    def kept(self, count: int, target: int) -> list[int]:
        """How many of each layer stay then, without choosing them where shares are given."""
        now, wanted = self._left, self._wanted(target)
        if wanted is None:
            first = self.number[self._order[: count // self.size]]
            gone = torch.bincount(first, minlength=len(self.sizes)).tolist()
        else:
            gone = largest_remainder(lacking(wanted, self.sizes, now), count // self.size)
        return [self.size * (a - k) for a, k in zip(now, gone, strict=True)]

    @property
    def shared_out(self) -> bool:
        """Whether layers are given shares, rather than one threshold for all."""
        return self._wanted(len(self.scores)) is not None

    @cached_property
    def _left(self) -> list[int]:
        found: list[int] = torch.bincount(self.number, minlength=len(self.sizes)).tolist()
        return found

    @cached_property
    def _order(self) -> Tensor:
        """As `smallest` takes them."""
        return self.worth.argsort(stable=True)

    def _wanted(self, target: int) -> list[float] | None:
        quotas = _quotas(self.job, self.layers, target)
        return None if quotas is None else [q / self.size for q in quotas]


def settled(job: Job, selection: Selection, target: int) -> tuple[int, int]:
    """The fewest weights whose removal meets a step's part of the budget.

    Args:
        job: With a budget. Its target, under which all layers are pruned alike, is the whole way
            from the weights there are to the budget, so that a count is a part of that way.
        selection: Of the weights that are left.
        target: How many would be gone afterwards if layers were pruned alike.

    Returns:
        How many go now, and how many are gone in all afterwards.
    """
    budget = job.budget
    assert budget is not None
    allowed = budget.allowed(job.way(target))
    before = len(job.weights) - len(selection.active)
    after = fewest(
        lambda gone: budget.of(selection.kept(gone - before, gone)) <= allowed,
        before,
        len(job.weights),
        selection.size,
        NEAR if selection.shared_out else 0,
    )
    return after - before, after


def quotas_of(job: Job, active: Tensor, count: int, target: int, layers: Layers) -> list[int]:
    """How many weights of each layer go now, where each is to be pruned by itself.

    Args:
        job: Its spec names allocation and pattern.
        active: Flat positions of the weights that are left, ascending, shape [A].
        count: How many go now.
        target: How many are gone in all afterwards.
        layers: As the allocation sees them.
    """
    pattern: Any = job.spec.pattern
    shape = layer_pattern(pattern)
    size = 1 if shape.kind == "nm" else shape.rows * shape.columns
    quotas = _quotas(job, layers, target)
    if quotas is None:
        raise ValueError("one threshold over all layers chooses no number for each")
    kept = torch.bincount(job.weights.group[active], minlength=len(layers.sizes)).tolist()
    lacks = lacking(quotas, job.weights.sizes, kept)
    # A budget other than the number of weights decides by itself how many go.
    whole = count if abs(sum(quotas) - target) < 0.5 else round(sum(lacks))
    return [size * n for n in largest_remainder([k / size for k in lacks], whole // size)]


def _quotas(job: Job, layers: Layers, target: int) -> list[float] | None:
    allocation: Any = job.spec.allocation
    found: list[float] | None = method("allocation", allocation.kind).quotas(
        allocation, layers, target
    )
    return found


def layers_of(job: Job) -> Layers:
    """The layers in scope as an allocation sees them."""
    shapes = [tuple(p.weight.shape) for p in job.weights.layers]
    return Layers(shapes, outliers=cache(partial(_outliers, job)))


def _outliers(job: Job, threshold: float) -> list[float]:
    everything = torch.arange(len(job.weights), device=job.device)
    view = View(job.network(), job.data.calibration, job.loss, everything, job.spec.seed)
    products = job.weights.read().abs() * input_norms.compute(view)
    return [
        float((part > threshold * part.mean()).double().mean())
        for _, part in job.weights.by_layer(products)
    ]


def compensate(job: Job, problem: Problem, removed: Tensor, active: Tensor) -> Tensor:
    """The change of all active weights for the removed set, shape [A].

    Weights that were zero in the upload stay so, whether they are in the set or not.

    Args:
        job: Its spec names the compensation.
        problem: What the criterion knew.
        removed: True for the weights that go, shape [A].
        active: Flat positions of the active weights, ascending, shape [A].

    Raises:
        SingularError: If the survivors' curvature can't be factorised.
    """
    spec: Any = job.spec
    zero = removed | job.existing.held[active]
    change: Tensor = method("solvers", spec.compensation.kind).compensate(problem, zero)
    return change


def own_prediction(
    job: Job, problem: Problem, scores: Tensor, removed: Tensor, change: Tensor
) -> float | None:
    """What the criterion itself predicts a removal to cost; None if not in units of the loss.

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
