"""Everything about trust in one go, at the dense weights, before the first weight is removed."""

from typing import Any

import torch

from pruning.choice import score, select
from pruning.criteria import Problem
from pruning.data.batches import ArrayData
from pruning.job import Job
from pruning.report.trust import Check, Trust
from pruning.trust import bootstrap, checks, ladder

LADDER_SAMPLES = 2_048
"""Calibration samples that the ladder, the gradient and dead inputs are measured on, at most."""

SPECTRUM_SAMPLES = 512
"""Calibration samples in the Hessian of the Lanczos runs, at most."""


def assess(job: Job, problem: Problem) -> tuple[Trust, list[Check]]:
    """What `spec.trust` asks for. The module is at the dense weights before and after.

    Args:
        job: Nothing of it has been pruned yet.
        problem: All weights in scope, with the criterion's curvature and the damping it takes.

    Returns:
        The report's section, and the checks before pruning.
    """
    options, trust, found = job.spec.trust, Trust(), []
    criterion: Any = job.spec.criterion
    some = _spread(job.data.calibration, LADDER_SAMPLES)
    if options.checks:
        everything = torch.arange(len(job.weights), device=job.device)
        scores = score(job, problem)
        removed = select(job, scores, everything, job.target, job.target)
        found = [
            checks.near_minimum(job, removed, some),
            *checks.negative_curvature(job, _spread(job.data.calibration, SPECTRUM_SAMPLES)),
            *checks.rank_and_condition(problem),
        ]
        enough = checks.samples_against_weights(job, problem, some)
        found += [] if enough is None else [enough]
        dead, trust.dead_inputs = checks.dead_inputs(job, some)
        found.append(dead)
    if options.bootstrap != 0:
        trust.bootstrap = bootstrap.resample(job, problem)
    if options.ladder and job.target:
        trust.ladder = ladder.climb(
            job, problem, some, in_loss_units=criterion.about.unit == "loss"
        )
    return trust, found


def _spread(data: ArrayData, most: int) -> ArrayData:
    """At most so many samples, evenly spread: data are often sorted by class."""
    if data.samples <= most:
        return data
    return data.select(torch.linspace(0, data.samples - 1, most, dtype=torch.float64).long())
