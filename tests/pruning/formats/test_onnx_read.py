import io
import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from pruning.formats.onnx import read_onnx

from tests.pruning.formats.onnx_cases import CASES, OPSETS, Net, cnn, mlp, run_onnx

torch.set_num_threads(1)


def difference(model: onnx.ModelProto, *inputs: np.ndarray) -> float:
    module = read_onnx(model.SerializeToString()).module
    with torch.no_grad():
        ours = module(*(torch.from_numpy(x) for x in inputs))
    ours = ours if isinstance(ours, tuple) else (ours,)
    theirs = run_onnx(model, *inputs)
    assert [tuple(a.shape) for a in ours] == [b.shape for b in theirs]
    return max(float(np.abs(a.numpy() - b).max()) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("case", CASES)
def test_networks_compute_what_onnxruntime_computes(case, opset):
    build, shape = CASES[case]
    x = np.random.default_rng(0).standard_normal((5, *shape)).astype(np.float32)
    assert difference(build(opset), x) < 1e-5


ONE_INPUT = [
    ("Relu", {}), ("LeakyRelu", {"alpha": 0.2}), ("Sigmoid", {}), ("Tanh", {}), ("Elu", {"alpha": 0.7}),
    ("Selu", {}), ("Celu", {"alpha": 0.6}), ("Softplus", {}), ("Softsign", {}), ("HardSigmoid", {}),
    ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}), ("HardSwish", {}), ("Erf", {}),
    ("Softmax", {"axis": 1}), ("Softmax", {}), ("LogSoftmax", {"axis": -2}), ("Exp", {}),
    ("Abs", {}), ("Neg", {}), ("Reciprocal", {}), ("Identity", {}), ("Dropout", {}),
    ("Flatten", {"axis": 2}), ("Flatten", {"axis": 4}), ("Flatten", {"axis": -3}),
    ("Transpose", {"perm": [0, 3, 1, 2]}), ("GlobalAveragePool", {}), ("GlobalMaxPool", {}),
    ("MaxPool", {"kernel_shape": [3, 2], "strides": [2, 2]}),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}),
    ("MaxPool", {"kernel_shape": [2, 2], "dilations": [2, 2]}),
    ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "VALID"}),
    ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [0, 1, 2, 1], "count_include_pad": 1}),
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [0, 1, 2, 1]}),
    ("AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("ReduceSum", {}), ("ReduceSum", {"keepdims": 0}),
]  # fmt: skip


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize(("operator", "attributes"), ONE_INPUT)
def test_operators_of_one_input_agree_with_onnxruntime(operator, attributes, opset):
    if operator == "HardSwish" and opset < 14:
        pytest.skip("HardSwish came with opset 14")
    net = Net()
    net.op(operator, ["x"], "y", **attributes)
    net.op("Identity", ["y"], "z")
    x = np.random.default_rng(3).standard_normal((2, 3, 5, 7)).astype(np.float32)
    assert difference(net.model({"x": ["n", 3, 5, 7]}, ["z"], opset), x) < 1e-5


@pytest.mark.parametrize(("operator", "attributes"), [
    ("Mish", {}), ("Gelu", {}), ("Gelu", {"approximate": "tanh"}), ("HardSwish", {}),
])  # fmt: skip
def test_activations_of_newer_opsets_agree_with_onnxruntime(operator, attributes):
    net = Net()
    net.op(operator, ["x"], "y", **attributes)
    x = np.random.default_rng(3).standard_normal((2, 30)).astype(np.float32)
    assert difference(net.model({"x": ["n", 30]}, ["y"], OPSETS[1]), x) < 1e-5


def ints(*values):
    return np.array(values, np.int64)


f32 = np.float32
WITH_CONSTANTS = [
    ("Clip", [f32(-0.5), f32(0.25)]), ("Clip", [None, f32(0.25)]), ("Clip", [f32(0.1)]),
    ("PRelu", [np.array([[[0.1]], [[0.2]], [[0.3]]], f32)]),
    ("Pow", [f32(3)]), ("Pow", [np.array([2, 3, 1, 2, 1], f32)]),
    ("Add", [np.ones((3, 1, 5), f32)]), ("Sub", [np.ones(5, f32)]), ("Mul", [f32(2)]),
    ("Div", [np.full((1,), 3, f32)]), ("Max", [f32(0)]), ("Min", [f32(0), f32(-1)]),
    ("Reshape", [ints(0, -1)]), ("Reshape", [ints(0, 0, 20)]), ("Reshape", [ints(-1, 5)]),
    ("Unsqueeze", [ints(0, -1)]), ("Expand", [ints(2, 3, 4, 5)]), ("Expand", [ints(4, 1, 3, 1, 1)]),
    ("Gather", [ints(0, 2, -1)], {"axis": 1}), ("Gather", [np.int64(1)], {"axis": 2}),
    ("Gather", [ints([0, 1], [2, -2])], {"axis": 3}),
    ("Slice", [ints(1), ints(100), ints(2)]), ("Slice", [ints(-1), ints(-100), ints(3), ints(-2)]),
    ("Slice", [ints(0, 1), ints(2, -1), ints(1, 2)]),
    ("Pad", [ints(0, 0, 1, 2, 0, 0, 0, 3)]), ("Pad", [ints(0, 0, 1, -1, 0, 0, 0, 2), f32(1.5)]),
    ("ReduceSum", [ints(1, -1)]), ("ReduceSum", [ints(2)], {"keepdims": 0}),
    ("MatMul", [np.ones((3, 5, 2), f32)]),
]  # fmt: skip


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("case", WITH_CONSTANTS, ids=lambda c: c[0])
def test_operators_with_constant_inputs_agree_with_onnxruntime(case, opset):
    operator, constants, *rest = case
    net = Net()
    names = [net.const(f"c{i}", c) if c is not None else "" for i, c in enumerate(constants)]
    net.op(operator, ["x", *names], "y", **(rest[0] if rest else {}))
    net.op("Identity", ["y"], "z")
    x = np.random.default_rng(4).standard_normal((2, 3, 4, 5)).astype(np.float32)
    assert difference(net.model({"x": [2, 3, 4, 5]}, ["z"], opset), x) < 1e-5


@pytest.mark.parametrize("opset", [17, OPSETS[1]])
@pytest.mark.parametrize("axis", [-1, -2, 1])
def test_layer_normalization_becomes_a_torch_layer(axis, opset):
    net = Net()
    shape = (4, 6) if axis in (-2, 1) else (6,)
    inputs = ["x", net.weight("ln.weight", *shape), net.weight("ln.bias", *shape)]
    net.op("LayerNormalization", inputs, "y", axis=axis)
    model = net.model({"x": ["n", 4, 6]}, ["y"], opset)
    x = np.random.default_rng(4).standard_normal((2, 4, 6)).astype(np.float32)
    assert difference(model, x) < 1e-5
    module = read_onnx(model.SerializeToString()).module
    assert isinstance(module.get_submodule("ln"), nn.LayerNorm)


@pytest.mark.parametrize("bias", [(), (1,), (1, 1), (4,), (1, 4), (3, 1), (3, 4)])
@pytest.mark.parametrize("trans", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_gemm_with_every_transposition_and_broadcast(bias, trans):
    net = Net()
    weight = net.weight("w", *((4, 5) if trans[1] else (5, 4)))
    net.op("Gemm", ["x", weight, net.weight("c", *bias)], "y", transA=trans[0], transB=trans[1],
           alpha=0.7, beta=-0.3)  # fmt: skip
    shape = (5, 3) if trans[0] else (3, 5)
    x = np.random.default_rng(4).standard_normal(shape).astype(np.float32)
    assert difference(net.model({"x": list(shape)}, ["y"]), x) < 1e-5


def test_layers_are_torch_layers_at_the_names_of_the_file():
    imported = read_onnx(cnn().SerializeToString())
    kinds = {n: type(m) for n, m in imported.module.named_modules() if n}
    assert kinds == {
        "conv1": nn.Conv2d, "bn1": nn.BatchNorm2d, "conv2": nn.Conv2d, "conv3": nn.Conv2d,
        "conv4": nn.Conv2d, "fc": nn.Linear,
    }  # fmt: skip
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
    assert facts.prunable_parameters == 216 + 288 + 72 + 128 + 560
    assert facts.parameters == facts.prunable_parameters + 8 + 16 + 10
    assert facts.operators["Conv"] == 4


def test_positions_of_a_linear_layer_on_sequences_are_the_sequence():
    facts = read_onnx(CASES["transformer"][0](17).SerializeToString()).facts
    assert {layer.positions for layer in facts.layers} == {4}


def test_a_fixed_batch_is_free_where_the_graph_allows_it():
    model = mlp()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    assert read_onnx(model.SerializeToString()).facts.batch is None


def test_a_batch_fixed_by_a_reshape_is_a_fact():
    net = Net()
    net.op("Reshape", ["x", net.const("shape", ints(4, 6))], "r")
    net.op("Gemm", ["r", net.weight("fc.weight", 2, 6)], "y", transB=1)
    facts = read_onnx(net.model({"x": [4, 2, 3]}, ["y"]).SerializeToString()).facts
    assert facts.batch == 4
    assert facts.layers[0].positions == 1


def test_a_graph_that_mixes_samples_has_a_fixed_batch():
    net = Net()
    net.op("ReduceMean", ["x"], "m", axes=[0])
    net.op("Sub", ["x", "m"], "d")
    net.op("MatMul", ["d", net.weight("w", 3, 2)], "y")
    assert read_onnx(net.model({"x": [4, 3]}, ["y"]).SerializeToString()).facts.batch == 4


def test_symbolic_sizes_leave_positions_open():
    net = Net()
    net.op("Conv", ["x", net.weight("c.weight", 2, 1, 3, 3)], "y")
    facts = read_onnx(net.model({"x": ["n", 1, "h", "w"]}, ["y"]).SerializeToString()).facts
    assert facts.layers[0].positions is None
    assert facts.macs is None
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


def test_a_tensor_in_two_layouts_is_refused():
    net = Net()
    net.weight("w", 4, 4)
    net.op("MatMul", ["x", "w"], "a")
    net.op("Gemm", ["a", "w"], "y", transB=1)
    refused(net.model({"x": ["n", 4]}, ["y"]), "operator_attribute_unsupported", "another layout")


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


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(4, 4, 3, groups=4), nn.Hardswish(), nn.AdaptiveAvgPool2d(1),
        )  # fmt: skip
        self.fc = nn.Linear(4, 10)

    def forward(self, x):
        x = self.features(x)
        return self.fc(x.view(x.size(0), -1))


def exported(module, x, opset, folded, dynamic=True):
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), x, file, dynamo=False, opset_version=opset, input_names=["x"],
            dynamic_axes={"x": {0: "n"}} if dynamic else None, do_constant_folding=folded,
        )  # fmt: skip
    return file.getvalue()


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("opset", [13, 17, 20])
def test_exports_of_torch_compute_what_the_module_computes(opset, folded):
    torch.manual_seed(0)
    module, x = Small(), torch.randn(3, 1, 8, 8)
    module.features[1].running_mean.normal_()
    imported = read_onnx(exported(module, x, opset, folded))
    with torch.no_grad():
        assert torch.allclose(imported.module(x), module(x), atol=1e-5)
    assert "fc" in dict(imported.module.named_modules())
    assert imported.facts.batch is None


@pytest.mark.parametrize("opset", [13, 17])
def test_an_exported_encoder_block_computes_what_the_module_computes(opset):
    torch.manual_seed(0)
    block = nn.Sequential(
        nn.Linear(8, 16), nn.GELU(), nn.LayerNorm(16), nn.Dropout(), nn.Linear(16, 8),
        nn.Flatten(), nn.Linear(40, 2), nn.LogSoftmax(-1),
    )  # fmt: skip
    x = torch.randn(3, 5, 8)
    imported = read_onnx(exported(block, x, opset, True))
    with torch.no_grad():
        assert torch.allclose(imported.module(x), block(x), atol=1e-5)
    assert [layer.name for layer in imported.facts.layers] == ["0", "4", "6"]


def test_float16_computes_in_float32_and_float64_in_float64():
    for dtype, computed in ((np.float16, torch.float32), (np.float64, torch.float64)):
        net = Net(dtype=dtype)
        net.op("MatMul", ["x", net.weight("fc.weight", 4, 2)], "y")
        imported = read_onnx(net.model({"x": ["n", 4]}, ["y"]).SerializeToString())
        assert imported.module.get_parameter("fc.weight").dtype == computed
        assert imported.facts.layers[0].dtype == np.dtype(dtype).name
        x = torch.ones(1, 4, dtype=getattr(torch, np.dtype(dtype).name))
        assert imported.module(x).dtype == computed


def refused(model: onnx.ModelProto | bytes, code: str, text: str = "", limits=None):
    from pruning.errors import SecateurError

    data = model if isinstance(model, bytes) else model.SerializeToString()
    with pytest.raises(SecateurError) as caught:
        read_onnx(data, limits)
    assert caught.value.code == code, caught.value
    assert text in str(caught.value)
    return caught.value


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
    from pruning.formats.limits import Limits

    data = cnn().SerializeToString()
    for field, value in (
        ("model_bytes", 100), ("parameters", 50), ("nodes", 3), ("tensors", 2),
        ("activation_bytes", 1000),
    ):  # fmt: skip
        refused(data, "model_too_large", limits=Limits(**{field: value}))


def test_a_small_graph_with_a_huge_activation_is_refused_without_running():
    net = Net()
    net.op("Pad", ["x", net.const("p", ints(0, 0, 0, 0, 0, 0, 1 << 20, 1 << 20))], "p")
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
