"""A real network on real digits, as files."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from torch import nn


def to_onnx(model: nn.Sequential, path: Path) -> None:
    """Gemm, Relu, MatMul + Add: both ways in which exporters write a linear layer."""
    w1, b1, w2, b2 = (p.detach().numpy() for p in model.parameters())
    nodes = [
        helper.make_node("Gemm", ["pixels", "fc1.weight", "fc1.bias"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "head.weight"], ["m"]),
        helper.make_node("Add", ["m", "head.bias"], ["logits"]),
    ]
    arrays = {"fc1.weight": w1, "fc1.bias": b1, "head.weight": w2.T.copy(), "head.bias": b2}
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(a, n) for n, a in arrays.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)


@pytest.fixture(scope="session")
def digits_files(tmp_path_factory) -> Path:
    """A folder with digits.onnx and its data, 900 samples to calibrate and 400 to evaluate."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    model = nn.Sequential(nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(120):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.tensor(x[:900])), torch.tensor(y[:900])).backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("inputs")
    to_onnx(model, folder / "digits.onnx")
    np.savez(folder / "calibration.npz", pixels=x[:900], target=y[:900])
    np.savez(folder / "evaluation.npz", pixels=x[900:1300], target=y[900:1300])
    return folder
