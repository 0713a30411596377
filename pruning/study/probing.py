"""The search for the most sparsity within an allowed drop: its probes, and what they come to."""

from dataclasses import dataclass
from math import inf, isfinite
from typing import Literal

from pruning import intervals
from pruning.allowed import allows
from pruning.errors import SecateurError
from pruning.job import Job, State
from pruning.report.numbers import SHARES, limit, points, share
from pruning.report.study import Drop, Search
from pruning.spec import MaxDrop
from pruning.study.labels import probe
from pruning.study.runs import Run, Runs
from pruning.study.search import Bracket, Probe, bracket, check_drop, following, resolved

UNMEASURED = "loss_non_finite"
"""The error of a network so sparse that it can't be measured: that sparsity is refused."""


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Args:
        answer: The run with the largest sparsity that was accepted.
        probes: All runs, in their order.
        accepted: Labels of those accepted.
        search: For the report.
    """

    answer: Run
    probes: list[Run]
    accepted: set[str]
    search: Search


def drop_of(state: State, metric: str, simultaneous: int) -> Drop:
    """How far a metric fell from the dense to the final network, by pairs."""
    final = "pruned" if state.recovered_metrics is None else "recovered"
    dense, pruned = state.each[f"dense.{metric}"], state.each[f"{final}.{metric}"]
    return intervals.drop(dense, pruned, simultaneous, shares=metric in SHARES)


def find(runs: Runs) -> Found:
    """Probe until the bracket is narrow enough.

    Args:
        runs: Of a job whose target is a drop.

    Raises:
        SecateurError: `target_unreachable` where no sparsity that was tried is allowed, or where
            the evaluation data could not show any to be.
    """
    job = runs.job
    asked = job.spec.target.max_drop
    assert asked is not None
    check_drop(asked, job.metrics, job.data.evaluation.samples, whole=_whole(job))
    total, unit = len(job.weights), job.spec.pattern.unit
    probes: list[Probe] = []
    made: list[tuple[Probe, Run]] = []
    failure: SecateurError | None = None
    while (sparsity := following(asked, probes, total, unit)) is not None:
        label = probe(len(probes) + 1)
        message = f"probe {len(probes) + 1} of at most {asked.probes}: {share(sparsity)}"
        with job.narrator.about(message, len(probes), asked.probes):
            try:
                run = runs.at(label, sparsity)
            except SecateurError as error:
                if error.code != UNMEASURED:
                    raise
                failure = error
                probes.append(Probe(sparsity, inf))
                continue
        probes.append(Probe(sparsity, _judged(asked, run.state)))
        made.append((probes[-1], run))
    ends = bracket(asked, probes)
    accepted = {run.label for tried, run in made if allows(asked.drop, tried.drop)}
    if ends.accepted is None:
        raise _nothing_allowed(asked, probes, made, failure)
    answer = next(run for tried, run in made if tried is ends.accepted)
    refused = [r for p, r in made if p is ends.refused]
    search = Search(
        metric=asked.metric,
        allowed=asked.drop,
        judged_by=asked.judged_by,
        probes=len(probes),
        low=answer.sparsity,
        high=refused[0].sparsity if refused else _sparsity(ends.refused),
        ended=_ended(asked, ends, more=len(probes) < asked.probes),
    )
    return Found(answer, [run for _, run in made], accepted, search)


def _whole(job: Job) -> bool:
    """Whether the metric of each evaluation sample is 0 or 1, and no share of several answers."""
    asked, target = job.spec.target.max_drop, job.data.evaluation.target
    assert asked is not None
    if asked.metric == "accuracy":
        return job.spec.objective.loss == "cross_entropy"
    return asked.metric == "agreement" and target is not None and target.ndim == 2


def _judged(asked: MaxDrop, state: State) -> float:
    found = drop_of(state, asked.metric, asked.probes)
    value = found.value if asked.judged_by == "estimate" else found.high
    return inf if value is None or not isfinite(value) else value


def _sparsity(probe: Probe | None) -> float | None:
    return None if probe is None else probe.sparsity


def _ended(
    asked: MaxDrop, ends: Bracket, *, more: bool
) -> Literal["resolution", "probes", "all_allowed"]:
    if ends.refused is None:
        return "all_allowed"
    # With probes left it ended where the weights are too few to be divided any further.
    return "resolution" if more or resolved(asked, ends) else "probes"


def _nothing_allowed(
    asked: MaxDrop,
    probes: list[Probe],
    made: list[tuple[Probe, Run]],
    failure: SecateurError | None,
) -> SecateurError:
    """The error where every probe was refused, with what was measured."""
    least = min(probes, key=lambda p: p.sparsity)
    run = next((r for p, r in made if p is least), None)
    if run is None:
        assert failure is not None
        found = f"the network can't be measured ({failure.message})"
    else:
        drop = drop_of(run.state, asked.metric, asked.probes)
        found = f"{asked.metric} drops by {points(asked.metric, drop.value)}"
        if drop.low is not None and drop.high is not None:
            found += (
                f" (between {points(asked.metric, drop.low, False)} and "
                f"{points(asked.metric, drop.high)})"
            )
    allowed = limit(asked.metric, asked.drop)
    judged = "the upper end of its interval" if asked.judged_by == "upper_bound" else "the drop"
    return SecateurError(
        "target_unreachable",
        f"None of the {len(probes)} sparsities tried keeps {asked.metric}: at the lowest of them, "
        f"{share(least.sparsity)}, {found}, and {judged} may be at most {allowed}.",
        where="spec.target.max_drop",
        hint="Allow a larger drop, add recovery, or choose a criterion that makes up for what it "
        "removes (obs, or compensation layerwise).",
        tried=[p.sparsity for p in sorted(probes, key=lambda p: p.sparsity)],
    )
