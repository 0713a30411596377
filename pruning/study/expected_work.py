"""What a job is expected to do, phase by phase, before it does it."""

from typing import Any

from pruning.catalogue.about import Declaration, Size
from pruning.catalogue.compensation.layerwise import Layerwise
from pruning.job import Job
from pruning.schedule.step import Step, planned_steps, removal_count, scorings
from pruning.spec import BatchNorm, FineTune, OneShot, Proximal, Spec
from pruning.study.rivals import modes, plain, rivals
from pruning.study.search import FIRST
from pruning.trust.bootstrap import AUTO
from pruning.trust.checks import PROBES, STEPS
from pruning.trust.ladder import RUNGS
from pruning.workload import Planned

PROBES_MADE = 0.8
"""Of the most probes that a search may take, how many it does take, about."""

BACKWARD = 3.0
"""A forward and a backward pass, in forward passes."""

PRODUCT = 8.0
"""A product with the Hessian, in forward passes."""

REDRAWN = 0.3
"""Scoring by drawn samples whose gradients are known, by scoring."""

FLOPS = 1e10
"""Floating-point operations of dense algebra a second."""

CALLED = 0.1
"""Seconds that second derivatives take whatever the network is."""


def expected_work(job: Job) -> dict[str, Planned]:
    """Visits of each phase of `prune`, priced in forward passes of one sample.

    Only their proportions matter, and only until a visit of the kind was clocked.
    """
    spec, steps = job.spec, _steps(job)
    calibration, evaluation = job.data.calibration.samples, job.data.evaluation.samples
    own = _runs(job)
    compared, aside = _compared(job)
    runs = own + compared
    recoveries = sum(step.recover for step in steps) if spec.recovery.kind != "none" else 0
    softened = int(isinstance(spec.schedule, Proximal))
    passes, solved = _scored(job)
    measured = calibration + (evaluation if job.metrics else 0)
    found = {
        "scoring": Planned(runs * len(steps) + aside, passes, solved),
        "pruning": _predicted(job, own * len(steps)),  # a comparison predicts nothing
        "evaluating": Planned(1 + runs * (len(steps) + recoveries) + aside, measured),
        "recovering": Planned(runs * recoveries + softened, _recovered(job)),
    }
    trust = spec.trust
    if isinstance(spec.compensation, Layerwise):
        return found
    product = PRODUCT * calibration
    if trust.checks:
        found["scoring.checks"] = Planned(1, PROBES * STEPS * product, 5 * CALLED)
    if trust.bootstrap:
        times = AUTO if trust.bootstrap == "auto" else trust.bootstrap
        found["scoring.bootstrap"] = Planned(1, passes, times * REDRAWN * solved)
    if trust.ladder:
        layers = len(job.weights.layers)
        networks = 1 + (layers if layers <= trust.layers else 0)
        found["scoring.ladder"] = Planned(
            1, len(RUNGS) * networks * (product + calibration), 5 * CALLED
        )
    return found


def _steps(job: Job) -> list[Step]:
    """The steps of a run; those of a search where it begins."""
    spec, total = job.spec, len(job.weights)
    if spec.target.max_drop is None:
        return job.steps
    unit = spec.pattern.unit
    return planned_steps(spec.schedule, total, removal_count(FIRST, total, unit), unit)


def _runs(job: Job) -> float:
    """Runs of the schedule, those of a comparison aside."""
    asked, points = job.spec.target.max_drop, len(job.spec.curve.points)
    # The answer's first step is taken once more for its trust.
    return points + (1.0 if asked is None else PROBES_MADE * asked.probes + 1.0)


def _compared(job: Job) -> tuple[int, int]:
    """What a comparison adds: runs of the schedule, and steps of runs in one shot."""
    spec = job.spec
    others, seeds = rivals(spec), spec.comparison.seeds
    if not others:
        return 0, 0
    # Of its own criterion the job has run the first seed, if that was in one shot.
    own = seeds - int(isinstance(spec.schedule, OneShot))
    aside = own * _shots(spec, spec.criterion)
    aside += seeds * sum(_shots(spec, criterion) for criterion in others)
    return ((1 + len(others)) * seeds - 1 if True in modes(spec) else 0), aside


def _shots(spec: Spec, criterion: Declaration) -> int:
    """Steps of a criterion's run in one shot."""
    schedule = plain(spec, criterion).schedule
    return schedule.recomputations if isinstance(schedule, OneShot) else 1


def _scored(job: Job) -> tuple[float, float]:
    """One step's criterion and compensation: passes, and seconds of algebra beside them."""
    spec, weights = job.spec, job.weights
    parameters = sum(p.numel() for p in job.module.parameters())
    samples, facts = job.data.calibration.samples, job.facts
    size = Size(
        weights=len(weights),
        parameters=parameters,
        samples=samples,
        outputs=1,
        macs=(facts.macs if facts else None) or parameters,
        layers=tuple(
            (p.groups, p.weight.shape[0] // p.groups, p.weight[0].numel()) for p in weights.layers
        ),
    )
    steps = _steps(job)
    times = scorings(steps) / max(1, len(steps))
    parts: list[Any] = [spec.criterion, spec.compensation]
    flops = sum(part.price(size).flops for part in parts)
    looks = bool(spec.criterion.about.needs) or isinstance(spec.compensation, Layerwise)
    return times * BACKWARD * samples * looks, times * flops / FLOPS


def _predicted(job: Job, steps: float) -> Planned:
    """Predictions of so many steps."""
    if not job.predicts or isinstance(job.spec.compensation, Layerwise):
        return Planned(steps)
    return Planned(steps, PRODUCT * job.data.calibration.samples, CALLED)


def _recovered(job: Job) -> float:
    """Passes of one recovery."""
    options, samples = job.spec.recovery, job.data.training.samples
    if isinstance(options, FineTune):
        return options.epochs * samples * (BACKWARD + (1.0 if options.distill else 0.0))
    return float(samples) if isinstance(options, BatchNorm) else 0.0
