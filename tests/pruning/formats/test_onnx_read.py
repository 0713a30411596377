import io
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from pruning.formats.onnx import read_onnx
from tests.pruning.formats.onnx_cases import (
    CASES,
    OPSETS,
    Net,
    difference,
    ints,
)

torch.set_num_threads(1)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("case", CASES)
def test_networks_compute_what_onnxruntime_computes(case, opset):
    build, shape = CASES[case]
    x = np.random.default_rng(0).standard_normal((5, *shape)).astype(np.float32)
    assert difference(build(opset), x) < 1e-5


ONE_INPUT = [
    ("Relu", {}), ("LeakyRelu", {"alpha": 0.2}), ("Sigmoid", {}), ("Tanh", {}),
    ("Elu", {"alpha": 0.7}),
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
