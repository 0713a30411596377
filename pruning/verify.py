"""Checks on the files as written: they are read again from disk and run in onnxruntime.

Nothing here trusts what the loop holds in memory beyond what it compares against.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from pruning.artifacts import tensors
from pruning.curvature.losses import loss_of
from pruning.curvature.network import first_output
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError
from pruning.formats import bitmask
from pruning.formats.limits import Limits
from pruning.formats.masks import read_masks
from pruning.formats.onnx import ImportedModel, read_onnx
from pruning.report.schema import Check, Report

TOLERANCE = 1e-4
"""Largest difference of outputs, relative to the largest output."""

TOLERANCE_HALF = 1e-2
"""The same for a file with float16 weights, which onnxruntime computes in float16."""

COMPARED = 256
"""Evaluation samples on which outputs are compared; accuracy is measured on all."""

_BATCH = 512


@dataclass(frozen=True)
class Written:
    """The files of a job, those not asked for None, and the upload they came from."""

    uploaded: Path
    model: Path
    masks: Path | None = None
    bitmask: Path | None = None


@dataclass(frozen=True)
class Expected:
    """What the loop says: the pruned network on the CPU, its keep masks, its report."""

    imported: ImportedModel
    module: nn.Module
    masks: dict[str, Tensor]
    report: Report


def verify(
    written: Written, expected: Expected, evaluation: ArrayData, *, threads: int, limits: Limits
) -> list[Check]:
    """All checks, as entries of the report.

    Args:
        written: The files.
        expected: What they must agree with.
        evaluation: Samples for the comparison with onnxruntime.
        threads: Threads of one onnxruntime operation.
        limits: Limits of the reader.

    Raises:
        SecateurError: `verification_failed` with the first check that failed.
    """
    again = read_onnx(written.model, limits)
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


def _zeros(again: ImportedModel, expected: Expected) -> Check:
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


def _zero_count(again: ImportedModel, expected: Expected) -> Check:
    """Zeros of each layer, counted in the file's own tensors, against the report.

    A kept weight too small for the file's type becomes a zero on top: worth a warning, no failure.
    """
    arrays = tensors(again.proto)
    more, fewer = 0, 0
    for layer in expected.report.layers:
        held = arrays[again.weight_names[f"{layer.name}.weight"]]
        extra = held.size - int(np.count_nonzero(held)) - layer.zeros
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


def _graph(again: ImportedModel, expected: Expected) -> Check:
    """Nodes, names, inputs and outputs are the uploaded ones."""

    def skeleton(model: ImportedModel) -> list[object]:
        graph = model.proto.graph
        nodes = [(n.op_type, n.name, *n.input, "->", *n.output) for n in graph.node]
        ends = [v.SerializeToString(deterministic=True) for v in (*graph.input, *graph.output)]
        return [nodes, ends, [t.name for t in graph.initializer]]

    same = skeleton(again) == skeleton(expected.imported)
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


def _bitmask(path: Path, again: ImportedModel) -> Check:
    found, arrays = bitmask.decode(path), tensors(again.proto)
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


def _session(path: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 4
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _outputs(
    path: Path, model: ImportedModel, data: ArrayData, threads: int
) -> Iterator[np.ndarray]:
    session = _session(path, threads)
    output = session.get_outputs()[0].name
    types = {fact.name: fact.dtype for fact in model.facts.inputs}
    fixed = _declared_batch(model)
    for batch, _ in data.batches(fixed or _BATCH):
        count = len(batch[0])
        feed = {
            name: _filled(part.numpy(), fixed or count).astype(types[name])
            for name, part in zip(data.inputs, batch, strict=True)
        }
        found = session.run([output], feed)[0]
        yield found[:count] if fixed else found


def _declared_batch(model: ImportedModel) -> int | None:
    """The batch size that the file declares, to which onnxruntime keeps; None where it is free.

    torch runs such a graph at any size where nothing in it depends on the declared one.
    """
    sizes = [fact.shape[0] for fact in model.facts.inputs if fact.shape]
    return next((size for size in sizes if isinstance(size, int) and size > 0), None)


def _filled(part: np.ndarray, size: int) -> np.ndarray:
    """A last, smaller batch filled up to `size` with its last sample."""
    if len(part) == size:
        return part
    return np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])


def _runtime(written: Written, expected: Expected, data: ArrayData, threads: int) -> list[Check]:
    """Outputs and accuracy in onnxruntime against the pruned network in torch.

    Where onnxruntime can't run the upload either, that is a warning and not our failure.
    """
    try:
        runtime = np.concatenate(list(_outputs(written.model, expected.imported, data, threads)))
    except Exception as error:  # onnxruntime has a dozen exception types without a common base
        return [_cannot_run(written, expected, data, threads, error)]
    return [_difference(runtime, expected, data), *_accuracy(runtime, expected.report, data)]


def _cannot_run(
    written: Written, expected: Expected, data: ArrayData, threads: int, error: Exception
) -> Check:
    reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
    try:
        list(_outputs(written.uploaded, expected.imported, data, threads))
    except Exception:
        return Check(
            name="onnxruntime_outputs",
            status="warn",
            message=f"onnxruntime runs neither the upload nor the pruned model: {reason}",
        )
    return Check(
        name="onnxruntime_outputs",
        status="fail",
        message=f"onnxruntime runs the upload but not the pruned model: {reason}",
    )


@torch.no_grad()
def _difference(runtime: np.ndarray, expected: Expected, data: ArrayData) -> Check:
    some = data.select(slice(0, COMPARED))
    outputs = [first_output(expected.module(*batch)) for batch, _ in some.batches(_BATCH)]
    torch_outputs = torch.cat(outputs).double().numpy()
    same_shape = torch_outputs.shape == runtime[: len(torch_outputs)].shape
    distance = np.inf
    if same_shape and torch_outputs.size:
        gap = np.abs(torch_outputs - runtime[: len(torch_outputs)].astype(np.float64)).max()
        distance = float(gap / max(np.abs(torch_outputs).max(), 1e-12))
    half = "float16" in {layer.dtype for layer in expected.imported.facts.layers}
    allowed = TOLERANCE_HALF if half else TOLERANCE
    return _check(
        "onnxruntime_outputs",
        distance,
        allowed,
        f"The written file in onnxruntime and the pruned network in torch put out the same on "
        f"{some.samples} samples, relative to the largest output.",
        f"onnxruntime's outputs for the written file differ from torch's by {distance:.3g} of the "
        f"largest output; {allowed:g} is allowed.",
        distance <= allowed,
    )


def _accuracy(runtime: np.ndarray, report: Report, data: ArrayData) -> list[Check]:
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
            "onnxruntime_accuracy",
            abs(measured - reported.value),
            allowed,
            f"Accuracy of the written file in onnxruntime is {measured:.4f}, as reported "
            f"({len(right):,} samples).",
            f"Accuracy of the written file in onnxruntime is {measured:.4f}; the report says "
            f"{reported.value:.4f}.",
            abs(measured - reported.value) <= allowed + 1e-12,
        )
    ]
