"""What a job is expected to do, phase by phase, before it does it."""

from dataclasses import replace
from typing import Any

from pruning.catalogue.about import Size
from pruning.catalogue.compensation.layerwise import Layerwise
from pruning.job import Job
from pruning.schedule.step import Step
from pruning.spec import BatchNorm, FineTune, OneShot, Proximal, Target
from pruning.study.rivals import modes, plain, rivals
from pruning.study.search import FIRST
from pruning.trust import work
from pruning.trust.assess import LADDER_SAMPLES, SPECTRUM_SAMPLES
from pruning.trust.bootstrap import AUTO
from pruning.trust.checks import PROBES, STEPS
from pruning.trust.ladder import RUNGS
from pruning.workload import Price, times

PROBES_MADE = 0.8
"""Of the most probes that a search may take, how many it does take, about."""

BACKWARD = 3.0
"""A forward and a backward pass, in forward passes."""

PRODUCT = 8.0
"""A product with the Hessian by itself, in forward passes."""

REDRAWN = 0.3
"""Scoring by drawn samples whose gradients are known, by scoring."""

MOST_REDRAWN = 2.0
"""The same for all that is drawn: a bootstrap that costs more is left out."""

FLOPS = 3e10
"""Floating-point operations of dense algebra a second."""

CALLED = 0.1
"""Seconds that second derivatives take whatever the network is."""


def expected_work(job: Job) -> dict[str, list[Price]]:
    """Visits of each phase of `prune`, priced in forward passes of one sample and in seconds.

    Only their proportions matter, and those of a kind only until one of its visits was clocked.
    """
    spec, steps = job.spec, _steps(job)
    calibration, evaluation = job.data.calibration.samples, job.data.evaluation.samples
    own = _runs(job)
    compared, aside = _compared(job)
    runs = own + compared
    recoveries = sum(step.recover for step in steps) if spec.recovery.kind != "none" else 0
    softened = int(isinstance(spec.schedule, Proximal))
    scored = _scored(job, steps)
    measured = calibration + (evaluation if job.metrics else 0)
    found = {
        "scoring": [*scored * runs, *aside],
        "pruning": times(own * len(steps), *_predicted(job)),  # a comparison predicts nothing
        "evaluating": times(1 + runs * (len(steps) + recoveries) + len(aside), measured),
        "recovering": times(runs * recoveries + softened, _recovered(job)),
    }
    trust = spec.trust
    if isinstance(spec.compensation, Layerwise) or not scored:
        return found
    if trust.checks:
        products = PROBES * STEPS * work.PRODUCT * min(calibration, SPECTRUM_SAMPLES)
        found["scoring.checks"] = times(1, products, 5 * CALLED)
    if trust.bootstrap:
        drawn = AUTO if trust.bootstrap == "auto" else trust.bootstrap
        redrawn = min(drawn * REDRAWN, MOST_REDRAWN) * scored[0].seconds
        found["scoring.bootstrap"] = times(1, scored[0].passes, redrawn)
    if trust.ladder:
        layers = len(job.weights.layers)
        alone = layers if 1 < layers <= trust.layers else 0
        # The products of the layers alone add up to that of the whole.
        rung = max(1, alone) * work.PRODUCT + 1 + alone
        passes = (work.GRADIENT + len(RUNGS) * rung) * min(calibration, LADDER_SAMPLES)
        found["scoring.ladder"] = times(1, passes, 5 * CALLED)
    return found


def _steps(job: Job) -> list[Step]:
    """The steps of a run; those of a search where it begins."""
    if job.spec.target.max_drop is None:
        return job.steps
    at = Target(sparsity=FIRST)
    return replace(job, spec=job.spec.model_copy(update={"target": at})).steps


def _runs(job: Job) -> int:
    """Runs of the schedule, those of a comparison aside."""
    asked, points = job.spec.target.max_drop, len(job.spec.curve.points)
    # The answer's first step is taken once more for its trust.
    return points + (1 if asked is None else round(PROBES_MADE * asked.probes) + 1)


def _compared(job: Job) -> tuple[int, list[Price]]:
    """What a comparison adds: runs of the schedule, and steps of runs in one shot."""
    spec = job.spec
    others, seeds = rivals(spec), spec.comparison.seeds
    if not others:
        return 0, []
    aside: list[Price] = []
    for seed in range(seeds):
        for criterion in (spec.criterion, *others):
            # Of its own criterion the job has run the first seed, if that was in one shot.
            if seed or criterion != spec.criterion or not isinstance(spec.schedule, OneShot):
                made = replace(job, spec=plain(spec, criterion))
                aside += _scored(made, _steps(made))
    return ((1 + len(others)) * seeds - 1 if True in modes(spec) else 0), aside


def _scored(job: Job, steps: list[Step]) -> list[Price]:
    """Each step's criterion and compensation, for the weights that are left by then."""
    found, gone, total = [], job.existing.removed, len(job.weights)
    for step in steps:
        parts = [_scored_once(job, total - at) for at in (gone, *step.via)]
        found.append(Price(sum(p.passes for p in parts), sum(p.seconds for p in parts)))
        gone = step.removed
    return found


def _scored_once(job: Job, active: int) -> Price:
    spec, weights = job.spec, job.weights
    parameters = sum(p.numel() for p in job.module.parameters())
    samples, facts = job.data.calibration.samples, job.facts
    size = Size(
        weights=active,
        parameters=parameters,
        samples=samples,
        outputs=1,
        macs=(facts.macs if facts else None) or parameters,
        layers=tuple(
            (p.groups, p.weight.shape[0] // p.groups, p.weight[0].numel()) for p in weights.layers
        ),
    )
    parts: list[Any] = [spec.criterion, spec.compensation]
    flops = sum(part.price(size).flops for part in parts)
    looks = bool(spec.criterion.about.needs) or isinstance(spec.compensation, Layerwise)
    return Price(BACKWARD * samples * looks, flops / FLOPS)


def _predicted(job: Job) -> tuple[float, float]:
    """Passes and seconds of one step's prediction."""
    if not job.predicts or isinstance(job.spec.compensation, Layerwise):
        return 0.0, 0.0
    return PRODUCT * job.data.calibration.samples, CALLED


def _recovered(job: Job) -> float:
    """Passes of one recovery."""
    options, samples = job.spec.recovery, job.data.training.samples
    if isinstance(options, FineTune):
        return options.epochs * samples * (BACKWARD + (1.0 if options.distill else 0.0))
    return float(samples) if isinstance(options, BatchNorm) else 0.0
