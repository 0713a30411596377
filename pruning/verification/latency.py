"""How long the delivered file takes, measured beside the upload in one process.

Runs go in turns, one of each, and the order alternates: what slows the machine down for a while
slows both. The ratio is taken turn by turn.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from pruning.data.batches import ArrayData
from pruning.report.study import Latency, Times
from pruning.spec import NM, Spec
from pruning.verification.inference import Engine

SECONDS = 2.0
"""All runs together, about."""

TURNS = 300
"""The most turns."""

ENOUGH = 10
"""Turns from which on quartiles mean something."""

LEAST = 3
"""Turns that are made however long they take."""

_WARM_UP = 3
_NEAR = 0.05
"""A ratio this close to 1 is no difference."""

_MOST_WARMING = 0.25  # share of `SECONDS`


def measure(dense: Engine, pruned: Engine, data: ArrayData, spec: Spec) -> Latency:
    """The latency of the smallest batch that the file takes, one sample where it is free.

    Args:
        dense: The upload.
        pruned: The delivered file, in the same engine.
        data: Samples to run.
        spec: The job's, for what the words say.

    Raises:
        Exception: Whatever onnxruntime raises for a model that it can't run.
    """
    seconds = turns(dense.one(data), pruned.one(data))
    ratios = seconds[:, 1] / seconds[:, 0]
    low, ratio, high = (float(q) for q in np.quantile(ratios, (0.25, 0.5, 0.75)))
    return Latency(
        engine=pruned.name,
        threads=pruned.threads,
        batch=pruned.batch or 1,
        runs=len(seconds),
        dense=_times(seconds[:, 0]),
        pruned=_times(seconds[:, 1]),
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        message=words(ratio, low, high, len(seconds), spec),
    )


def turns(dense: Callable[[], Any], pruned: Callable[[], Any]) -> np.ndarray:
    """Seconds of each run, shape [turns, 2], the upload first, whoever went first in the turn."""
    begin = time.perf_counter()
    for _ in range(_WARM_UP):
        dense()
        pruned()
        if time.perf_counter() - begin > SECONDS * _MOST_WARMING:
            break
    found: list[tuple[float, float]] = []
    while len(found) < LEAST or (
        len(found) < TURNS and _another_fits(time.perf_counter() - begin, found)
    ):
        if len(found) % 2:
            second = _clocked(pruned)
            found.append((_clocked(dense), second))
        else:
            found.append((_clocked(dense), _clocked(pruned)))
    return np.array(found)


def _another_fits(spent: float, found: list[tuple[float, float]]) -> bool:
    return spent + sum(found[-1]) <= SECONDS


def _clocked(run: Callable[[], Any]) -> float:
    begin = time.perf_counter_ns()
    run()
    # A clock that did not move must not make a ratio infinite.
    return max(1, time.perf_counter_ns() - begin) / 1e9


def _times(seconds: np.ndarray) -> Times:
    q25, median, q75 = (float(q) for q in np.quantile(seconds, (0.25, 0.5, 0.75)))
    return Times(median=median, q25=q25, q75=q75)


def words(ratio: float, low: float, high: float, runs: int, spec: Spec) -> str:
    """What the measurement means.

    Args:
        ratio: Median of pruned by dense.
        low: First quartile of it.
        high: Third quartile.
        runs: Turns.
        spec: The job's.
    """
    if abs(ratio - 1) <= _NEAR or low <= 1 <= high:
        text = f"No difference in time (ratio {ratio:.2f}). {_why_none(spec)}"
    elif ratio < 1:
        text = (
            f"The delivered file takes {ratio:.2f} of the upload's time here. Zeros are "
            "multiplied like other numbers in this engine, so measure again where it will run."
        )
    else:
        text = (
            f"The delivered file takes {ratio:.2f} times as long as the upload here; the work is "
            f"the same. {_why_none(spec)}"
        )
    if runs < ENOUGH:
        text += f" Only {runs} runs of each fit the time for this, so the spread says little."
    return text


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
