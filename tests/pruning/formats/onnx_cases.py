"""ONNX graphs that the tests read: one function a network, over opsets, with its random inputs."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from pruning.errors import SecateurError
from pruning.formats.limits import Limits
from pruning.formats.onnx import read_onnx

OPSETS = (13, min(onnx.defs.onnx_opset_version(), 26))


@dataclass
class Net:
    """A graph under construction."""

    seed: int = 0
    dtype: type = np.float32
    nodes: list = field(default_factory=list)
    initializers: list = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def weight(self, name: str, *shape: int, scale: float = 0.3) -> str:
        return self.const(name, (self.random.standard_normal(shape) * scale).astype(self.dtype))

    def const(self, name: str, value: object) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def op(self, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(
            helper.make_node(kind, inputs, [output], name=f"node_{output}", **attributes)
        )
        return output

    def constant_weight(self, name: str, *shape: int) -> str:
        value = (self.random.standard_normal(shape) * 0.3).astype(self.dtype)
        return self.op("Constant", [], name, value=numpy_helper.from_array(value))

    def model(self, inputs: dict, outputs: list[str], opset: int = 17) -> onnx.ModelProto:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        graph = helper.make_graph(
            self.nodes,
            "graph",
            [
                helper.make_tensor_value_info(name, *(v if isinstance(v, tuple) else (kind, v)))
                for name, v in inputs.items()
            ],
            [helper.make_tensor_value_info(name, kind, None) for name in outputs],
            self.initializers,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", opset)],
            ir_version=(8 if opset > 12 else 4) + 2 * (opset > 20),
        )
        shaped = onnx.shape_inference.infer_shapes(model)
        for ours, inferred in zip(model.graph.output, shaped.graph.output, strict=True):
            ours.CopyFrom(inferred)
            ours.type.tensor_type.shape.SetInParent()
        return model


def mlp(opset: int = 17) -> onnx.ModelProto:
    net = Net()
    net.op("Gemm", ["x", net.weight("fc1.weight", 7, 5), net.weight("fc1.bias", 7)], "h", transB=1)
    net.op("Relu", ["h"], "a")
    net.op("MatMul", ["a", net.weight("fc2.weight", 7, 6)], "m")
    net.op("Add", [net.weight("fc2.bias", 6), "m"], "b")
    net.op("Tanh", ["b"], "t")
    net.op("Gemm", ["t", net.constant_weight("W3", 6, 3), net.constant_weight("c3", 1, 3)], "y",
           alpha=0.5, beta=2.0)  # fmt: skip
    return net.model({"x": ["n", 5]}, ["y"], opset)


def cnn(opset: int = 17) -> onnx.ModelProto:
    """Batch norm, both kinds of padding, groups, depthwise, residual Add, flatten by shape."""
    net = Net(1)
    net.op("Conv", ["x", net.weight("conv1.weight", 8, 3, 3, 3), net.weight("conv1.bias", 8)],
           "c1", pads=[1, 1, 1, 1], kernel_shape=[3, 3])  # fmt: skip
    net.const("bn1.var", net.random.uniform(0.5, 2, 8).astype(np.float32))
    net.op("BatchNormalization",
           ["c1", net.weight("bn1.weight", 8), net.weight("bn1.bias", 8), net.weight("bn1.mean", 8),
            "bn1.var"], "b1", epsilon=1e-3)  # fmt: skip
    net.op("Relu", ["b1"], "r1")
    net.op("Conv", ["r1", net.weight("conv2.weight", 8, 4, 3, 3)], "c2", group=2,
           dilations=[2, 2], pads=[2, 2, 2, 2])  # fmt: skip
    net.op("Add", ["c2", "r1"], "res")
    net.op("Conv", ["res", net.weight("conv3.weight", 8, 1, 3, 3)], "c3", group=8, strides=[2, 1],
           pads=[0, 1, 1, 2])  # fmt: skip
    net.op("MaxPool", ["c3"], "p1", kernel_shape=[2, 2], strides=[2, 2], pads=[0, 1, 1, 0])
    net.op("Conv", ["p1", net.weight("conv4.weight", 4, 8, 2, 2)], "c4", auto_pad="SAME_UPPER",
           strides=[2, 1])  # fmt: skip
    net.op("LeakyRelu", ["c4"], "l4", alpha=0.1)
    net.op("AveragePool", ["l4"], "p2", kernel_shape=[2, 2], pads=[1, 0, 0, 1])
    net.op("Shape", ["p2"], "s")
    net.op("Gather", ["s", net.const("zero", np.int64(0))], "n0", axis=0)
    net.op("Unsqueeze", ["n0", net.const("axis0", np.array([0]))], "n1")
    net.op("Concat", ["n1", net.const("rest", np.array([-1]))], "target_shape", axis=0)
    net.op("Reshape", ["p2", "target_shape"], "flat")
    net.op("Gemm", ["flat", net.weight("fc.weight", 10, 24), net.weight("fc.bias", 10)], "y",
           transB=1)  # fmt: skip
    return net.model({"x": ["n", 3, 9, 11]}, ["y"], opset)


def transformer(opset: int = 17) -> onnx.ModelProto:
    """Self-attention with layer normalisation out of primitives, and a GELU out of Erf."""
    net = Net(2)
    for name in "qkv":
        net.op("MatMul", ["x", net.weight(f"attn.{name}.weight", 8, 8)], f"{name}m")
        net.op("Add", [f"{name}m", net.weight(f"attn.{name}.bias", 8)], name)
    net.op("Transpose", ["k"], "kt", perm=[0, 2, 1])
    net.op("MatMul", ["q", "kt"], "scores")
    net.op("Div", ["scores", net.const("root", np.float32(8**0.5))], "scaled")
    net.op("Softmax", ["scaled"], "p", axis=-1)
    net.op("MatMul", ["p", "v"], "o")
    net.op("Add", ["o", "x"], "r")
    if opset < 18:
        net.op("ReduceMean", ["r"], "mu", axes=[-1])
    else:
        net.op("ReduceMean", ["r", net.const("last", np.array([-1]))], "mu")
    net.op("Sub", ["r", "mu"], "d")
    net.op("Pow", ["d", net.const("two", np.float32(2))], "d2")
    if opset < 18:
        net.op("ReduceMean", ["d2"], "var", axes=[-1])
    else:
        net.op("ReduceMean", ["d2", "last"], "var")
    net.op("Add", ["var", net.const("eps", np.float32(1e-5))], "ve")
    net.op("Sqrt", ["ve"], "sd")
    net.op("Div", ["d", "sd"], "ln")
    net.op("Mul", ["ln", net.weight("norm.weight", 8)], "lw")
    net.op("Mul", ["lw", net.const("half", np.float32(0.5))], "hx")
    net.op("Erf", ["lw"], "e")
    net.op("Add", ["e", net.const("one", np.float32(1))], "e1")
    net.op("Mul", ["hx", "e1"], "g")
    net.op("MatMul", ["g", net.weight("head.weight", 8, 3)], "y")
    return net.model({"x": ["n", 4, 8]}, ["y"], opset)


def conv1d_3d(opset: int = 17) -> onnx.ModelProto:
    net = Net(3)
    net.op("Conv", ["x", net.weight("temporal.weight", 4, 2, 3)], "c", auto_pad="SAME_LOWER",
           strides=[2])  # fmt: skip
    net.op("AveragePool", ["c"], "p", kernel_shape=[3], strides=[2], pads=[1, 1], ceil_mode=1,
           count_include_pad=1)  # fmt: skip
    net.op("Unsqueeze", ["p", net.const("axes", np.array([2, 3]))], "u")
    net.op("Conv", ["u", net.weight("volume.weight", 3, 4, 1, 1, 2)], "v")
    net.op("GlobalMaxPool", ["v"], "gm")
    net.op("GlobalAveragePool", ["v"], "ga")
    net.op("Concat", ["gm", "ga"], "both", axis=1)
    net.op("Flatten", ["both"], "f")
    net.op("MatMul", ["f", net.weight("out", 6, 2)], "y")
    return net.model({"x": ["n", 2, 13]}, ["y"], opset)


CASES: dict[str, tuple[Callable[[int], onnx.ModelProto], tuple[int, ...]]] = {
    "mlp": (mlp, (5,)),
    "cnn": (cnn, (3, 9, 11)),
    "transformer": (transformer, (4, 8)),
    "conv1d_3d": (conv1d_3d, (2, 13)),
}


def run_onnx(model: onnx.ModelProto | bytes, *inputs: np.ndarray) -> list[np.ndarray]:
    """The model's outputs in onnxruntime, without its graph optimiser."""
    data = model if isinstance(model, bytes) else model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options)
    names = [i.name for i in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs, strict=True)))


def difference(model: onnx.ModelProto, *inputs: np.ndarray) -> float:
    module = read_onnx(model.SerializeToString()).module
    with torch.no_grad():
        ours = module(*(torch.from_numpy(x) for x in inputs))
    ours = ours if isinstance(ours, tuple) else (ours,)
    theirs = run_onnx(model, *inputs)
    assert [tuple(a.shape) for a in ours] == [b.shape for b in theirs]
    return max(float(np.abs(a.numpy() - b).max()) for a, b in zip(ours, theirs, strict=True))


def ints(*values: object) -> np.ndarray:
    return np.array(values, np.int64)


def refused(
    model: onnx.ModelProto | bytes, code: str, text: str = "", limits: Limits | None = None
) -> SecateurError:
    data = model if isinstance(model, bytes) else model.SerializeToString()
    with pytest.raises(SecateurError) as caught:
        read_onnx(data, limits)
    assert caught.value.code == code, caught.value
    assert text in str(caught.value)
    return caught.value
