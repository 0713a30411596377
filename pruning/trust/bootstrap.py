"""How far saliencies depend on the samples: the bootstrap over calibration batches (Efron 1979).

Curvature is a mean over samples, so that of a resample is a weighted mean of the batches' own
matrices, which are computed once and cost as much as one pass over the data. What is not such a
mean (gradients under a square root, low-rank factors) is computed again on every resample, as long
as the network is small.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pruning.choice import score, select
from pruning.criteria import Problem
from pruning.curvature import Request, compute
from pruning.curvature.matrix import Blocks, Dense, Diagonal
from pruning.evidence import View, gather
from pruning.job import Job
from pruning.registry import method
from pruning.report.numbers import asked, count, number
from pruning.report.trust import Bootstrap, LayerInterval
from pruning.solvers.obs import SingularError

BYTES = 512 * 2**20
"""What the batches' matrices may take together."""

WORK = 2e9
"""Weights times samples times resamples up to which everything is computed again."""

AUTO, LARGE = 16, 2**20
"""Resamples that `auto` stands for, and the entries of a dense matrix up to which it does: each
resample inverts it."""

FEWEST = 6
"""Fewer batches say too little."""

LOW, HIGH = 0.25, 0.75
"""A weight's fate is a coin toss if it goes in a share of the resamples between these."""


def resample(job: Job, problem: Problem, scores: Tensor, left_out: str | None = None) -> Bootstrap:
    """Score all weights in scope on resamples of the calibration batches, at the dense weights.

    Args:
        job: Its spec says by which criterion, and how often.
        problem: All weights that may go, with the criterion's curvature and damping on all samples.
        scores: Saliencies of these on all samples, shape [A].
        left_out: Why it is left out, unless it is not available in the first place.
    """
    reason = unavailable(job, problem) or left_out
    if reason is not None:
        return Bootstrap(resamples=0, reason=reason)
    active, target = job.existing.active, job.target
    count, group = target - job.existing.removed, job.weights.group[active]
    sizes = torch.bincount(group, minlength=len(job.weights.layers)).tolist()
    parts = _parts(job, problem)
    removals = torch.zeros(len(active), dtype=torch.float64, device=job.device)
    medians: list[list[float]] = [[] for _ in job.weights.layers]
    failed = done = 0
    for item in _problems(job, problem, active, parts):
        try:
            drawn = score(job, item)
            removed = select(job, drawn, active, count, target)
        except SingularError:
            failed += 1
            continue
        removals += removed
        done += 1
        for own, part in zip(medians, drawn.split(sizes), strict=True):
            own.append(_median(part))
        job.narrator.progress(done, times(job), "resamples", whole=True)
    if done == 0:
        return Bootstrap(
            resamples=0, failed=failed, reason="the curvature of every resample was singular"
        )
    share = removals / done
    toss = (share >= LOW) & (share <= HIGH)
    ends = torch.tensor([0.05, 0.95], dtype=torch.float64)
    layers = []
    for layer, tossed, now, found in zip(
        job.weights.layers, toss.split(sizes), scores.split(sizes), medians, strict=True
    ):
        low, high = torch.tensor(found, dtype=torch.float64).quantile(ends).tolist()
        layers.append(
            LayerInterval(
                name=layer.layer,
                median=_median(now),
                low=low,
                high=high,
                coin_tosses=int(tossed.sum()),
            )
        )
    return Bootstrap(
        resamples=done,
        failed=failed,
        batches=len(parts),
        removed=count,
        coin_tosses=int(toss.sum()),
        layers=layers,
    )


def _median(scores: Tensor) -> float:
    """Of the saliencies of a layer, 0 where none of its weights may go."""
    return float(scores.median()) if len(scores) else 0.0


def unavailable(job: Job, problem: Problem) -> str | None:
    """Why there can be no bootstrap, or none that `auto` stands for.

    Args:
        job: Its spec says by which criterion, and how often.
        problem: All weights that may go.
    """
    criterion: Any = job.spec.criterion
    curvature = problem.curvature
    options = job.spec.trust
    if (
        options.bootstrap == "auto"
        and options.budget != "all"
        and isinstance(curvature, Dense)
        and curvature.values.numel() > LARGE
    ):
        return (
            f"every resample would invert a matrix over {count(len(curvature.values))} weights, "
            f"which takes longer than the job; trust.bootstrap: {AUTO} asks for it all the same"
        )
    if not criterion.about.needs:
        return "the saliencies of this criterion do not depend on the data"
    if linear(problem):
        entries, least = _entries(problem), min(FEWEST, options.batches)
        if BYTES // (8 * entries) < least:
            return (
                f"the curvature of one batch holds {count(entries)} entries, and {least} of them "
                f"do not fit into {BYTES >> 20} MiB"
            )
        return None
    work = float(len(job.existing.active)) * job.data.calibration.samples * times(job)
    if work > WORK:
        return (
            f"this criterion would have to be computed again {times(job)} times, in full; that is "
            f"done up to {asked(WORK)} weights x samples x resamples, and here it is {number(work)}"
        )
    return None


def _parts(job: Job, problem: Problem) -> list[Tensor]:
    """The batches to draw from: no more than fit in memory."""
    asked = job.spec.trust.batches
    most = BYTES // (8 * _entries(problem)) if linear(problem) else asked
    return _cut(job, min(most, asked))


def _entries(problem: Problem) -> int:
    """Of the curvature of one batch."""
    return problem.curvature.values.numel()  # type: ignore[union-attr]


def linear(problem: Problem) -> bool:
    """Whether all that the criterion knows is a mean over samples."""
    return not problem.evidence and isinstance(problem.curvature, Diagonal | Dense | Blocks)


def _problems(job: Job, problem: Problem, active: Tensor, parts: list[Tensor]) -> Iterator[Problem]:
    """What the criterion would have known on each resample."""
    request = _request(job)
    whole = problem.curvature
    if not linear(problem) or request is None or not isinstance(whole, Diagonal | Dense | Blocks):
        yield from _again(job, problem, active, parts)
        return
    network, data = job.network(), job.data.calibration
    stacked = torch.empty(len(parts), whole.values.numel(), dtype=torch.float64, device=job.device)
    for row, part in zip(stacked, parts, strict=True):
        matrix: Any = compute(request, network, data.select(part), job.loss, active, job.spec.seed)
        row.copy_(matrix.values.reshape(-1))
    sizes = torch.tensor([len(p) for p in parts], dtype=torch.float64, device=job.device)
    for counts in _counts(job, len(parts)):
        weights = counts.to(job.device) * sizes
        values = ((weights / weights.sum()) @ stacked).view_as(whole.values)
        yield replace(problem, curvature=replace(whole, values=values))


def _again(job: Job, problem: Problem, active: Tensor, parts: list[Tensor]) -> Iterator[Problem]:
    """Everything anew on every resample."""
    data, request = job.data.calibration, _request(job)
    for counts in _counts(job, len(parts)):
        drawn = [part for part, n in zip(parts, counts.int().tolist(), strict=True)
                 for _ in range(n)]  # fmt: skip
        some = data.select(torch.cat(drawn))
        view = View(job.network(), some, job.loss, active, job.spec.seed)
        curvature = (
            None
            if request is None
            else compute(request, view.network, some, job.loss, active, job.spec.seed)
        )
        yield replace(problem, curvature=curvature, evidence=gather(job.spec.criterion, view))


def times(job: Job) -> int:
    """Resamples that the spec asks for."""
    asked = job.spec.trust.bootstrap
    return AUTO if asked == "auto" else asked


def _request(job: Job) -> Request | None:
    criterion: Any = job.spec.criterion
    found: Request | None = method("criteria", criterion.kind).curvature(
        criterion, len(job.weights)
    )
    return found


def _cut(job: Job, most: int) -> list[Tensor]:
    """The calibration samples in a seeded order, cut into batches of nearly equal size."""
    samples = job.data.calibration.samples
    order = torch.randperm(samples, generator=_generator(job))
    return [part.sort().values for part in order.tensor_split(min(most, samples))]


def _counts(job: Job, batches: int) -> Iterator[Tensor]:
    """How often each batch stands in a resample, shape [batches], adding up to `batches`."""
    generator = _generator(job)
    for _ in range(times(job)):
        drawn = torch.randint(batches, (batches,), generator=generator)
        yield torch.bincount(drawn, minlength=batches).double()


def _generator(job: Job) -> torch.Generator:
    return torch.Generator().manual_seed(job.spec.seed)
