"""What an exception inside a step means: our error, data that do not fit, or the file."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from pruning.errors import SecateurError
from pruning.formats.architecture import export
from pruning.formats.limits import Limits
from pruning.formats.onnx import read_onnx
from pruning.formats.onnx.ops import OPERATORS
from pruning.formats.registry import read_model
from tests.pruning.formats.huggingface_cases import made
from tests.pruning.formats.onnx_cases import Net

torch.set_num_threads(1)


def broken(*_: object, **__: object) -> None:
    raise AttributeError("'numpy.ndarray' object has no attribute 'transpose_'")


def unexpected(*_: object, **__: object) -> None:
    raise RuntimeError("no such kernel")


def image_net(opset: int = 17) -> onnx.ModelProto:
    """Takes images of any size by its file, and of 6 x 6 by its last layer."""
    net = Net()
    net.op("Conv", ["x", net.weight("c", 2, 1, 3, 3)], "h")
    net.op("Relu", ["h"], "r")
    net.op("Flatten", ["r"], "f")
    net.op("MatMul", ["f", net.weight("w", 32, 3)], "y")
    return net.model({"x": ["n", 1, "height", "width"]}, ["y"], opset)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(1, 2, 3), nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.conv(x)).flatten(1))


def modules(folder: Path) -> dict[str, nn.Module]:
    """One network by each format that runs steps of its own."""
    network, x = Plain().eval(), torch.randn(2, 1, 6, 6)
    export(network, (x,), folder / "net")
    batch = torch.export.Dim("batch")
    torch.export.save(
        torch.export.export(network, (x,), dynamic_shapes=({0: batch},)), folder / "net.pt2"
    )
    fixed = image_net()
    for axis in (2, 3):
        fixed.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = 6
    return {
        "onnx": read_onnx(fixed.SerializeToString()).module,
        "pt2": read_model(folder / "net.pt2", Limits()).module,
        "architecture": read_model(folder / "net", Limits()).module,
    }


def spoil(module: nn.Module, function: Callable[..., object]) -> None:
    """Puts a fault of ours into the network: into its activation, or a layer."""
    for step in getattr(module, "steps", ()):
        if "relu" in step.operator.lower():
            if isinstance(module.steps, tuple):
                module.steps = tuple(
                    replace(s, function=function) if s is step else s for s in module.steps
                )
            else:
                step.function = function
            return
    next(m for m in module.modules() if isinstance(m, nn.Conv2d)).forward = function


def failure(module: nn.Module, *inputs: torch.Tensor) -> SecateurError:
    with pytest.raises(SecateurError) as caught, torch.no_grad():
        module(*inputs)
    return caught.value


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("format", ["onnx", "pt2", "architecture"])
def test_a_fault_inside_an_operator_is_ours_and_says_which(format, tmp_path):
    module = modules(tmp_path)[format]
    x = torch.randn(3, 1, 6, 6)
    assert module(x).shape == (3, 3)
    spoil(module, broken)
    error = failure(module, x)
    assert error.code == "internal_error"
    assert error.where
    assert error.details["operator"] in error.message
    assert "AttributeError: 'numpy.ndarray' object has no attribute" in error.message
    assert "neither the model nor the data" in error.hint


class Sequences(nn.Module):
    """Takes steps first, samples second."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 3), nn.Linear(15, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.first(x)).transpose(0, 1).flatten(1))


@pytest.mark.filterwarnings("ignore")
def test_a_fault_is_ours_also_where_samples_are_not_on_the_first_axis(tmp_path):
    batch = torch.export.Dim("batch")
    made = torch.export.export(
        Sequences().eval(), (torch.randn(5, 2, 4),), dynamic_shapes=({1: batch},)
    )
    torch.export.save(made, tmp_path / "net.pt2")
    module = read_model(tmp_path / "net.pt2", Limits()).module
    assert module(torch.randn(5, 3, 4)).shape == (3, 2)
    spoil(module, unexpected)
    assert failure(module, torch.randn(5, 3, 4)).code == "internal_error"
    assert failure(module, torch.randn(6, 3, 4)).code == "data_shape"


FILES = {"pt2": "net.pt2", "architecture": "net", "huggingface": "bert"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("format", FILES)
def test_a_fault_that_intake_meets_is_ours_in_formats_that_intake_runs(
    format, tmp_path, monkeypatch
):
    modules(tmp_path)
    made("bert", "BertForSequenceClassification", tmp_path / "bert")
    read_model(tmp_path / FILES[format], Limits())
    layer = nn.LayerNorm if format == "huggingface" else nn.Conv2d
    monkeypatch.setattr(layer, "forward", broken)
    with pytest.raises(SecateurError) as caught:
        read_model(tmp_path / FILES[format], Limits())
    assert caught.value.code == "internal_error"
    assert caught.value.where
    assert "failed with AttributeError" in caught.value.message


@pytest.mark.parametrize("error", [RuntimeError, AttributeError])
def test_a_fault_inside_transformers_names_the_layer(error, tmp_path, monkeypatch):
    def fails(*_: object) -> None:
        raise error("of the library")

    made("bert", "BertForSequenceClassification", tmp_path)
    module = read_model(tmp_path, Limits()).module
    names = {name for name, part in module.named_modules() if isinstance(part, nn.LayerNorm)}
    ids, ones = torch.ones(2, 7, dtype=torch.int64), torch.ones(2, 7, dtype=torch.int64)
    module(ids, ones, ones)
    monkeypatch.setattr(nn.LayerNorm, "forward", fails)
    found = failure(module, ids, ones, ones)
    assert (found.code, found.details["operator"]) == ("internal_error", "LayerNorm")
    assert found.where in names
    with pytest.raises(SecateurError) as caught:
        read_model(tmp_path, Limits())
    assert caught.value.code == "internal_error"


def test_a_token_over_the_vocabulary_is_the_datas_fault(tmp_path):
    made("bert", "BertForSequenceClassification", tmp_path)
    module = read_model(tmp_path, Limits()).module
    ids, ones = torch.full((2, 7), 4000), torch.ones(2, 7, dtype=torch.int64)
    found = failure(module, ids, ones, ones)
    assert (found.code, found.where) == ("data_values", "bert.embeddings.word_embeddings")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("format", ["onnx", "pt2", "architecture"])
def test_a_fault_under_derivatives_is_ours(format, tmp_path):
    module = modules(tmp_path)[format]

    def in_place(input: torch.Tensor) -> torch.Tensor:
        return torch.zeros(input.shape[-1]).add_(input)

    spoil(module, in_place)
    with pytest.raises(SecateurError) as caught:
        torch.func.vmap(lambda x: module(x[None]))(torch.randn(3, 1, 6, 6))
    assert caught.value.code == "internal_error"
    assert "while derivatives were taken" in caught.value.message


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("format", ["onnx", "pt2", "architecture"])
def test_inputs_of_other_sizes_than_the_files_are_the_datas_fault(format, tmp_path):
    assert failure(modules(tmp_path)[format], torch.randn(3, 1, 9, 9)).code == "data_shape"


def test_sizes_that_the_file_leaves_open_and_that_do_not_fit_are_the_datas_fault():
    module = read_onnx(image_net().SerializeToString()).module
    assert module(torch.randn(2, 1, 6, 6)).shape == (2, 3)
    error = failure(module, torch.randn(2, 1, 9, 9))
    assert (error.code, "MatMul" in error.message) == ("data_shape", True)
    assert "[2, 1, 9, 9]" in error.message


def test_at_sizes_that_another_runtime_computes_the_fault_is_ours():
    module = read_onnx(image_net().SerializeToString()).module
    spoil(module, broken)
    assert failure(module, torch.randn(2, 1, 6, 6)).code == "internal_error"


def test_a_valid_model_that_intake_can_not_run_is_our_error(monkeypatch):
    def build(node, builder) -> None:
        builder.call(node, broken, [node.input(0)])

    net = Net()
    # Of a size that the graph fixes, so that intake tries it.
    net.op("Reshape", ["x", net.const("s", np.array([2, 4]))], "r")
    net.op("Tanh", ["r"], "t")
    net.op("MatMul", ["t", net.weight("a", 4, 5)], "y")
    data = net.model({"x": [2, 4]}, ["y"]).SerializeToString()
    read_onnx(data)
    monkeypatch.setitem(OPERATORS, "Tanh", build)
    with pytest.raises(SecateurError) as caught:
        read_onnx(data)
    assert caught.value.code == "internal_error"
    assert caught.value.message.startswith("Tanh failed with AttributeError")


def test_a_model_that_no_runtime_computes_is_invalid():
    net = Net()
    net.op("MatMul", ["x", net.weight("a", 4, 5)], "h")
    net.op("Reshape", ["h", net.const("s", np.array([3, 7]))], "r")
    net.op("MatMul", ["r", net.weight("b", 7, 2)], "y")
    model = net.model({"x": [2, 4]}, ["y"])
    with pytest.raises(SecateurError) as caught:
        read_onnx(model.SerializeToString())
    assert caught.value.code == "model_invalid"


def test_a_token_that_the_table_lacks_is_the_datas_fault():
    net = Net()
    net.op("Gather", [net.weight("table", 10, 4), "ids"], "e")
    net.op("ReduceMean", ["e"], "m", axes=[1], keepdims=0)
    net.op("MatMul", ["m", net.weight("w", 4, 2)], "y")
    model = net.model({"ids": (onnx.TensorProto.INT64, ["n", 3])}, ["y"])
    module = read_onnx(model.SerializeToString()).module
    error = failure(module, torch.tensor([[1, 2, 30]]))
    assert error.code == "data_values"
    assert "Gather" in error.message
