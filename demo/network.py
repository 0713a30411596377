"""The demo's network: a 64-32-10 ReLU perceptron on scikit-learn's real 8x8 digits, as ONNX."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from torch import nn

HIDDEN, CLASSES, PIXELS = 32, 10, 64


@dataclass(frozen=True)
class Arrays:
    """Inputs in [0, 1], float32 [samples, 64], and labels, int64 [samples]."""

    x: np.ndarray
    target: np.ndarray


def digits(seed: int) -> tuple[Arrays, Arrays]:
    """Three quarters to train on, the rest to evaluate, drawn with the seed."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    x, target = (images[order] / 16.0).astype(np.float32), labels[order].astype(np.int64)
    cut = len(labels) * 3 // 4
    return Arrays(x[:cut], target[:cut]), Arrays(x[cut:], target[cut:])


def train(data: Arrays, seed: int, epochs: int = 60) -> nn.Sequential:
    """The trained network, in eval mode."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.005, weight_decay=0.01)
    x, target = torch.from_numpy(data.x), torch.from_numpy(data.target)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[batch]), target[batch]).backward()
            optimizer.step()
    return net.eval()


def accuracy(net: nn.Sequential, data: Arrays) -> float:
    """Share of the samples that the network gets right."""
    with torch.no_grad():
        found = net(torch.from_numpy(data.x)).argmax(1).numpy()
    return float((found == data.target).mean())


def export(net: nn.Sequential, path: Path) -> None:
    """Writes the network as a user's exporter would: input `x`, any batch size."""
    first, second = net[0], net[2]
    arrays = {
        "fc1.weight": first.weight,
        "fc1.bias": first.bias,
        "fc2.weight": second.weight,
        "fc2.bias": second.bias,
    }
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "fc1.weight", "fc1.bias"], ["h"], "fc1", transB=1),
            helper.make_node("Relu", ["h"], ["a"], "relu"),
            helper.make_node("Gemm", ["a", "fc2.weight", "fc2.bias"], ["logits"], "fc2", transB=1),
        ],
        "digits",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", PIXELS])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(a.detach().numpy(), name) for name, a in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def save(data: Arrays, path: Path) -> None:
    """Writes arrays named after the model's input, and `target`."""
    np.savez(path, x=data.x, target=data.target)
