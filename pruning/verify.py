"""Checks on the files as written: they are read again from disk and run.

An ONNX file runs in onnxruntime, every other format as the network that it is read as. Nothing here
trusts what the loop holds in memory beyond what it compares against.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pruning.curvature.losses import loss_of
from pruning.curvature.network import first_output
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError
from pruning.formats import bitmask
from pruning.formats.containers import can_hold
from pruning.formats.contract import Imported
from pruning.formats.masks import read_masks
from pruning.inference import engine, outputs
from pruning.report.schema import Check, Report
from pruning.samples import adapt, by_samples

TOLERANCE = 1e-4
"""Largest difference of outputs, relative to the largest output."""

TOLERANCE_HALF = 1e-2
"""The same for a file with float16 or bfloat16 weights, to which the result was rounded."""

COMPARED = 256
"""Evaluation samples on which outputs are compared; accuracy is measured on all."""

_BATCH = 512


@dataclass(frozen=True)
class Written:
    """The files of a job, those not asked for None; `again` is the model read from its files."""

    again: Imported
    model: list[Path]
    masks: Path | None = None
    bitmask: Path | None = None

    @property
    def all(self) -> list[Path]:
        """Every file."""
        return [*self.model, *(path for path in (self.masks, self.bitmask) if path is not None)]


@dataclass(frozen=True)
class Expected:
    """What the loop says: the pruned network on the CPU, its keep masks, its report."""

    imported: Imported
    module: nn.Module
    masks: dict[str, Tensor]
    report: Report


def verify(
    written: Written, expected: Expected, evaluation: ArrayData, *, threads: int
) -> list[Check]:
    """All checks, as entries of the report.

    Args:
        written: The files.
        expected: What they must agree with.
        evaluation: Samples for the comparison of outputs.
        threads: Threads of one onnxruntime operation.

    Raises:
        SecateurError: `verification_failed` with the first check that failed.
    """
    again = written.again
    checks = [_zeros(again, expected), _zero_count(again, expected), _graph(again, expected)]
    if written.masks is not None:
        checks.append(_masks(written.masks, expected.masks))
    if written.bitmask is not None:
        checks.append(_bitmask(written.bitmask, again))
    checks += _runtime(written, expected, evaluation, threads)
    for check in checks:
        if check.status == "fail":
            raise SecateurError(
                "verification_failed",
                check.message,
                where=check.name,
                hint="This is an error on our side; no files were delivered.",
            )
    return checks


def _check(name: str, value: float, threshold: float, good: str, bad: str, passed: bool) -> Check:
    return Check(
        name=name,
        status="pass" if passed else "fail",
        value=value,
        threshold=threshold,
        message=good if passed else bad,
    )


def _zeros(again: Imported, expected: Expected) -> Check:
    """Every masked position is zero in the file, and their number is the one asked for."""
    wanted = expected.report.sparsity.removed
    zero = 0
    for name, kept in expected.masks.items():
        weight = again.module.get_parameter(name).detach()
        zero += int((weight[~kept] == 0).sum())
    masked = sum(int((~kept).sum()) for kept in expected.masks.values())
    return _check(
        "exact_zeros",
        zero,
        wanted,
        f"Exactly {wanted:,} positions were removed, and all of them are 0 in the written file.",
        f"{zero:,} of {masked:,} masked positions are 0 in the written file; "
        f"{wanted:,} were to be removed.",
        zero == masked == wanted,
    )


def _zero_count(again: Imported, expected: Expected) -> Check:
    """Zeros of each layer, counted in the file as read again, against the report.

    A kept weight too small for the file's type becomes a zero on top: worth a warning, no failure.
    """
    more, fewer = 0, 0
    for layer in expected.report.layers:
        name = f"{layer.name}.weight"
        held = again.module.get_parameter(name if name in again.weight_names else layer.name)
        extra = held.numel() - int(torch.count_nonzero(held)) - layer.zeros
        more, fewer = more + max(0, extra), fewer + max(0, -extra)
    check = _check(
        "zeros_by_layer",
        more + fewer,
        0,
        "Each layer has as many zeros in the written file as this report says.",
        f"Layers of the written file lack {fewer:,} zeros that the report counts.",
        fewer == 0,
    )
    if more and not fewer:
        check.status = "warn"
        check.message = f"{more:,} kept weights are too small for the file's type and became 0."
    return check


def _graph(again: Imported, expected: Expected) -> Check:
    """All of the upload but its numbers is as it was."""
    same = again.skeleton() == expected.imported.skeleton()
    return _check(
        "graph_kept",
        int(not same),
        0,
        "The graph, its names, inputs and outputs are those of the upload.",
        "The graph of the written file differs from the upload.",
        same,
    )


def _masks(path: Path, masks: dict[str, Tensor]) -> Check:
    found = read_masks(path)
    wrong = len(found.keys() ^ masks.keys())
    for name in found.keys() & masks.keys():
        wrong += int(not np.array_equal(found[name], masks[name].numpy()))
    return _check(
        "masks_file",
        wrong,
        0,
        "The masks file, read again, holds the masks that were applied.",
        f"{wrong} masks of the masks file are not those that were applied.",
        wrong == 0,
    )


def _bitmask(path: Path, again: Imported) -> Check:
    found, held = bitmask.decode(path), again.tensors()
    arrays = {name: held[name] for name in held if can_hold(held[name].dtype)}
    wrong = len(found.keys() ^ arrays.keys())
    for name in found.keys() & arrays.keys():
        a, b = found[name], arrays[name]
        wrong += int(a.dtype != b.dtype or a.shape != b.shape or a.tobytes() != b.tobytes())
    return _check(
        "bitmask_file",
        wrong,
        0,
        "The bitmask file decodes to the tensors of the pruned model bit for bit.",
        f"{wrong} tensors of the bitmask file are not those of the pruned model.",
        wrong == 0,
    )


def _runtime(written: Written, expected: Expected, data: ArrayData, threads: int) -> list[Check]:
    """Outputs and accuracy of the file against the pruned network in torch.

    Where onnxruntime can't run the upload either, that is a warning and not our failure.
    """
    how = engine(written.again)
    try:
        found = np.concatenate(list(outputs(written.again, data, threads)))
    except Exception as error:  # onnxruntime has a dozen exception types without a common base
        return [_cannot_run(expected, data, threads, how, error)]
    return [_difference(found, expected, data, how), *_accuracy(found, expected.report, data, how)]


def _cannot_run(
    expected: Expected, data: ArrayData, threads: int, how: str, error: Exception
) -> Check:
    reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
    try:
        list(outputs(expected.imported, data, threads))
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


@torch.no_grad()
def _difference(runtime: np.ndarray, expected: Expected, data: ArrayData, how: str) -> Check:
    some = data.select(slice(0, COMPARED))
    with by_samples(expected.module):
        adapt(expected.module, some, expected.imported.facts.batch)
        parts = [first_output(expected.module(*batch)) for batch, _ in some.batches(_BATCH)]
    torch_outputs = torch.cat(parts).double().numpy()
    same_shape = torch_outputs.shape == runtime[: len(torch_outputs)].shape
    distance = np.inf
    if same_shape and torch_outputs.size:
        gap = np.abs(torch_outputs - runtime[: len(torch_outputs)].astype(np.float64)).max()
        distance = float(gap / max(np.abs(torch_outputs).max(), 1e-12))
    half = {"float16", "bfloat16"} & {layer.dtype for layer in expected.imported.facts.layers}
    allowed = TOLERANCE_HALF if half else TOLERANCE
    return _check(
        f"{how}_outputs",
        distance,
        allowed,
        f"The written file, run in {how}, and the pruned network put out the same on "
        f"{some.samples} samples, relative to the largest output.",
        f"The written file, run in {how}, puts out numbers that differ from the pruned network's "
        f"by {distance:.3g} of the largest output; {allowed:g} is allowed.",
        distance <= allowed,
    )


def _accuracy(runtime: np.ndarray, report: Report, data: ArrayData, how: str) -> list[Check]:
    """One sample in a thousand may tip where two scores are equal but for rounding."""
    reported = report.metrics.final.get("accuracy")
    if reported is None or reported.value is None or data.target is None:
        return []
    loss = loss_of(report.spec.objective)
    right = loss.correct(torch.from_numpy(runtime).double(), data.target)
    measured = float(right.mean())
    allowed = max(1, len(right) // 1000) / len(right)
    return [
        _check(
            f"{how}_accuracy",
            abs(measured - reported.value),
            allowed,
            f"Accuracy of the written file in {how} is {measured:.4f}, as reported "
            f"({len(right):,} samples).",
            f"Accuracy of the written file in {how} is {measured:.4f}; the report says "
            f"{reported.value:.4f}.",
            abs(measured - reported.value) <= allowed + 1e-12,
        )
    ]
