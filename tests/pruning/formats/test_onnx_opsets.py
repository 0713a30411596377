"""Operators as older opsets defined them, against onnxruntime."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from pruning.formats.onnx import onnx_bytes, read_onnx
from pruning.formats.onnx.parse import OLDEST_OPSET
from tests.pruning.formats.onnx_cases import Net, cnn, difference, ints, mlp, run_onnx

torch.set_num_threads(1)

f32 = np.float32
# operator, newest opset of this form, attributes, further inputs
OLD = [
    ("Softmax", 12, {}, []), ("Softmax", 12, {"axis": 2}, []), ("Softmax", 11, {"axis": -1}, []),
    ("Softmax", 9, {"axis": 0}, []),
    ("LogSoftmax", 12, {}, []), ("LogSoftmax", 12, {"axis": 3}, []), ("Hardmax", 12, {}, []),
    ("Hardmax", 12, {"axis": 2}, []),
    ("Clip", 10, {"min": -0.5, "max": 0.25}, []), ("Clip", 10, {"max": 0.25}, []),
    ("Clip", 10, {}, []),
    ("Slice", 9, {"starts": [1, -3], "ends": [9, -1], "axes": [2, -1]}, []),
    ("Slice", 9, {"starts": [0, 0], "ends": [1, 1]}, []),
    ("Slice", 10, {}, [ints(1), ints(3), ints(2)]),
    ("Pad", 10, {"pads": [0, 0, 1, 2, 0, 0, 0, 3], "value": 1.5}, []),
    ("Pad", 10, {"pads": [0, 0, 1, 2, 0, 0, 0, 3], "mode": "reflect"}, []),
    ("Squeeze", 12, {"axes": [1]}, []), ("Squeeze", 11, {"axes": [-3]}, []),
    ("Unsqueeze", 12, {"axes": [0, 4]}, []),
    ("ReduceSum", 12, {"axes": [1, 3]}, []), ("ReduceMean", 17, {"axes": [-1], "keepdims": 0}, []),
    ("ReduceMax", 12, {"axes": [2]}, []), ("ReduceL2", 17, {"axes": [2]}, []),
    ("ReduceProd", 17, {}, []),
    ("Dropout", 11, {"ratio": 0.3}, []), ("Dropout", 9, {}, []),
    ("Upsample", 9, {"mode": "nearest"}, [np.array([1, 1, 2, 3], f32)]),
    ("Resize", 10, {"mode": "nearest"}, [np.array([1, 1, 2, 3], f32)]),
    ("Resize", 11, {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
     [np.zeros(0, f32), np.array([1, 1, 2, 3], f32)]),
    ("Gather", 10, {"axis": 2}, [ints(2, 0)]), ("Flatten", 9, {"axis": 2}, []),
    ("Cast", 9, {"to": onnx.TensorProto.FLOAT}, []), ("Expand", 9, {}, [ints(2, 3, 4, 5)]),
    ("PRelu", 9, {}, [np.array([[[0.3]]], f32)]),
    ("MaxPool", 9, {"kernel_shape": [2, 2]}, []), ("AveragePool", 9, {"kernel_shape": [2, 3]}, []),
]  # fmt: skip


@pytest.mark.parametrize(("operator", "newest", "attributes", "inputs"), OLD)
def test_the_forms_of_older_opsets_agree_with_onnxruntime(operator, newest, attributes, inputs):
    for opset in sorted({newest, max(OLDEST_OPSET, newest - 1) if operator == "Clip" else newest}):
        net = Net()
        names = [net.const(f"c{i}", value) for i, value in enumerate(inputs)]
        net.op(operator, ["x", *names], "y", **attributes)
        net.op("Identity", ["y"], "z")
        shape = [2, 1, 4, 5]
        x = np.random.default_rng(3).standard_normal(shape).astype(f32)
        assert difference(net.model({"x": shape}, ["z"], opset), x) < 1e-5


@pytest.mark.parametrize(("newest", "attributes"), [
    (9, {"k": 2}), (12, {"split": [1, 3], "axis": 2}), (12, {"axis": 2}), (17, {"axis": 2}),
    (18, {"axis": 2, "num_outputs": 2}),
])  # fmt: skip
def test_several_outputs_in_the_forms_of_older_opsets(newest, attributes):
    net = Net()
    kind = "TopK" if "k" in attributes else "Split"
    net.nodes.append(onnx.helper.make_node(kind, ["x"], ["a", "b"], name="s", **attributes))
    net.op("Cast", ["b"], "c", to=onnx.TensorProto.FLOAT)
    x = np.random.default_rng(3).standard_normal((2, 1, 4, 5)).astype(f32)
    model = net.model({"x": [2, 1, 4, 5]}, ["a", "c"], newest)
    assert difference(model, x) < 1e-5


@pytest.mark.parametrize("opset", [9, 10, 11, 12])
@pytest.mark.parametrize(("build", "shape"), [(mlp, (5,)), (cnn, (3, 9, 11))])
def test_networks_of_old_opsets_compute_what_onnxruntime_computes(build, shape, opset):
    model = build(17)
    model.opset_import[0].version = opset
    for node in model.graph.node:
        if node.op_type == "Unsqueeze":
            del node.input[1:]
            node.attribute.append(onnx.helper.make_attribute("axes", [0]))
    model.ir_version = 4
    x = np.random.default_rng(0).standard_normal((5, *shape)).astype(f32)
    assert difference(model, x) < 1e-5


def test_initialisers_that_are_inputs_too_are_constants_and_stay_inputs():
    model = mlp(9)
    model.ir_version = 3
    for tensor in model.graph.initializer:
        info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(info)
    imported = read_onnx(model.SerializeToString())
    assert [fact.name for fact in imported.facts.inputs] == ["x"]
    with torch.no_grad():
        imported.module.get_parameter("fc1.weight")[0, 0] = 0
    written = onnx.ModelProto.FromString(onnx_bytes(imported))
    assert [i.name for i in written.graph.input] == [i.name for i in model.graph.input]
    assert onnx.numpy_helper.to_array(written.graph.initializer[0])[0, 0] == 0


@pytest.mark.parametrize("opset", [9, 13, 14])
def test_batch_norm_of_a_training_export_is_read_with_its_running_statistics(opset):
    outputs = ["m", "v"] if opset >= 14 else ["m", "v", "sm", "sv"]
    model = cnn(17)
    if opset >= 14:
        model.graph.node[1].attribute.append(onnx.helper.make_attribute("training_mode", 1))
    evaluated = cnn(17)
    model.graph.node[1].output.extend(outputs)
    model.opset_import[0].version = opset
    if opset < 13:
        for node in model.graph.node:
            if node.op_type == "Unsqueeze":
                del node.input[1:]
                node.attribute.append(onnx.helper.make_attribute("axes", [0]))
    imported = read_onnx(model.SerializeToString())
    assert isinstance(imported.module.get_submodule("bn1"), nn.BatchNorm2d)
    x = np.random.default_rng(0).standard_normal((5, 3, 9, 11)).astype(f32)
    with torch.no_grad():
        ours = imported.module(torch.from_numpy(x)).numpy()
    assert np.abs(ours - run_onnx(evaluated, x)[0]).max() < 1e-5


def test_statistics_of_the_batch_that_the_graph_uses_are_refused():
    from tests.pruning.formats.onnx_cases import refused

    model = cnn(17)
    model.graph.node[1].attribute.append(onnx.helper.make_attribute("training_mode", 1))
    model.graph.node[1].output.extend(["m", "v"])
    model.graph.node[1].output[1] = "m"
    model.graph.node.append(onnx.helper.make_node("Neg", ["m"], ["n"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("n", 1, [8]))
    refused(model, "operator_attribute_unsupported", "more than its first output")


def test_dropout_survives_with_its_ratio_and_evaluates_as_nothing():
    net = Net()
    net.const("ratio", f32(0.25))
    net.const("yes", np.array(True))
    net.op("Dropout", ["x", "ratio", "yes"], "y")
    imported = read_onnx(net.model({"x": ["n", 1000]}, ["y"]).SerializeToString())
    (dropout,) = [m for m in imported.module.modules() if isinstance(m, nn.Dropout)]
    assert dropout.p == 0.25
    x = torch.ones(2, 1000)
    assert torch.equal(imported.module(x), x)
    assert 300 < int((imported.module.train()(x) == 0).sum()) < 700


def test_a_training_export_can_be_run_in_evaluation_mode():
    from pruning.formats.onnx import inference_copy

    net = Net()
    net.const("ratio", f32(0.5))
    net.const("yes", np.array(True))
    net.op("MatMul", ["x", net.weight("fc.weight", 6, 4)], "h")
    net.op("Dropout", ["h", "ratio", "yes"], "d")
    net.const("var", np.full(4, 2, f32))
    net.nodes.append(onnx.helper.make_node(
        "BatchNormalization", ["d", net.weight("g", 4), net.weight("b", 4), net.weight("mu", 4),
        "var"], ["y", "m", "v"], training_mode=1))  # fmt: skip
    model = net.model({"x": ["n", 6]}, ["y"])
    x = np.random.default_rng(0).standard_normal((7, 6)).astype(f32)
    imported = read_onnx(model.SerializeToString())
    with torch.no_grad():
        ours = imported.module(torch.from_numpy(x)).numpy()
    copy = inference_copy(onnx.ModelProto.FromString(onnx_bytes(imported)))
    assert np.abs(run_onnx(copy, x)[0] - ours).max() < 1e-5
