"""Which weights go and how the others move: criterion, allocation, pattern, compensation."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from pruning.allocation import Layers, split
from pruning.criteria import Problem
from pruning.evidence import View, input_norms
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
    wanted = method("allocation", spec.allocation.kind).quotas(
        spec.allocation, layers_of(job), target
    )
    shares = split(job.weights.group[active], job.weights.sizes, wanted, count)
    removed = torch.zeros(len(active), dtype=torch.bool, device=active.device)
    for positions, share in shares:
        removed[positions] = method("patterns", spec.pattern.kind).smallest(
            scores[positions], share
        )
    return removed


def layers_of(job: Job) -> Layers:
    """The layers in scope as an allocation sees them."""
    shapes = [tuple(p.weight.shape) for p in job.weights.layers]
    return Layers(shapes, outliers=partial(_outliers, job))


def _outliers(job: Job, threshold: float) -> list[float]:
    everything = torch.arange(len(job.weights), device=job.device)
    view = View(job.network(), job.data.calibration, job.loss, everything, job.spec.seed)
    products = job.weights.read().abs() * input_norms.compute(view)
    return [
        float((part > threshold * part.mean()).double().mean())
        for _, part in job.weights.by_layer(products)
    ]


def compensate(job: Job, problem: Problem, removed: Tensor) -> Tensor:
    """The change of all active weights for the removed set, shape [A].

    Raises:
        SingularError: If the survivors' curvature can't be factorised.
    """
    spec: Any = job.spec
    change: Tensor = method("solvers", spec.compensation.kind).compensate(problem, removed)
    return change
