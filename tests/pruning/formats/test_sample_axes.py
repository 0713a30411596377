"""Where inputs and outputs hold samples, found out while reading, in every format that tells."""

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from pruning.errors import SecateurError
from pruning.facts import ModelFacts
from pruning.formats.architecture import export
from pruning.formats.limits import Limits
from pruning.formats.onnx import read_onnx
from pruning.formats.registry import read_model
from tests.pruning.formats.onnx_cases import Net, ints

torch.set_num_threads(1)


def lstm(shape: list, state: list | None = None) -> ModelFacts:
    net = Net()
    names = ["x", net.weight("w", 1, 32, 6), net.weight("r", 1, 32, 8), net.weight("b", 1, 64)]
    if state:
        names += ["", "h0", "c0"]
    net.nodes.append(helper.make_node("LSTM", names, ["", "h", ""], hidden_size=8))
    net.op("Squeeze", ["h", net.const("axis", ints(0))], "hs")
    net.op("MatMul", ["hs", net.weight("fc", 8, 3)], "y")
    inputs = {"x": shape} | ({"h0": state, "c0": state} if state else {})
    return read_onnx(net.model(inputs, ["y"]).SerializeToString()).facts


@pytest.mark.parametrize(
    "shape",
    [[5, "batch", 6], ["seq", "batch", 6], ["a0", "a1", 6], ["?", "?", 6], [5, 1, 6], [5, 4, 6]],
)
def test_steps_before_samples_are_told_by_names_or_else_by_a_trial(shape):
    found = lstm(shape)
    assert (found.inputs[0].samples, found.outputs[0].samples, found.batch) == (1, 0, None)


@pytest.mark.parametrize("size", ["batch", "d", 1, 3])
def test_states_hold_their_samples_on_the_second_axis(size):
    found = lstm([5, size, 6], [1, size, 8])
    assert [fact.samples for fact in found.inputs] == [1, 1, 1]
    assert found.inputs[1].as_data == ["N", 1, 8]


def test_a_name_that_a_trial_contradicts_leaves_the_axis_unknown():
    assert lstm(["batch", 4, 6]).inputs[0].samples == "unknown"


@pytest.mark.parametrize("scale", [1.0, 1e-6])
@pytest.mark.parametrize("shift", [0.0, 1000.0])
@pytest.mark.parametrize("shape", [[5, 3, 6], [5, 1, 6], ["a", "b", 6]])
def test_results_that_are_small_or_hardly_change_are_compared_in_their_own_size(
    shape, scale, shift
):
    net = Net()
    names = ["x", net.weight("w", 1, 32, 6), net.weight("r", 1, 32, 8), net.weight("b", 1, 64)]
    net.nodes.append(helper.make_node("LSTM", names, ["s"], hidden_size=8))
    net.op("Squeeze", ["s", net.const("axis", ints(1))], "hs")
    net.op("MatMul", ["hs", net.weight("fc", 8, 3)], "m")
    net.op("Add", ["m", net.const("shift", np.float32(shift))], "a")
    net.op("Mul", ["a", net.const("scale", np.float32(scale))], "y")
    found = read_onnx(net.model({"x": shape}, ["y"]).SerializeToString()).facts
    assert (found.inputs[0].samples, found.outputs[0].samples) == (1, 1)


def loudest(shape: list) -> ModelFacts:
    """A recording over its largest number, as exporters of one sample write it."""
    net = Net()
    net.op("Abs", ["x"], "abs")
    net.op("ReduceMax", ["abs"], "most", keepdims=0)
    net.op("Div", ["x", "most"], "d")
    net.op("MatMul", ["d", net.weight("w", 4, 3)], "y")
    return read_onnx(net.model({"x": shape}, ["y"]).SerializeToString()).facts


@pytest.mark.parametrize("shape", [["batch", 4], ["d", 4], [3, 4]])
def test_a_number_that_one_sample_decides_for_all_is_noticed(shape):
    assert loudest(shape).inputs[0].samples == "unknown"


def test_one_sample_at_a_time_has_nothing_to_be_mixed_with():
    found = loudest([1, 4])
    assert (found.inputs[0].samples, found.batch) == (0, 1)


def test_recordings_have_their_length_last():
    net = Net()
    net.op("Unsqueeze", ["x", net.const("a", ints(1))], "u")
    net.op("Conv", ["u", net.weight("c", 4, 1, 5)], "f")
    net.op("ReduceMean", ["f"], "m", axes=[2], keepdims=0)
    net.op("MatMul", ["m", net.weight("w", 4, 3)], "y")
    found = read_onnx(net.model({"x": [1, "samples"]}, ["y"]).SerializeToString()).facts
    assert found.inputs[0].samples == 0


def test_a_declaration_goes_before_names_and_trials():
    net = Net()
    net.op("ReduceMean", ["x"], "m", axes=[0])
    net.op("Sub", ["x", "m"], "d")
    net.op("MatMul", ["d", net.weight("w", 4, 3)], "y")
    model = net.model({"x": ["batch", 4]}, ["y"]).SerializeToString()
    assert read_onnx(model).facts.inputs[0].samples == "unknown"
    declared = read_onnx(model, None, {"x": 0}).facts
    assert declared.inputs[0].samples == 0
    # It compares samples: they are run in the same company wherever it is run.
    assert declared.batch == 16


@pytest.mark.parametrize("shape", [[], [1], [3]])
def test_inputs_without_samples_are_shared_in_onnx(shape):
    net = Net()
    net.op("MatMul", ["x", net.weight("w", 4, 3)], "m")
    net.op("Mul", ["m", "scale"], "y")
    shapes = {"x": (TensorProto.FLOAT, ["n", 4]), "scale": (TensorProto.FLOAT, shape)}
    found = read_onnx(net.model(shapes, ["y"]).SerializeToString()).facts
    assert [fact.samples for fact in found.inputs] == [0, "shared"]
    assert found.batch is None


def test_one_number_a_sample_has_its_samples_first():
    net = Net()
    net.op("Gather", [net.weight("table", 9, 4), "ids"], "e")
    net.op("MatMul", ["e", net.weight("w", 4, 3)], "y")
    model = net.model({"ids": (TensorProto.INT64, ["n"])}, ["y"])
    found = read_onnx(model.SerializeToString()).facts
    assert (found.inputs[0].samples, found.inputs[0].as_data) == (0, ["N"])


class Steps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.fc = nn.LSTM(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(x)[0])


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return self.fc(x) * scale


def pt2(path, module: nn.Module, *examples: Tensor, free=None) -> ModelFacts:
    program = torch.export.export(module.eval(), examples, dynamic_shapes=free)
    torch.export.save(program, path)
    return read_model(path, Limits()).facts


def test_pt2_has_its_samples_where_a_size_is_free(tmp_path):
    batch = torch.export.Dim("batch")
    found = pt2(tmp_path / "m.pt2", Steps(), torch.randn(5, 3, 6), free=({1: batch},))
    assert (found.inputs[0].samples, found.outputs[0].samples, found.batch) == (1, 1, None)
    assert found.outputs[0].placed().shape == ["N", 5, 3]


@pytest.mark.parametrize("batch", [1, 3])
def test_pt2_of_fixed_sizes_is_tried(batch, tmp_path):
    found = pt2(tmp_path / "m.pt2", Steps(), torch.randn(5, batch, 6))
    assert (found.inputs[0].samples, found.batch) == (1, None)


@pytest.mark.parametrize("scale", [torch.tensor(2.0), torch.ones(3)])
def test_inputs_without_samples_are_shared_in_pt2(scale, tmp_path):
    free = ({0: torch.export.Dim("n")}, {})
    found = pt2(tmp_path / "m.pt2", Scaled(), torch.randn(4, 6), scale, free=free)
    assert [fact.samples for fact in found.inputs] == [0, "shared"]


def test_architecture_of_fixed_sizes_is_tried(tmp_path):
    export(Steps().eval(), [torch.randn(5, 3, 6)], tmp_path, dynamic_batch=False)
    found = read_model(tmp_path, Limits()).facts
    assert (found.inputs[0].samples, found.outputs[0].samples, found.batch) == (1, 1, None)


class Stateful(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.fc = nn.GRU(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        y, h = self.rnn(x, h)
        return self.fc(y), h


@pytest.mark.parametrize("batch", [1, 2])
def test_an_export_leaves_the_axis_open_that_holds_the_samples(batch, tmp_path):
    export(Stateful().eval(), [torch.randn(5, batch, 6), torch.randn(1, batch, 8)], tmp_path)
    found = read_model(tmp_path, Limits()).facts
    assert [fact.shape for fact in found.inputs] == [[5, "batch", 6], [1, "batch", 8]]
    assert [fact.samples for fact in found.inputs] == [1, 1]
    assert [fact.samples for fact in found.outputs] == [1, 1]
    assert found.batch is None


@pytest.mark.parametrize("scale", [torch.tensor(2.0), torch.ones(1), torch.ones(3)])
def test_an_export_takes_values_that_samples_share(scale, tmp_path):
    export(Scaled().eval(), [torch.randn(4, 6), scale], tmp_path)
    found = read_model(tmp_path, Limits()).facts
    assert found.inputs[0].shape == ["batch", 6]
    assert (found.inputs[1].shape, found.inputs[1].samples) == (list(scale.shape), "shared")


def test_an_export_without_an_axis_of_samples_is_refused(tmp_path):
    with pytest.raises(SecateurError, match="could hold samples") as caught:
        export(Scaled().eval(), [torch.tensor(1.0), torch.tensor(2.0)], tmp_path)
    assert (caught.value.code, caught.value.where) == ("usage", "example_inputs")


def test_an_export_keeps_to_declared_axes(tmp_path):
    export(nn.Linear(6, 3).eval(), [torch.randn(5, 4, 6)], tmp_path, samples={"input": 1})
    assert read_model(tmp_path, Limits()).facts.inputs[0].shape == [5, "batch", 6]


def test_a_large_batch_of_pixels_is_no_row_of_steps():
    net = Net()
    net.op("Conv", ["x", net.weight("c", 2, 3, 1, 1)], "f")
    net.op("Reshape", ["f", net.const("s", ints(1, 32))], "r")
    net.op("MatMul", ["r", net.weight("w", 32, 3)], "y")
    found = read_onnx(net.model({"x": [1, 3, 4, 4]}, ["y"]).SerializeToString()).facts
    assert found.inputs[0].samples == 0
    assert np.prod(found.inputs[0].one) == 48
