"""Everything about trust in one go, at the dense weights, before the first weight is removed.

Trust takes no more than the rest of the job unless the spec asks for all of it. Both are counted in
operations (`pruning.trust.work`), so that a report holds the same on every run.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pruning.choice import score, select
from pruning.criteria import Problem
from pruning.data.batches import ArrayData
from pruning.job import Job
from pruning.report.trust import Check, DeadInputs, LeftOut, Part, Trust
from pruning.trust import bootstrap, checks, ladder
from pruning.trust.conditioning import rank_and_condition
from pruning.trust.directions import Directions
from pruning.trust.work import EVERY_JOB, Work, prices

LADDER_SAMPLES = 2_048
"""Calibration samples that the ladder, the gradient and dead inputs are measured on, at most."""

SPECTRUM_SAMPLES = 512
"""Calibration samples in the Hessian of the Lanczos runs, at most."""

LATER = "it would make trust take longer than the rest of the job; trust: {budget: all} asks for it"
"""Why a part is left out."""


@dataclass(frozen=True)
class _Samples:
    """What the parts are measured on."""

    ladder: ArrayData
    spectrum: ArrayData


def assess(job: Job, problem: Problem, scores: Tensor | None = None) -> tuple[Trust, list[Check]]:
    """What `spec.trust` asks for. The module is at the dense weights before and after.

    Args:
        job: Nothing of it has been pruned yet.
        problem: All weights that may go, with the criterion's curvature and the damping it takes.
        scores: Scores of the problem, shape [A]; computed where left out.

    Returns:
        The report's section, and the checks before pruning.
    """
    options, trust = job.spec.trust, Trust()
    if not (options.checks or options.bootstrap != 0 or options.ladder):
        return trust, []
    calibration = job.data.calibration
    data = _Samples(_spread(calibration, LADDER_SAMPLES), _spread(calibration, SPECTRUM_SAMPLES))
    parts = _chosen(job, problem, data, trust)
    found: list[Check] = []
    criterion: Any = job.spec.criterion
    scores = score(job, problem) if scores is None else scores
    model, removal = Directions(job, data.ladder), _removal(job, scores)
    if options.checks:
        model.announce(removal)
    if "ladder" in parts:
        with job.narrator.part("ladder"):
            trust.ladder = ladder.climb(
                job,
                problem,
                data.ladder,
                in_loss_units=criterion.about.unit == "loss",
                layers_left_out=_by_layer_left_out(job, parts),
                scores=scores,
                model=model,
            )
    if options.checks:
        with job.narrator.part("checks"):
            found = [checks.near_minimum(model, removal, job.target - job.existing.removed)]
            more, trust.dead_inputs = _check(job, problem, data, parts)
            found += more
    if options.bootstrap != 0:
        with job.narrator.part("bootstrap"):
            left_out = None if "bootstrap" in parts else LATER
            trust.bootstrap = bootstrap.resample(job, problem, scores, left_out)
    return trust, found


def _chosen(job: Job, problem: Problem, data: _Samples, trust: Trust) -> set[Part]:
    """The parts that are done, those that say most for their price first; the others are noted."""
    options, work = job.spec.trust, Work(job)
    asked = prices(work, problem, data.ladder.samples, data.spectrum)
    trust.rest = work.rest()
    allowed = max(EVERY_JOB, trust.rest)
    chosen: set[Part] = set()
    for part, price in asked.items():
        # A number of resamples is asked for by name.
        said = options.budget == "all" or (part == "bootstrap" and options.bootstrap != "auto")
        first = part == "gradient_and_inputs"
        if said or first or trust.operations + price <= allowed:
            chosen.add(part)
            trust.operations += price
        else:
            trust.left_out.append(LeftOut(part=part, operations=price))
    return chosen


def _by_layer_left_out(job: Job, parts: set[Part]) -> str | None:
    if "ladder_by_layer" in parts:
        return None
    return ladder.too_many_layers(job) or LATER


def _removal(job: Job, scores: Tensor) -> Tensor:
    """The change that sets the weights of least saliency to zero and moves no other, shape [W]."""
    active, count = job.existing.active, job.target - job.existing.removed
    removed = torch.zeros(len(job.weights), dtype=torch.bool, device=job.device)
    removed[active] = select(job, scores, active, count, job.target)
    return torch.where(removed, -job.weights.read(), 0.0)


def _check(
    job: Job, problem: Problem, data: _Samples, parts: set[Part]
) -> tuple[list[Check], list[DeadInputs]]:
    """What is asked of the curvature, the samples and the inputs of the layers."""
    found: list[Check] = []
    if "negative_curvature" in parts:
        found += checks.negative_curvature(job, data.spectrum)
    if "curvature_rank" in parts:
        found += rank_and_condition(problem)
    enough = checks.samples_against_weights(job, problem)
    found += [] if enough is None else [enough]
    dead, inputs = checks.dead_inputs(job, data.ladder)
    return [*found, dead], inputs


def _spread(data: ArrayData, most: int) -> ArrayData:
    """At most so many samples, evenly spread: data are often sorted by class."""
    if data.samples <= most:
        return data
    return data.select(torch.linspace(0, data.samples - 1, most, dtype=torch.float64).long())
