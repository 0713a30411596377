"""A file through the library: read, pruned layer by layer without labels, written, run, counted."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import numpy_helper
from torch import Tensor

from pruning.data.batches import ArrayData
from pruning.formats.onnx import ImportedModel, inference_copy, read_onnx, write_onnx
from pruning.loop import Outcome, prune
from pruning.spec import default_spec

SPARSITY = 0.6


@dataclass(frozen=True)
class Pruned:
    """What became of a file.

    Args:
        imported: The upload.
        outcome: Module, masks and report.
        written: The file that goes back.
        inputs: What it was compared on, by name.
    """

    imported: ImportedModel
    outcome: Outcome
    written: Path
    inputs: dict[str, np.ndarray]


def pruned(file: bytes, inputs: dict[str, Tensor], folder: Path) -> Pruned:
    """Reads the file and takes 60 % of its weights away, one layer after another."""
    imported = read_onnx(file)
    spec = default_spec(labelled=False) | {
        "target": {"sparsity": SPARSITY},
        "trust": {"checks": False},
    }
    names = imported.module.input_names
    data = ArrayData({name: inputs[name] for name in names})
    outcome = prune(imported.module, data, spec, facts=imported.facts)
    written = folder / "pruned.onnx"
    write_onnx(imported, written, outcome.module)
    declared = imported.facts.inputs[0].shape[0]
    few = declared if isinstance(declared, int) and declared > 0 else 3
    return Pruned(imported, outcome, written, {n: data.inputs[n][:few].numpy() for n in names})


def run_onnx(file: bytes | Path, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """All outputs in onnxruntime."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    source = file if isinstance(file, bytes) else str(file)
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def apart(found: list[np.ndarray], module: torch.nn.Module, inputs: dict[str, np.ndarray]) -> float:
    """The largest distance between onnxruntime's outputs and the module's, of any output.

    Relative to the output's largest number.
    """
    with torch.no_grad():
        outputs = module(*(torch.from_numpy(x) for x in inputs.values()))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    assert len(outputs) == len(found)
    worst = 0.0
    for ours, theirs in zip(outputs, found, strict=True):
        assert tuple(ours.shape) == theirs.shape
        if ours.numel():
            gap = np.abs(ours.double().numpy() - theirs.astype(np.float64)).max()
            worst = max(worst, float(gap / max(np.abs(theirs).max(), 1e-12)))
    return worst


def tensors(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Initialisers and the values of Constant nodes."""
    found = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def check(result: Pruned, tolerance: float = 1e-4) -> None:
    """Exactly as many zeros as were asked for, in the file's own tensors; equal in onnxruntime."""
    outcome, masks = result.outcome, result.outcome.masks
    removed = int(SPARSITY * outcome.report.sparsity.total + 0.5)
    assert outcome.report.sparsity.removed == removed
    assert sum(int((~kept).sum()) for kept in masks.values()) == removed
    for name, kept in masks.items():
        assert not bool(outcome.module.get_parameter(name)[~kept].any()), name
    written = onnx.load(result.written)
    after, before = tensors(written), tensors(result.imported.proto)
    held = {result.imported.weight_names[name] for name in masks}
    zeros = {name: int((after[name] == 0).sum()) for name in held}
    assert sum(zeros.values()) - sum(int((before[name] == 0).sum()) for name in held) == removed
    file = inference_copy(written).SerializeToString()
    assert apart(run_onnx(file, result.inputs), outcome.module, result.inputs) <= tolerance
