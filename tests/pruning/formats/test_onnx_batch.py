"""Free and fixed batch sizes, told from shapes, and the same told by running the graph."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from pruning.formats.limits import Limits
from pruning.formats.onnx import measure as measuring
from pruning.formats.onnx import read_onnx
from pruning.formats.onnx.measure import measure
from tests.pruning.formats.onnx_cases import CASES, Net, ints

f32 = np.float32


def facts(model: onnx.ModelProto):
    return read_onnx(model.SerializeToString()).facts


@pytest.mark.parametrize("batch", ["n", 4])
@pytest.mark.parametrize("case", CASES)
def test_what_shapes_tell_is_what_a_run_finds(case, batch, monkeypatch):
    model = CASES[case][0](17)
    if batch == 4:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    told = facts(model)
    with monkeypatch.context() as patch:
        patch.setattr(measuring, "_free", lambda *_: pytest.fail("it was run"))
        if case != "cnn" or batch == "n":
            facts(model)
    monkeypatch.setattr(measuring, "shapes_apart", lambda *_: None)
    found = facts(model)
    assert told.batch == found.batch
    assert [layer.positions for layer in told.layers] == [x.positions for x in found.layers]
    assert told.macs == found.macs
    assert told.activation_bytes == pytest.approx(found.activation_bytes, rel=0.5)


def mixing(kind: str, net: Net) -> None:
    if kind == "mean":
        net.op("ReduceMean", ["x"], "m", axes=[0])
        net.op("Sub", ["x", "m"], "y")
    elif kind == "softmax":
        net.op("Softmax", ["x"], "y", axis=0)
    elif kind == "product":
        net.op("Transpose", ["x"], "t", perm=[1, 0])
        net.op("MatMul", ["x", "t"], "g")
        net.op("MatMul", ["g", "x"], "y")
    elif kind == "number":
        net.op("Shape", ["x"], "s", start=0, end=1)
        net.op("Cast", ["s"], "c", to=TensorProto.FLOAT)
        net.op("Div", ["x", "c"], "y")
    elif kind == "reversed":
        for name, value in (("from", -1), ("to", -100), ("axis", 0), ("step", -1)):
            net.const(name, ints(value))
        net.op("Slice", ["x", "from", "to", "axis", "step"], "y")
    elif kind == "sum":
        net.op("CumSum", ["x", net.const("axis", np.int64(0))], "y")
    else:
        net.op("Reshape", ["x", net.const("turned", ints(4, -1))], "r")
        net.op("Transpose", ["r"], "t", perm=[1, 0])
        net.op("Reshape", ["t", net.const("back", ints(-1, 4))], "y")


@pytest.mark.parametrize(
    "kind", ["mean", "softmax", "product", "number", "reversed", "sum", "reshaped"]
)
def test_graphs_in_which_samples_meet_are_not_taken_to_be_free(kind):
    net = Net()
    mixing(kind, net)
    assert facts(net.model({"x": [6, 4]}, ["y"])).batch == 6


def test_steps_and_samples_may_share_an_axis_for_a_while():
    net = Net()
    net.op("Transpose", ["x"], "t", perm=[1, 0, 2])
    net.op("Reshape", ["t", net.const("flat", ints(-1, 4))], "f")
    net.op("MatMul", ["f", net.weight("w", 4, 3)], "m")
    net.op("Reshape", ["m", net.const("steps", ints(5, -1, 3))], "r")
    net.op("Transpose", ["r"], "y", perm=[1, 0, 2])
    found = facts(net.model({"x": ["n", 5, 4]}, ["y"]))
    assert found.batch is None
    assert found.layers[0].positions == 5


def test_samples_along_another_axis_of_the_output_are_free_too():
    net = Net()
    net.op("MatMul", ["x", net.weight("w", 4, 3)], "m")
    net.op("Transpose", ["m"], "y", perm=[1, 0, 2])
    assert facts(net.model({"x": [2, 5, 4]}, ["y"])).batch is None


def test_a_large_network_is_measured_without_running_it(monkeypatch):
    monkeypatch.setattr(measuring, "tries", lambda *_: pytest.fail("it was run"))
    net = Net()
    name = "x"
    for i in range(4):
        weight = net.weight(f"c{i}.weight", 64, 64, 3, 3)
        name = net.op("Conv", [name, weight], f"y{i}", pads=[1, 1, 1, 1])
    model = net.model({"x": ["n", 64, 112, 112]}, [name])
    assert facts(model).macs == 4 * 112 * 112 * 64 * 64 * 9
    assert measure.__module__ == measuring.__name__
    assert Limits().activation_bytes > facts(model).activation_bytes


def test_several_inputs_and_outputs_have_their_facts():
    net = Net()
    net.op("Gather", [net.weight("table", 9, 4), "ids"], "e")
    net.op("Mul", ["e", "mask"], "m")
    net.op("ReduceMean", ["m"], "h", axes=[1], keepdims=0)
    net.op("MatMul", ["h", net.weight("fc.weight", 4, 2)], "logits")
    net.op("Relu", ["m"], "states")
    shapes = {"ids": (TensorProto.INT64, ["n", "t"]), "mask": (TensorProto.FLOAT, ["n", "t", 1])}
    found = facts(net.model(shapes, ["logits", "states"]))
    assert [fact.name for fact in found.inputs] == ["ids", "mask"]
    assert [fact.name for fact in found.outputs] == ["logits", "states"]
    assert found.batch is None
    assert found.layers[0].positions == 1
