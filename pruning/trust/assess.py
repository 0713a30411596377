"""Everything about trust in one go, at the dense weights, before the first weight is removed."""

from typing import Any

import torch

from pruning.choice import score, select
from pruning.criteria import Problem
from pruning.data.batches import ArrayData
from pruning.job import Job
from pruning.report.trust import Check, DeadInputs, Trust
from pruning.trust import bootstrap, checks, ladder
from pruning.trust.conditioning import rank_and_condition

LADDER_SAMPLES = 2_048
"""Calibration samples that the ladder, the gradient and dead inputs are measured on, at most."""

SPECTRUM_SAMPLES = 512
"""Calibration samples in the Hessian of the Lanczos runs, at most."""


def assess(job: Job, problem: Problem) -> tuple[Trust, list[Check]]:
    """What `spec.trust` asks for. The module is at the dense weights before and after.

    Args:
        job: Nothing of it has been pruned yet.
        problem: All weights that may go, with the criterion's curvature and the damping it takes.

    Returns:
        The report's section, and the checks before pruning.
    """
    options, trust = job.spec.trust, Trust()
    found: list[Check] = []
    criterion: Any = job.spec.criterion
    some = _spread(job.data.calibration, LADDER_SAMPLES)
    if options.checks:
        with job.narrator.part("checks"):
            found, trust.dead_inputs = _check(job, problem, some)
    if options.bootstrap != 0:
        with job.narrator.part("bootstrap"):
            trust.bootstrap = bootstrap.resample(job, problem)
    if options.ladder and job.target > job.existing.removed:
        in_loss_units = criterion.about.unit == "loss"
        with job.narrator.part("ladder"):
            trust.ladder = ladder.climb(job, problem, some, in_loss_units=in_loss_units)
    return trust, found


def _check(job: Job, problem: Problem, some: ArrayData) -> tuple[list[Check], list[DeadInputs]]:
    active, count = job.existing.active, job.target - job.existing.removed
    removed = torch.zeros(len(job.weights), dtype=torch.bool, device=job.device)
    removed[active] = select(job, score(job, problem), active, count, job.target)
    found = [
        checks.near_minimum(job, removed, some),
        *checks.negative_curvature(job, _spread(job.data.calibration, SPECTRUM_SAMPLES)),
        *rank_and_condition(problem),
    ]
    enough = checks.samples_against_weights(job, problem)
    found += [] if enough is None else [enough]
    dead, inputs = checks.dead_inputs(job, some)
    return [*found, dead], inputs


def _spread(data: ArrayData, most: int) -> ArrayData:
    """At most so many samples, evenly spread: data are often sorted by class."""
    if data.samples <= most:
        return data
    return data.select(torch.linspace(0, data.samples - 1, most, dtype=torch.float64).long())
