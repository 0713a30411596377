"""How long the delivered file takes, measured beside the upload in one process.

Runs go in turns of four, and the ratio is taken within each four: what slows the machine down for a
while slows both, and a drift cancels. A turn is upload, delivered file, delivered file, upload, and
the next one the other way round: whichever comes first meets caches that the bookkeeping between
turns has filled with other things. The interval of the ratio's median rests on order alone, so it
needs no assumption on how times are spread. Turns are repeated until the interval is narrow or the
time is spent.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from pruning import intervals
from pruning.data.batches import ArrayData
from pruning.report.speed import clause, speed
from pruning.report.study import Latency, Times
from pruning.spec import NM, Spec
from pruning.verification.effort import Effort, effort_of
from pruning.verification.inference import Engine

BLOCK = 5e-4
"""Seconds that one turn of one file takes at least; shorter runs are repeated within it."""

MOST = 400
"""The most ratios."""

ENOUGH = 30
"""Ratios from which on a narrow interval ends the measurement."""

LEAST = 6
"""Ratios that an interval of 95 % needs; they are made as long as `LONGEST` allows."""

_WARM_UP = 3
_MOST_WARMING = 0.25  # share of the time
_MOST_REPEATS = 1000


def measure(
    dense: Engine,
    pruned: Engine,
    data: ArrayData,
    spec: Spec,
    progress: Callable[[float, float], None] = lambda done, total: None,
) -> Latency:
    """The latency of the smallest batch that the file takes, one sample where it is free.

    Args:
        dense: The upload.
        pruned: The delivered file, in the same engine.
        data: Samples to run.
        spec: The job's: a gate on the latency gets more time, and the words depend on the pattern.
        progress: Told of seconds spent, and of the most there may be.

    Raises:
        Exception: Whatever onnxruntime raises for a model that it can't run.
    """
    begin, effort = time.perf_counter(), effort_of(spec)
    taken, repeats = turns(dense.one(data), pruned.one(data), effort, progress)
    spent = time.perf_counter() - begin
    found = ratios(taken)
    ends = intervals.of_median(found)
    latency = Latency(
        engine=pruned.name,
        threads=pruned.threads,
        batch=pruned.model.file_batch or 1,
        runs=2 * len(found) * repeats,
        dense=_times(taken[:, [0, 3]].ravel()),
        pruned=_times(taken[:, [1, 2]].ravel()),
        ratio=float(np.median(found)),
        ratio_low=None if ends is None else ends[0],
        ratio_high=None if ends is None else ends[1],
        pairs=len(found),
        seconds=round(spent, 3),
        message="",
    )
    latency.message = words(latency, spec)
    return latency


def ratios(taken: np.ndarray) -> np.ndarray:
    """Delivered by upload of each turn of four, shape [turns]; `taken` as `turns` gives it."""
    return np.asarray((taken[:, 1] + taken[:, 2]) / (taken[:, 0] + taken[:, 3]))


def turns(
    dense: Callable[[], Any],
    pruned: Callable[[], Any],
    effort: Effort,
    progress: Callable[[float, float], None] = lambda done, total: None,
) -> tuple[np.ndarray, int]:
    """Seconds a run, in turns of four runs.

    Returns:
        Shape [turns, 4]: upload, delivered, delivered, upload, whichever order they ran in; and how
        many runs each number is the mean of.
    """
    begin = time.perf_counter()
    once = _warmed(dense, pruned, begin + effort.seconds * _MOST_WARMING)
    repeats = min(max(round(BLOCK / once), 1), _MOST_REPEATS)
    found: list[list[float]] = []
    while True:
        found.append(_turn(dense, pruned, repeats, swapped=len(found) % 2 == 1))
        spent = time.perf_counter() - begin
        progress(min(spent, effort.seconds), effort.seconds)
        ahead = spent + repeats * sum(found[-1])
        if len(found) < LEAST:
            if ahead > effort.longest:
                break
        elif len(found) >= MOST or ahead > effort.seconds or _narrow(found, effort):
            break
    return np.array(found), repeats


def _turn(
    dense: Callable[[], Any], pruned: Callable[[], Any], repeats: int, *, swapped: bool
) -> list[float]:
    outer, inner = (pruned, dense) if swapped else (dense, pruned)
    if repeats > 1:  # a run so short feels whose data the caches hold
        outer()
    one, two, three, four = (_clocked(run, repeats) for run in (outer, inner, inner, outer))
    return [two, one, four, three] if swapped else [one, two, three, four]


def _warmed(dense: Callable[[], Any], pruned: Callable[[], Any], until: float) -> float:
    """Seconds of the faster of a few runs, the first of which load what they need."""
    fastest = float("inf")
    for _ in range(_WARM_UP):
        fastest = min(fastest, _clocked(dense, 1), _clocked(pruned, 1))
        if time.perf_counter() > until:
            break
    return fastest


def _narrow(found: list[list[float]], effort: Effort) -> bool:
    if len(found) < ENOUGH:
        return False
    taken = ratios(np.array(found))
    ends = intervals.of_median(taken)
    return ends is not None and ends[1] - ends[0] <= 2 * effort.half_width * np.median(taken)


def _clocked(run: Callable[[], Any], repeats: int) -> float:
    begin = time.perf_counter_ns()
    for _ in range(repeats):
        run()
    # A clock that did not move must not make a ratio infinite.
    return max(1, time.perf_counter_ns() - begin) / 1e9 / repeats


def _times(seconds: np.ndarray) -> Times:
    q25, median, q75 = (float(q) for q in np.quantile(seconds, (0.25, 0.5, 0.75)))
    low, high = intervals.of_median(seconds) or (None, None)
    return Times(median=median, q25=q25, q75=q75, low=low, high=high)


def words(found: Latency, spec: Spec) -> str:
    """What the measurement means, and what would bring speed where there is none."""
    said = clause(found)
    text = f"{said[0].upper()}{said[1:]}."
    shown = speed(found)
    if shown == "unknown":
        return (
            f"{text} The machine was busy, or the network is slow for the time that the "
            "measurement may take; measure again where it will run."
        )
    if shown == "faster":
        return (
            f"{text} Zeros are multiplied like other numbers in this engine, so measure again "
            "where it will run."
        )
    return f"{text} {_why_none(spec)}"


def _why_none(spec: Spec) -> str:
    kind = "N:M" if isinstance(spec.pattern, NM) else spec.pattern.kind
    what = {"block": "blocks of zeros", "N:M": "N:M zeros"}.get(kind, "unstructured zeros")
    more = (
        "sparse tensor cores of a GPU (2:4)"
        if kind == "N:M"
        else "pattern nm (2:4) on a GPU with sparse tensor cores"
    )
    return (
        f"In this engine {what} bring no speed: it multiplies them like other numbers. "
        f"What would: {more}, a runtime with sparse kernels, or removing whole channels."
    )
