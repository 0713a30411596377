"""If and Loop: in place where their course is known, else refused by name."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from pruning.formats.limits import Limits
from pruning.formats.onnx import onnx_bytes, read_onnx
from tests.pruning.formats.onnx_cases import Net, difference, ints, refused, run_onnx

torch.set_num_threads(1)

f32 = np.float32
X = np.random.default_rng(0).standard_normal((3, 4)).astype(f32)


def value(name: str, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, None)


def branch(name: str, factor: float, weight: bool = True) -> onnx.GraphProto:
    """x W + b with the weight in the branch, or x times a factor."""
    random = np.random.default_rng(int(factor))
    held = [numpy_helper.from_array(random.standard_normal((4, 4)).astype(f32), "w"),
            numpy_helper.from_array(np.full(4, factor, f32), "b")]  # fmt: skip
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"], name="mm"),
             helper.make_node("Add", ["m", "b"], ["out"], name="add")]  # fmt: skip
    if not weight:
        nodes = [helper.make_node("Constant", [], ["c"], value_float=factor),
                 helper.make_node("Mul", ["x", "c"], ["out"])]  # fmt: skip
        held = []
    return helper.make_graph(nodes, name, [], [value("out")], held)


def conditional(net: Net, condition: str) -> onnx.ModelProto:
    net.op("If", [condition], "i", then_branch=branch("t", 1.0), else_branch=branch("e", 2.0))
    net.op("Relu", ["i"], "y")
    model = net.model({"x": ["n", 4]}, ["y"])
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, ["n", 4]))
    return model


@pytest.mark.parametrize("taken", [True, False])
def test_a_constant_condition_puts_the_branch_in_its_place(taken):
    net = Net()
    net.const("yes", np.array(taken))
    model = conditional(net, "yes")
    assert difference(model, X) < 1e-6
    imported = read_onnx(model.SerializeToString())
    (layer,) = imported.facts.layers
    assert layer.weight == f"i/{'then' if taken else 'else'}_branch/w"
    with torch.no_grad():
        imported.module.get_parameter(f"{layer.name}.weight").mul_(2.0)
        imported.module.get_parameter(f"{layer.name}.bias").zero_()
        ours = imported.module(torch.from_numpy(X)).numpy()
    assert np.abs(run_onnx(onnx_bytes(imported), X)[0] - ours).max() < 1e-6


def test_a_condition_on_a_size_that_the_file_fixes_is_decided():
    net = Net()
    net.op("Shape", ["x"], "s")
    net.op("Gather", ["s", net.const("one", np.int64(1))], "width")
    net.op("Equal", ["width", net.const("four", np.int64(4))], "yes")
    assert difference(conditional(net, "yes"), X) < 1e-6


@pytest.mark.parametrize("compared", ["n", "data"])
def test_a_condition_on_an_open_size_or_on_data_is_refused_by_name(compared):
    net = Net()
    if compared == "n":
        net.op("Shape", ["x"], "s")
        net.op("Gather", ["s", net.const("zero", np.int64(0))], "number")
        net.op("Equal", ["number", net.const("one", np.int64(1))], "yes")
    else:
        net.op("ReduceSum", ["x"], "sum", keepdims=0)
        net.op("Greater", ["sum", net.const("nil", f32(0))], "yes")
    error = refused(conditional(net, "yes"), "operator_unsupported", "If")
    assert error.where == "node_i (If)"


def test_a_branch_may_hold_another():
    net = Net()
    net.const("yes", np.array(True))
    inner = branch("t", 3.0)
    outer = helper.make_graph(
        [helper.make_node("If", ["yes"], ["out"], then_branch=inner, else_branch=branch("e", 4.0)),
         helper.make_node("Neg", ["out"], ["neg"])],
        "outer", [], [value("neg")],
    )  # fmt: skip
    net.op("If", ["yes"], "y", then_branch=outer, else_branch=branch("f", 5.0, weight=False))
    model = net.model({"x": ["n", 4]}, ["y"])
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, ["n", 4]))
    assert difference(model, X) < 1e-6


def loop(net: Net, trips: int, body_condition: str = "keep") -> onnx.ModelProto:
    """h = tanh(h W) for each round, all of them stacked as a second result."""
    net.weight("w", 4, 4)
    net.const("trips", np.int64(trips))
    net.const("go", np.array(True))
    nodes = [helper.make_node("MatMul", ["h", "w"], ["m"]),
             helper.make_node("Tanh", ["m"], ["next"]),
             helper.make_node("Identity", ["next"], ["seen"])]  # fmt: skip
    if body_condition == "keep":
        nodes.append(helper.make_node("Identity", ["c"], ["again"]))
    else:
        nodes += [helper.make_node("ReduceSum", ["m"], ["sum"], keepdims=0),
                  helper.make_node("Cast", ["sum"], ["again"], to=TensorProto.BOOL)]  # fmt: skip
    body = helper.make_graph(
        nodes, "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("c", TensorProto.BOOL, []), value("h")],
        [helper.make_tensor_value_info("again", TensorProto.BOOL, []), value("next"),
         value("seen")],
    )  # fmt: skip
    net.nodes.append(
        helper.make_node("Loop", ["trips", "go", "x"], ["last", "all"], name="walk", body=body)
    )
    net.op("ReduceSum", ["all", net.const("axis", ints(0))], "sum", keepdims=0)
    net.op("Add", ["last", "sum"], "y")
    model = net.model({"x": ["n", 4]}, ["y"])
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, ["n", 4]))
    return model


def test_a_loop_of_a_known_number_of_rounds_is_unrolled_with_one_weight():
    model = loop(Net(), 3)
    assert difference(model, X) < 1e-6
    imported = read_onnx(model.SerializeToString())
    assert len(list(imported.module.parameters())) == 1
    with torch.no_grad():
        next(imported.module.parameters()).mul_(0.5)
        ours = imported.module(torch.from_numpy(X)).numpy()
    assert np.abs(run_onnx(onnx_bytes(imported), X)[0] - ours).max() < 1e-6


def test_loops_that_data_end_or_that_run_too_long_are_refused_by_name():
    error = refused(loop(Net(), 3, "data"), "operator_unsupported", "Loop")
    assert error.where == "walk (Loop)"
    refused(loop(Net(), 1000), "operator_unsupported", "1000 times")
    refused(loop(Net(), 40), "model_too_large", limits=Limits(nodes=100))


def test_deep_nesting_is_refused_before_anything_walks_it():
    net = Net()
    net.const("yes", np.array(True))
    inner = branch("leaf", 1.0)
    for depth in range(20):
        node = helper.make_node(
            "If", ["yes"], ["out"], then_branch=inner, else_branch=branch("e", 1.0, weight=False)
        )
        inner = helper.make_graph([node], f"depth{depth}", [], [value("out")])
    net.op("If", ["yes"], "y", then_branch=inner, else_branch=branch("e", 1.0, weight=False))
    model = net.model({"x": ["n", 4]}, ["y"])
    refused(model, "model_too_large", "nested")


def test_what_a_subgraph_hides_is_found():
    for change, code in (
        (lambda t: setattr(t, "data_location", TensorProto.EXTERNAL), "external_data"),
        (lambda t: t.dims.__setitem__(0, 1 << 40), "model_too_large"),
    ):
        net = Net()
        net.const("yes", np.array(True))
        model = conditional(net, "yes")
        change(model.graph.node[0].attribute[0].g.initializer[0])
        refused(model, code)
    net = Net()
    net.const("yes", np.array(True))
    model = conditional(net, "yes")
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    read_onnx(model.SerializeToString())  # an import that no node uses is no harm
    model.graph.node[0].attribute[0].g.node[0].domain = "com.microsoft"
    refused(model, "operator_unsupported", "com.microsoft.MatMul")
