"""Checks a downloaded network in onnxruntime against what its report says."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateur.resources import Model

if TYPE_CHECKING:
    from network import Arrays
    from onnx import ModelProto


class DemoError(Exception):
    """Something the demo promises did not hold."""


def check(holds: bool, message: str) -> None:
    """Raises `DemoError` with the message unless it holds."""
    if not holds:
        raise DemoError(message)


def delivered_accuracy(report: dict[str, Any]) -> float:
    """The accuracy that the report states for the file it came with."""
    metrics = report["metrics"]
    return float((metrics["recovered"] or metrics["pruned"])["accuracy"]["value"])


def verify(path: Path, report: dict[str, Any], model: Model, evaluation: "Arrays") -> None:
    """Accuracy on the evaluation data, and exact zeros layer by layer and in total.

    Raises:
        DemoError: Where the file and the report disagree.
    """
    import numpy as np
    import onnxruntime
    from onnx import numpy_helper

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"x": evaluation.x})
    measured = float((np.asarray(logits).argmax(1) == evaluation.target).mean())
    stated = delivered_accuracy(report)
    check(
        abs(measured - stated) < 1e-9,
        f"{path.name}: onnxruntime measures {measured:.4%}, the report says {stated:.4%}",
    )
    stored = {t.name: numpy_helper.to_array(t) for t in _proto(path).graph.initializer}
    facts = model.typed_facts
    check(facts is not None, "the model has no facts")
    assert facts is not None
    tensors = {layer.name: stored[layer.weight] for layer in facts.layers}
    for layer in report["layers"]:
        zeros = int((tensors[layer["name"]] == 0).sum())
        check(
            zeros == layer["zeros"],
            f"{path.name}: {layer['name']} holds {zeros} zeros, the report says {layer['zeros']}",
        )
    removed = report["sparsity"]["removed"]
    total = sum(layer["zeros"] for layer in report["layers"])
    check(total >= removed, f"{path.name}: {total} zeros, {removed} weights removed")


def _proto(path: Path) -> "ModelProto":
    from onnx import ModelProto

    proto = ModelProto()
    proto.ParseFromString(path.read_bytes())
    return proto
