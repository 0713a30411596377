"""What a job is expected to do, stage by stage, before it does it.

A stage is a step of a run. Its name is that of the run's checkpoints, with the number of the step;
`pruning.study.runs` says when each begins, so that what was not needed is no longer waited for.
"""

from collections.abc import Iterator
from dataclasses import replace
from math import ceil
from typing import Any

from pruning.catalogue.about import Size
from pruning.catalogue.compensation.layerwise import Layerwise
from pruning.job import Job
from pruning.spec import BatchNorm, FineTune, OneShot, Proximal, Spec, Target
from pruning.study.labels import compared, point, probe, stage
from pruning.study.rivals import modes, plain, rivals, trained
from pruning.study.search import FIRST
from pruning.trust.assess import LADDER_SAMPLES, SPECTRUM_SAMPLES
from pruning.trust.bootstrap import AUTO
from pruning.trust.checks import PROBES, STEPS
from pruning.trust.ladder import RUNGS
from pruning.trust.work import GRADIENT, PRODUCT
from pruning.visits import Price, times
from pruning.workload import Stage

PROBES_MADE = 0.8
"""Of the most probes that a search may take, how many it does take, about."""

REDRAWN = 0.3
"""Scoring by drawn samples whose gradients are known, by scoring."""

MOST_REDRAWN = 2.0
"""The same for all that is drawn: a bootstrap that costs more is left out."""

FLOPS = 3e10
"""Floating-point operations of dense algebra a second."""

TRAINED, UPDATED = 1.0, 1e-3
"""Seconds that a training takes whatever the network is, and each of its updates."""

CALLED = 0.1
"""Seconds that second derivatives take whatever the network is."""


Visits = dict[str, list[Price]]


def expected_work(job: Job) -> list[Stage]:
    """The stages of `prune`, their visits priced in forward passes of one sample and in seconds.

    Only their proportions matter, and those of a kind only until one of its visits was clocked.
    """
    spec = job.spec
    searched = spec.target.max_drop
    found: list[Stage] = []
    if searched is None:
        found += _run(job, "", _trust(job))
    else:
        at = _at(job, FIRST)
        for number in range(round(PROBES_MADE * searched.probes)):
            found += _run(at, probe(number + 1))
    for sparsity in spec.curve.points:
        found += _run(_at(job, sparsity), point(sparsity))
    if searched is not None:
        # The answer's first step is scored once more for its trust.
        assessed = _trust(job) | {"scoring": _scored(_at(job, FIRST))[:1]}
        found.append(Stage(stage("trust", 0), assessed))
    return [*found, *_comparison(job)]


def _at(job: Job, sparsity: float) -> Job:
    return _by(job, job.spec.model_copy(update={"target": Target(sparsity=sparsity)}))


def _by(job: Job, spec: Spec) -> Job:
    return replace(job, spec=spec)


def _run(job: Job, label: str, trust: Visits | None = None) -> Iterator[Stage]:
    """A run of the schedule, with what its first step finds out beside it."""
    spec = job.spec
    recovers = spec.recovery.kind != "none"
    softened = [_recovered(job)] * isinstance(spec.schedule, Proximal)
    yield Stage(stage(label, 0), {"evaluating": [_measured(job)], "recovering": softened})
    steps = zip(job.steps, _scored(job), strict=True)
    for number, (step, scored) in enumerate(steps, 1):
        trains = recovers and step.recover
        visits = {
            "scoring": [scored],
            "pruning": [_predicted(job)],
            "recovering": [_recovered(job)] * trains,
            "evaluating": [_measured(job)] * (2 if trains else 1),
        }
        yield Stage(stage(label, number), visits | ((trust or {}) if number == 1 else {}))


def _comparison(job: Job) -> Iterator[Stage]:
    """The runs of the other criteria, and those of the job's own that are no run of the job."""
    spec, others = job.spec, rivals(job.spec)
    if not others:
        return
    # A comparison predicts nothing.
    aside = replace(job, predicts=False)
    if spec.target.max_drop is not None:
        aside = _at(aside, FIRST)
    for seed in range(spec.comparison.seeds):
        for number, criterion in enumerate((spec.criterion, *others)):
            for recovered in modes(spec):
                own = seed == 0 and number == 0
                if own and (recovered or isinstance(spec.schedule, OneShot)):
                    continue  # the job has run it
                made = trained(aside.spec, criterion, None) if recovered else plain(
                    aside.spec, criterion
                )  # fmt: skip
                yield from _run(_by(aside, made), compared(number, seed, recovered=recovered))


def _trust(job: Job) -> Visits:
    """What `spec.trust` asks for, as far as it is not left out for its price."""
    trust, weights = job.spec.trust, _searched(job)
    scored = _scored(weights)
    if isinstance(job.spec.compensation, Layerwise) or not scored:
        return {}
    samples = job.data.calibration.samples
    laddered, spectrum = min(samples, LADDER_SAMPLES), min(samples, SPECTRUM_SAMPLES)
    found: Visits = {}
    if trust.checks:
        found["scoring.checks"] = times(1, PROBES * STEPS * PRODUCT * spectrum, 5 * CALLED)
    if trust.bootstrap:
        drawn = AUTO if trust.bootstrap == "auto" else trust.bootstrap
        redrawn = min(drawn * REDRAWN, MOST_REDRAWN) * scored[0].seconds
        found["scoring.bootstrap"] = times(1, scored[0].passes, redrawn)
    if trust.ladder:
        layers = len(job.weights.layers)
        alone = layers if 1 < layers <= trust.layers else 0
        # The products of the layers alone add up to that of the whole.
        rung = max(1, alone) * PRODUCT + 1 + alone
        passes = (GRADIENT + len(RUNGS) * rung) * laddered
        found["scoring.ladder"] = times(1, passes, 5 * CALLED)
    return found


def _searched(job: Job) -> Job:
    """The job, or a probe of its search."""
    return job if job.spec.target.max_drop is None else _at(job, FIRST)


def _scored(job: Job) -> list[Price]:
    """Each step's criterion and compensation, for the weights that are left by then."""
    found, gone, total = [], job.existing.removed, len(job.weights)
    for step in job.steps:
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
    return Price(GRADIENT * samples * looks, flops / FLOPS)


def _predicted(job: Job) -> Price:
    """One step's prediction."""
    if not job.predicts or isinstance(job.spec.compensation, Layerwise):
        return Price()
    return Price((GRADIENT + PRODUCT) * job.data.calibration.samples, CALLED)


def _measured(job: Job) -> Price:
    """Loss and metrics of one network."""
    evaluation = job.data.evaluation.samples if job.metrics else 0
    return Price(job.data.calibration.samples + evaluation)


def _recovered(job: Job) -> Price:
    """One recovery."""
    options, samples = job.spec.recovery, job.data.training.samples
    if isinstance(options, FineTune):
        passes = options.epochs * samples * (GRADIENT + (1.0 if options.distill else 0.0))
        updates = options.epochs * ceil(samples / options.batch_size)
        return Price(passes, TRAINED + UPDATED * updates)
    return Price(samples if isinstance(options, BatchNorm) else 0.0)
