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
from pruning.formats.onnx import ImportedModel, read_onnx, write_onnx
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


def tensors(file: Path) -> dict[str, np.ndarray]:
    """Initialisers and the values of Constant nodes."""
    graph = onnx.load(file).graph
    found = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def check(result: Pruned, tolerance: float = 1e-4) -> None:
    """Exactly as many zeros as were asked for, in the file's own tensors; equal in onnxruntime."""
    report, masks = result.outcome.report, result.outcome.masks
    wanted = int(SPARSITY * report.sparsity.total + 0.5)
    assert report.sparsity.removed == wanted == sum(int((~m).sum()) for m in masks.values())
    arrays, names = tensors(result.written), result.imported.weight_names
    gone = sum(int((result.outcome.module.get_parameter(n)[~m] == 0).sum()) for n, m in masks.items())
    assert gone == wanted
    held = {names[name]: int((arrays[names[name]] == 0).sum()) for name in masks}
    before = {
        n: int((result.imported.module.get_parameter(n) == 0).sum()) for n in masks
    }
    assert sum(held.values()) >= wanted
    if not any(before.values()):
        assert sum(held.values()) == wanted
    worst = apart(run_onnx(result.written, result.inputs), result.outcome.module, result.inputs)
    assert worst <= tolerance
