"""Outputs of a model as its users get them: ONNX files in onnxruntime, other formats in torch."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch

from pruning.curvature.network import first_output
from pruning.data.batches import ArrayData
from pruning.formats.contract import Imported

_BATCH = 512


def engine(model: Imported) -> str:
    """What `outputs` runs the model in."""
    return "onnxruntime" if model.facts.format == "onnx" else "torch"


def outputs(model: Imported, data: ArrayData, threads: int) -> Iterator[np.ndarray]:
    """The first output for all samples, a batch at a time.

    Args:
        model: As read from its file.
        data: Its inputs.
        threads: Threads of one onnxruntime operation.

    Raises:
        Exception: Whatever onnxruntime raises for a model that it can't run.
    """
    if engine(model) == "onnxruntime":
        yield from _in_onnxruntime(model, data, threads)
        return
    with torch.no_grad():
        for batch, _ in data.batches(model.facts.batch or _BATCH):
            yield first_output(model.module(*batch)).numpy()


def _session(path: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 4
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _in_onnxruntime(model: Imported, data: ArrayData, threads: int) -> Iterator[np.ndarray]:
    session = _session(model.source, threads)
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


def _declared_batch(model: Imported) -> int | None:
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
