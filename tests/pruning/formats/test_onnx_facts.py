import numpy as np
import pytest
import torch
from onnx import TensorProto
from torch import nn

from pruning.formats.onnx import read_onnx
from tests.pruning.formats.onnx_cases import (
    CASES,
    Net,
    cnn,
    difference,
    ints,
    mlp,
)

torch.set_num_threads(1)


def test_layers_are_torch_layers_at_the_names_of_the_file():
    imported = read_onnx(cnn().SerializeToString())
    layers = {n: m for n, m in imported.module.named_modules() if n}
    kinds = {
        "conv1": nn.Conv2d, "bn1": nn.BatchNorm2d, "conv2": nn.Conv2d, "conv3": nn.Conv2d,
        "conv4": nn.Conv2d, "fc": nn.Linear,
    }  # fmt: skip
    assert layers.keys() == kinds.keys()
    assert all(isinstance(layers[name], kind) for name, kind in kinds.items())
    assert imported.weight_names["conv3.weight"] == "conv3.weight"
    assert not imported.module.training
    names = {n for n, _ in imported.module.named_parameters()}
    assert names == {
        "conv1.weight", "conv1.bias", "bn1.weight", "bn1.bias", "conv2.weight", "conv3.weight",
        "conv4.weight", "fc.weight", "fc.bias",
    }  # fmt: skip


def test_facts_of_the_cnn():
    facts = read_onnx(cnn().SerializeToString()).facts
    layers = {layer.name: layer for layer in facts.layers}
    assert [layer.name for layer in facts.layers] == ["conv1", "conv2", "conv3", "conv4", "fc"]
    assert layers["conv1"].positions == 99
    assert layers["conv1"].macs == 99 * 8 * 3 * 9
    assert layers["conv1"].activation_bytes == 8 * 99 * 4
    assert layers["conv2"].groups == 2
    assert layers["fc"].positions == 1
    assert [layer.name for layer in facts.layers if layer.is_output] == ["fc"]
    assert facts.batch is None
    assert facts.inputs[0].shape == ["n", 3, 9, 11]
    assert facts.macs == sum(layer.macs for layer in facts.layers)
    assert facts.prunable_parameters == 216 + 288 + 72 + 128 + 240
    assert facts.parameters == facts.prunable_parameters + 8 + 16 + 10
    assert facts.operators["Conv"] == 4


def test_positions_of_a_linear_layer_on_sequences_are_the_sequence():
    facts = read_onnx(CASES["transformer"][0](17).SerializeToString()).facts
    assert {layer.positions for layer in facts.layers} == {4}


def test_a_fixed_batch_is_free_where_the_graph_allows_it():
    model = mlp()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    assert read_onnx(model.SerializeToString()).facts.batch is None


def test_a_batch_fixed_by_a_reshape_alone_is_free_in_memory_and_stays_in_the_file():
    net = Net()
    net.op("Reshape", ["x", net.const("shape", ints(4, 6))], "r")
    net.op("Gemm", ["r", net.weight("fc.weight", 2, 6)], "y", transB=1)
    facts = read_onnx(net.model({"x": [4, 2, 3]}, ["y"]).SerializeToString()).facts
    assert facts.batch is None
    assert facts.inputs[0].shape[0] == 4
    assert facts.layers[0].positions == 1


def test_a_graph_that_mixes_samples_has_a_fixed_batch():
    net = Net()
    net.op("ReduceMean", ["x"], "m", axes=[0])
    net.op("Sub", ["x", "m"], "d")
    net.op("MatMul", ["d", net.weight("w", 3, 2)], "y")
    assert read_onnx(net.model({"x": [4, 3]}, ["y"]).SerializeToString()).facts.batch == 4


def test_open_sizes_are_measured_at_small_ones():
    net = Net()
    net.op("Conv", ["x", net.weight("c.weight", 2, 1, 3, 3)], "y")
    for open_size in ("h", -1):
        model = net.model({"x": ["n", 1, "h", "w"]}, ["y"])
        if open_size == -1:
            for i in (0, 2, 3):
                model.graph.input[0].type.tensor_type.shape.dim[i].dim_value = -1
        facts = read_onnx(model.SerializeToString()).facts
        assert facts.layers[0].positions == 62 * 62
        assert facts.macs == 62 * 62 * 18
        assert facts.batch is None


def test_one_tensor_in_two_layers_is_one_parameter():
    net = Net()
    net.weight("w", 4, 4)
    net.op("MatMul", ["x", "w"], "a")
    net.op("Relu", ["a"], "r")
    net.op("MatMul", ["r", "w"], "y")
    model = net.model({"x": ["n", 4]}, ["y"])
    imported = read_onnx(model.SerializeToString())
    first, second = (layer for layer in imported.facts.layers)
    assert second.tied_to == first.name == "w"
    assert imported.module.get_parameter("w.weight") is imported.module.get_parameter(
        f"{second.name}.weight"
    )
    assert imported.facts.ties == [["w.weight", f"{second.name}.weight"]]
    assert imported.facts.prunable_parameters == 16
    x = np.ones((2, 4), np.float32)
    assert difference(model, x) < 1e-5


def test_a_weight_also_used_as_a_value_follows_the_parameter():
    """An embedding table tied to the output layer: both see a change."""
    net = Net()
    net.weight("table", 6, 4)
    net.op("Gather", ["table", "x"], "e")
    net.op("Transpose", ["table"], "tt", perm=[1, 0])
    net.op("MatMul", ["e", "tt"], "y")
    model = net.model({"x": (TensorProto.INT64, ["n", 3])}, ["y"])
    x = np.random.default_rng(0).integers(0, 6, (2, 3))
    assert difference(model, x) < 1e-5
    module = read_onnx(model.SerializeToString()).module
    assert not list(module.buffers())
    with torch.no_grad():
        module.get_parameter("table.weight").zero_()
        assert not module(torch.from_numpy(x)).any()


@pytest.mark.parametrize("name", [
    "forward.weight", "train.weight", "_modules.weight", "a..b.weight", "__class__.weight",
    "x" * 500 + ".weight", "../../etc.weight", "a b.weight", "steps.weight", ".weight", "weight",
    "training.weight", ".".join("a" * 40) + ".weight", "parameters.inner.weight", "é.weight",
])  # fmt: skip
def test_hostile_names_get_a_safe_path(name):
    net = Net()
    net.op("MatMul", ["x", net.weight(name, 4, 2)], "y")
    imported = read_onnx(net.model({"x": ["n", 4]}, ["y"]).SerializeToString())
    (layer,) = imported.facts.layers
    assert layer.weight == name
    assert isinstance(imported.module.get_submodule(layer.name), nn.Linear)
    assert all(part.isidentifier() and part.isascii() for part in layer.name.split("."))
    assert callable(imported.module.forward)
    assert imported.module(torch.ones(3, 4)).shape == (3, 2)


def test_a_path_does_not_run_through_another_layer():
    net = Net()
    net.op("MatMul", ["x", net.weight("fc.weight", 4, 4)], "a")
    net.op("MatMul", ["a", net.weight("fc.weight.weight", 4, 4)], "b")
    net.op("MatMul", ["b", net.weight("fc.bias.weight", 4, 4)], "y")
    imported = read_onnx(net.model({"x": ["n", 4]}, ["y"]).SerializeToString())
    assert len({layer.name for layer in imported.facts.layers}) == 3
