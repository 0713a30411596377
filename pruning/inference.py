"""Outputs of a model as its users get them: ONNX files in onnxruntime, other formats in torch."""

from collections.abc import Iterator

import numpy as np
import onnxruntime as ort
import torch
from onnx import NodeProto

from pruning.curvature.network import first_output
from pruning.data.batches import ArrayData
from pruning.formats.contract import Imported
from pruning.formats.onnx import ImportedModel, inference_copy
from pruning.samples import Place, adapt, by_samples

_BATCH = 512


def engine(model: Imported) -> str:
    """What `outputs` runs the model in."""
    return "onnxruntime" if isinstance(model, ImportedModel) else "torch"


def outputs(model: Imported, data: ArrayData, threads: int) -> Iterator[np.ndarray]:
    """The first output for all samples, a batch at a time.

    Args:
        model: As read from its file.
        data: Its inputs.
        threads: Threads of one onnxruntime operation.

    Raises:
        Exception: Whatever onnxruntime raises for a model that it can't run.
    """
    with torch.no_grad(), by_samples(model.module):
        place = adapt(model.module, data, model.facts.batch)
        if isinstance(model, ImportedModel):
            yield from _in_onnxruntime(model, data, threads, place)
            return
        for batch, _ in data.batches(_BATCH):
            yield first_output(model.module(*batch)).numpy()


def _session(model: ImportedModel, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 4
    graph: bytes | str = str(model.source)
    if any(map(_in_training_mode, model.proto.graph.node)):
        # As it stands, the file would drop numbers at random.
        graph = inference_copy(model.proto).SerializeToString()
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _in_training_mode(node: NodeProto) -> bool:
    if node.op_type == "Dropout":
        return len(node.input) > 2
    return any(a.name == "training_mode" and a.i for a in node.attribute)


def _in_onnxruntime(
    model: ImportedModel, data: ArrayData, threads: int, place: Place
) -> Iterator[np.ndarray]:
    session = _session(model, threads)
    output = session.get_outputs()[place.output].name
    types = {fact.name: fact.dtype for fact in model.facts.inputs}
    fixed = _declared_batch(model)
    for batch, _ in data.batches(fixed or _BATCH):
        count = len(batch[0])
        feed = {
            name: _filled(part.numpy(), fixed or count).astype(types[name])
            for name, part in zip(data.inputs, batch, strict=True)
        }
        found = np.moveaxis(session.run([output], feed)[0], place.axis, 0)
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
