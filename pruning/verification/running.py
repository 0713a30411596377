"""What the written model puts out, and its metrics, measured from the file itself."""

from collections.abc import Container, Iterator
from itertools import repeat
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pruning.curvature.losses import Loss, loss_of
from pruning.data.batches import ArrayData
from pruning.memory_errors import out_of_memory
from pruning.metrics import METRICS
from pruning.progress import Narrator
from pruning.report.numbers import asked, count, metric, number
from pruning.report.schema import Check, MetricValue
from pruning.verification import reference
from pruning.verification.inference import BATCH, Engine
from pruning.verification.outcome import judged
from pruning.verification.written import Written

TOLERANCE = 1e-4
"""Largest difference of outputs, relative to the largest output; of a mean cosine, as it is."""

TOLERANCE_HALF = 1e-2
"""The same for a file with float16 or bfloat16 weights, to which the result was rounded."""


def running(
    written: Written, pruned: Engine, dense: Engine, data: ArrayData, narrator: Narrator
) -> list[Check]:
    """Outputs against the network in memory, and every metric against the reported one.

    Where onnxruntime can't run the upload either, that is a warning and not our failure. Outputs
    that differ are compared again with sigmoids of seven digits: of a map that is next to nothing
    everywhere, onnxruntime's own leave no digit (`sigmoids`).

    Args:
        written: The files.
        pruned: The written model.
        dense: The upload, whose outputs are the targets of an objective without labels.
        data: The evaluation samples; all are run where there are metrics.
        narrator: Told of progress.
    """
    checks = _compared(written, pruned, dense, data, narrator)
    if checks[0].status != "fail" or checks[0].value is None:
        return checks
    exact_pruned, exact_dense = pruned.with_exact_sigmoids(), dense.with_exact_sigmoids()
    if exact_pruned is None or exact_dense is None:
        return checks
    exact = _compared(written, exact_pruned, exact_dense, data, narrator)
    if exact[0].status != "pass":
        return checks
    exact[0].message = (
        f"{exact[0].message} {pruned.name}'s own Sigmoid is off by 1.6e-7 whatever its result, "
        f"which is {number(checks[0].value)} of these outputs: here its sigmoids were computed "
        "as exp(-softplus(-x))."
    )
    return exact


def _compared(
    written: Written, pruned: Engine, dense: Engine, data: ArrayData, narrator: Narrator
) -> list[Check]:
    """The checks, that of the outputs first."""
    objective = written.report.spec.objective
    metrics: list[str] = list(objective.measured)
    memory = written.reference.outputs
    compared = reference.compared(data.samples, memory[:1].nbytes)
    some = data if metrics else data.select(slice(0, compared))
    try:
        first, values = _run(
            pruned,
            None if objective.needs_labels else dense,
            some,
            compared,
            loss_of(objective),
            metrics,
            narrator,
        )
    except Exception as error:  # onnxruntime has a dozen exception types without a common base
        if out_of_memory(error):
            raise
        return [_cannot_run(pruned, dense, some, error)]
    allowed = TOLERANCE_HALF if written.half else TOLERANCE
    final = written.report.metrics.final
    return [
        _difference(first, memory, allowed, pruned.name),
        *(_metric(name, final[name], values[name], allowed, pruned.name) for name in metrics),
        *_of_the_upload(written, dense, data, allowed, narrator),
    ]


def _of_the_upload(
    written: Written, dense: Engine, data: ArrayData, allowed: float, narrator: Narrator
) -> list[Check]:
    """What a drop is measured from, where a gate holds one to a limit."""
    spec, before = written.report.spec, written.report.metrics.dense
    held: Container[str] = spec.gates.max_drop
    metrics = [m for m in spec.objective.measured if m in held]
    if not metrics:
        return []
    # Without labels, the upload's outputs are its own targets.
    aims = None if spec.objective.needs_labels else dense
    _, values = _run(dense, aims, data, 0, loss_of(spec.objective), metrics, narrator)
    return [
        _metric(name, before[name], values[name], allowed, dense.name, of="upload")
        for name in metrics
    ]


def _run(
    pruned: Engine,
    dense: Engine | None,
    data: ArrayData,
    compared: int,
    loss: Loss,
    metrics: list[str],
    narrator: Narrator,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The first outputs [compared, ...], and each metric of every sample [N]."""
    first: list[np.ndarray] = []
    values: dict[str, list[np.ndarray]] = {name: [] for name in metrics}
    done = 0
    targets: Iterator[np.ndarray | None]
    targets = repeat(None) if dense is None or not metrics else dense.outputs(data)
    for found, aim in zip(pruned.outputs(data), targets, strict=False):
        if done < compared:
            first.append(found[: compared - done].copy())
        if metrics:
            outputs = torch.from_numpy(found)
            target = _target(data, aim, done, len(found))
            for name, parts in values.items():
                parts.append(METRICS[name](loss, outputs, target).double().numpy())
        done += len(found)
        narrator.progress(done, data.samples, "samples")
    beginning = np.concatenate(first) if first else np.empty(0)
    return beginning, {name: np.concatenate(v) for name, v in values.items()}


def _target(data: ArrayData, aim: np.ndarray | None, start: int, count: int) -> Tensor:
    if aim is not None:
        return torch.from_numpy(aim)
    assert data.target is not None
    return data.target[start : start + count]


def _cannot_run(pruned: Engine, dense: Engine, data: ArrayData, error: Exception) -> Check:
    how = pruned.name
    reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
    try:
        next(dense.outputs(data.select(slice(0, BATCH))))
    except Exception:
        return Check(
            name=f"{how}_outputs",
            status="warn",
            message=f"{how} runs neither the upload nor the pruned model: {reason}",
        )
    return Check(
        name=f"{how}_outputs",
        status="fail",
        message=f"{how} runs the upload but not the pruned model: {reason}",
    )


def _difference(found: np.ndarray, memory: np.ndarray, allowed: float, how: str) -> Check:
    distance = np.inf
    if found.shape == memory.shape and memory.size:
        expected = memory.astype(np.float64)
        gap = np.abs(expected - found.astype(np.float64)).max()
        distance = float(gap / max(np.abs(expected).max(), 1e-30))
    return judged(
        f"{how}_outputs",
        distance <= allowed,
        distance,
        allowed,
        f"The written file, run in {how}, gives the pruned network's outputs on "
        f"{count(len(memory))} samples, relative to the largest output.",
        f"The written file, run in {how}, gives outputs that differ from the pruned network's "
        f"by {number(distance)} of the largest output; {asked(allowed)} is allowed.",
    )


def _metric(
    name: str,
    said: MetricValue,
    values: np.ndarray,
    tolerance: float,
    how: str,
    of: Literal["written file", "upload"] = "written file",
) -> Check:
    """One sample in a thousand may tip where two scores are equal but for rounding."""
    reported = said.value
    measured = float(values.mean())
    share = name != "cosine"
    allowed = max(1, len(values) // 1000) / len(values) if share else tolerance
    gap = np.inf if reported is None else abs(measured - reported)
    told = "unknown" if reported is None else metric(name, reported)
    title = name.capitalize()
    return judged(
        f"{how}_{name}" if of == "written file" else f"{how}_dense_{name}",
        gap <= allowed + 1e-12,
        float(gap),
        allowed,
        f"{title} of the {of} in {how} is {metric(name, measured)}, as "
        f"reported ({count(len(values))} samples).",
        f"{title} of the {of} in {how} is {metric(name, measured)}; the report says {told}.",
    )
