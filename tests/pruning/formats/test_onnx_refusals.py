import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from pruning.formats.limits import Limits
from pruning.formats.onnx import read_onnx
from tests.pruning.formats.onnx_cases import (
    Net,
    cnn,
    ints,
    mlp,
    refused,
)

torch.set_num_threads(1)


def test_all_unknown_operators_are_named_at_once():
    net = Net()
    net.op("Det", ["x"], "a")
    net.op("Hardmax", ["x"], "b")
    net.op("Hardmax", ["b"], "c")
    net.op("Add", ["a", "c"], "y")
    error = refused(net.model({"x": ["n", 4, 4]}, ["y"]), "operator_unsupported", "Hardmax (2)")
    assert error.details["operators"] == ["Det", "Hardmax"]
    assert error.where == "node_a (Det)"


def test_unknown_operators_that_no_output_needs_do_not_matter():
    net = Net()
    net.op("Relu", ["x"], "y")
    net.op("Hardmax", ["x"], "unused")
    assert read_onnx(net.model({"x": ["n", 4]}, ["y"]).SerializeToString()).facts.layers == []


def test_control_flow_is_refused_by_name():
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["v"], value_float=1.0)], "b", [],
        [helper.make_tensor_value_info("v", TensorProto.FLOAT, [])],
    )  # fmt: skip
    net = Net()
    net.const("yes", np.array(True))
    net.op("If", ["yes"], "i", then_branch=branch, else_branch=branch)
    net.op("Add", ["x", "i"], "y")
    refused(net.model({"x": ["n", 4]}, ["y"]), "operator_unsupported", "If")


def test_other_domains_functions_and_sparse_weights_are_refused_by_name():
    model = mlp()
    model.graph.node[0].domain = "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    refused(model, "operator_unsupported", "com.microsoft.Gemm")
    model = mlp()
    model.functions.append(
        helper.make_function("own", "F", ["a"], ["b"], [], [helper.make_opsetid("", 17)])
    )
    refused(model, "operator_unsupported", "function F")
    model = mlp()
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(
            numpy_helper.from_array(np.ones(1, np.float32), "sparse"),
            numpy_helper.from_array(np.zeros(1, np.int64)), [4],
        )
    )  # fmt: skip
    refused(model, "operator_unsupported", "sparse_initializer")


def test_external_data_is_refused_and_never_opened(tmp_path):
    model = mlp()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    error = refused(model, "external_data", "fc1.weight")
    assert "one file" in error.hint


@pytest.mark.parametrize("opset", [1, 12, onnx.defs.onnx_opset_version() + 1])
def test_opsets_outside_the_range_are_refused(opset):
    model = mlp()
    model.opset_import[0].version = opset
    refused(model, "opset_unsupported", f"opset {opset}")


def test_an_attribute_nobody_reads_is_refused():
    net = Net()
    net.op("MaxPool", ["x"], "y", kernel_shape=[2, 2], storage_order=1)
    model = net.model({"x": ["n", 1, 4, 4]}, ["y"])
    refused(model, "operator_attribute_unsupported", "storage_order")
    net = Net()
    net.op("Pad", ["x", net.const("p", ints(0, 0, 1, 1, 0, 0, 1, 1))], "y", mode="reflect")
    model = net.model({"x": ["n", 1, 4, 4]}, ["y"])
    assert refused(model, "operator_attribute_unsupported", "reflect").where == "node_y (Pad)"


def test_training_mode_batch_norm_is_refused():
    model = cnn()
    model.graph.node[1].attribute.append(helper.make_attribute("training_mode", 1))
    model.graph.node[1].output.extend(["m", "v"])
    refused(model, "operator_attribute_unsupported", "training_mode")


def test_a_weight_computed_in_the_graph_is_refused():
    net = Net()
    net.op("Mul", [net.weight("v", 4, 2), net.weight("g", 2)], "w")
    net.op("MatMul", ["x", "w"], "y")
    model = net.model({"x": ["n", 4]}, ["y"])
    refused(model, "operator_attribute_unsupported", "computed by node_w (Mul)")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_weights_are_refused_by_name(value):
    net = Net()
    net.op("MatMul", ["x", net.const("bad.weight", np.full((4, 2), value, np.float32))], "y")
    model = net.model({"x": ["n", 4]}, ["y"])
    assert refused(model, "weights_non_finite", "bad.weight").where == "bad.weight"


def test_sizes_over_the_limits_are_refused_before_they_are_paid():
    data = cnn().SerializeToString()
    for field, value in (
        ("model_bytes", 100), ("parameters", 50), ("nodes", 3), ("tensors", 2),
        ("activation_bytes", 1000),
    ):  # fmt: skip
        refused(data, "model_too_large", limits=Limits(**{field: value}))


def test_a_small_graph_with_a_huge_activation_is_refused_without_running():
    net = Net()
    net.op("Pad", ["x", net.const("pads", ints(0, 0, 0, 0, 0, 0, 1 << 20, 1 << 20))], "p")
    net.op("Conv", ["p", net.weight("c.weight", 2, 1, 3, 3)], "y")
    refused(net.model({"x": ["n", 1, 4, 4]}, ["y"]), "model_too_large", "Pad")
    net = Net()
    net.op("ConstantOfShape", [net.const("s", ints(1 << 20, 1 << 20))], "z")
    net.op("Add", ["x", "z"], "y")
    refused(net.model({"x": ["n", 4]}, ["y"]), "model_too_large", "ConstantOfShape")


def test_shapes_computed_from_data_are_refused():
    net = Net()
    net.op("Cast", ["x"], "s", to=TensorProto.INT64)
    net.op("Reshape", ["x", "s"], "y")
    refused(net.model({"x": [4]}, ["y"]), "operator_attribute_unsupported", "computed from data")


def test_graphs_that_do_not_fit_their_own_shapes_are_refused_with_the_node():
    net = Net()
    net.op("Gemm", ["x", net.weight("fc.weight", 2, 9)], "y", transB=1)
    error = refused(net.model({"x": ["n", 4]}, ["y"]), "model_invalid")
    assert error.where == "node_y (Gemm)"


def test_truncation_garbage_and_emptiness():
    data = cnn().SerializeToString()
    refused(data[: len(data) // 2], "model_truncated")
    refused(data[:-1], "model_truncated")
    refused(b"", "unsupported_format")
    refused(b"this is not a model at all", "unsupported_format")
    refused(onnx.ModelProto(ir_version=8).SerializeToString(), "model_unreadable", "no graph")


def test_a_graph_that_the_checker_refuses():
    model = mlp()
    model.graph.node[0].input[0] = "nowhere"
    refused(model, "model_invalid", "checker")


def test_a_tensor_with_too_few_bytes():
    model = mlp()
    model.graph.initializer[0].raw_data = b"1234"
    refused(model, "model_invalid")


def test_types_that_onnx_does_not_have():
    model = mlp()
    model.graph.initializer[0].data_type = 124
    refused(model, "operator_attribute_unsupported", "type 124")
    model = mlp()
    model.graph.input[0].type.tensor_type.elem_type = 99
    refused(model, "operator_attribute_unsupported", "type 99")


def test_names_that_are_not_text():
    data = mlp().SerializeToString()
    refused(data.replace(b"fc1.weight", b"fc1.\xff\xfeight"), "model_unreadable", "UTF-8")
