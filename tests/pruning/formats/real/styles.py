"""Small graphs in the ways in which other converters write them: names, layouts, detours."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.pruning.formats.onnx_cases import Net


def _constant(net: Net, name: str, value: np.ndarray) -> str:
    return net.op("Constant", [], name, value=numpy_helper.from_array(value))


def _ints(net: Net, name: str, *values: int) -> str:
    return _constant(net, name, np.array(values, np.int64))


def _norm(net: Net, value: str, name: str, channels: int, output: str) -> str:
    """BatchNormalization left as it is, every tensor in a Constant node."""
    parts = [net.constant_weight(f"{name}.{part}", channels) for part in ("w_0", "b_0", "w_1")]
    spread = net.random.uniform(0.5, 1.5, channels).astype(np.float32)
    parts = [value, *parts, _constant(net, f"{name}.w_2", spread)]
    return net.op("BatchNormalization", parts, output, epsilon=1e-5, momentum=0.9)


def _hard_swish(net: Net, value: str, output: str) -> str:
    """x * clip(x + 3, 0, 6) / 6, its numbers in Constant nodes of one element."""
    three, six, zero = (
        _constant(net, f"{output}.{name}", np.array([number], np.float32).squeeze())
        for name, number in (("three", 3.0), ("six", 6.0), ("zero", 0.0))
    )
    net.op("Add", [value, three], f"{output}.shifted")
    net.op("Clip", [f"{output}.shifted", zero, six], f"{output}.clipped")
    net.op("Mul", [value, f"{output}.clipped"], f"{output}.product")
    return net.op("Div", [f"{output}.product", six], output)


def paddle() -> onnx.ModelProto:
    """paddle2onnx 0.9, opset 11: Constant weights, batch norms beside, gates, -1 as sizes."""
    net = Net()
    net.op("Conv", ["x", net.constant_weight("conv1_weights", 8, 3, 3, 3)], "conv2d_0.tmp_0",
           strides=[2, 2], pads=[1, 1, 1, 1], kernel_shape=[3, 3])  # fmt: skip
    _norm(net, "conv2d_0.tmp_0", "batch_norm_0", 8, "batch_norm_0.tmp_2")
    _hard_swish(net, "batch_norm_0.tmp_2", "hardswish_0.tmp_0")
    net.op("Conv", ["hardswish_0.tmp_0", net.constant_weight("conv2_weights", 8, 1, 3, 3)],
           "depthwise_0.tmp_0", pads=[1, 1, 1, 1], group=8, kernel_shape=[3, 3],
           strides=[2, 1])  # fmt: skip
    net.op("Relu", ["depthwise_0.tmp_0"], "relu_0.tmp_0")
    net.op("GlobalAveragePool", ["relu_0.tmp_0"], "pool2d_0.tmp_0")
    net.op(
        "Conv", ["pool2d_0.tmp_0", net.constant_weight("se_1_weights", 4, 8, 1, 1)], "se_1.tmp_0"
    )
    bias = net.constant_weight("se_1_offset", 4)
    net.op("Reshape", [bias, _ints(net, "se_shape", 1, 4, 1, 1)], "se_1.b")
    net.op("Add", ["se_1.tmp_0", "se_1.b"], "se_1.tmp_1")
    net.op("Relu", ["se_1.tmp_1"], "relu_1.tmp_0")
    net.op("Conv", ["relu_1.tmp_0", net.constant_weight("se_2_weights", 8, 4, 1, 1)], "se_2.tmp_0")
    net.op("HardSigmoid", ["se_2.tmp_0"], "hardsigmoid_0.tmp_0", alpha=0.2, beta=0.5)
    net.op("Mul", ["relu_0.tmp_0", "hardsigmoid_0.tmp_0"], "elementwise_mul_0")
    net.op("Conv", ["elementwise_mul_0", net.constant_weight("conv3_weights", 12, 8, 1, 1)], "last")
    net.op("MaxPool", ["last"], "pool2d_1.tmp_0", kernel_shape=[2, 2], strides=[2, 2])
    net.op("GlobalAveragePool", ["pool2d_1.tmp_0"], "pool2d_2.tmp_0")
    net.op("Shape", ["pool2d_2.tmp_0"], "shape_0")
    net.op("Cast", ["shape_0"], "shape_1", to=TensorProto.INT32)
    net.op("Cast", ["shape_1"], "shape_2", to=TensorProto.INT64)
    starts, ends, axes = _ints(net, "starts", 0), _ints(net, "ends", 1), _ints(net, "axes", 0)
    net.op("Slice", ["shape_2", starts, ends, axes], "batch")
    rest = _ints(net, "rest", 12)
    net.op("Concat", ["batch", rest], "wanted", axis=0)
    net.op("Reshape", ["pool2d_2.tmp_0", "wanted"], "flat")
    net.op("MatMul", ["flat", net.constant_weight("fc_weights", 12, 2)], "fc_0.tmp_0")
    net.op("Add", ["fc_0.tmp_0", net.constant_weight("fc_offset", 2)], "fc_0.tmp_1")
    net.op("Softmax", ["fc_0.tmp_1"], "softmax_0.tmp_0", axis=1)
    net.op("Identity", ["softmax_0.tmp_0"], "save_infer_model/scale_0.tmp_1")
    sizes = [-1, 3, "?", "?"]
    return net.model({"x": sizes}, ["save_infer_model/scale_0.tmp_1"], 11)


_CALL = "StatefulPartitionedCall/model"


def tensorflow() -> onnx.ModelProto:
    """tf2onnx, opset 15: channels last around Transposes, biases added after, int32 sizes."""
    net = Net()
    net.op("Transpose", ["image:0"], f"{_CALL}/conv/Conv2D__6:0", perm=[0, 3, 1, 2])
    kernel = net.weight(f"{_CALL}/conv/Conv2D/ReadVariableOp:0", 8, 3, 3, 3)
    net.op("Conv", [f"{_CALL}/conv/Conv2D__6:0", kernel], f"{_CALL}/conv/Conv2D:0",
           auto_pad="SAME_UPPER", strides=[2, 2], kernel_shape=[3, 3], dilations=[1, 1],
           group=1)  # fmt: skip
    bias = net.weight("const_fold_opt__31", 1, 8, 1, 1)
    net.op("Add", [f"{_CALL}/conv/Conv2D:0", bias], f"{_CALL}/conv/BiasAdd:0")
    net.const("low", np.float32(0)), net.const("high", np.float32(6))
    net.op("Clip", [f"{_CALL}/conv/BiasAdd:0", "low", "high"], f"{_CALL}/relu6/Relu6:0")
    # TensorFlow's depthwise kernels are [height, width, channels, 1].
    net.weight(f"{_CALL}/dw/depthwise/ReadVariableOp:0", 3, 3, 8, 1)
    net.op("Transpose", [f"{_CALL}/dw/depthwise/ReadVariableOp:0"], "dw__9:0", perm=[2, 3, 0, 1])
    net.op("Conv", [f"{_CALL}/relu6/Relu6:0", "dw__9:0"], f"{_CALL}/dw/depthwise:0",
           auto_pad="SAME_UPPER", group=8, kernel_shape=[3, 3])  # fmt: skip
    statistics = [net.weight(f"{_CALL}/bn/{n}", 8) for n in ("gamma", "beta", "mean")]
    statistics.append(net.const(f"{_CALL}/bn/variance", np.full(8, 0.9, np.float32)))
    net.op("BatchNormalization", [f"{_CALL}/dw/depthwise:0", *statistics],
           f"{_CALL}/bn/FusedBatchNormV3:0", epsilon=1e-3)  # fmt: skip
    net.op("Transpose", [f"{_CALL}/bn/FusedBatchNormV3:0"], "nhwc", perm=[0, 2, 3, 1])
    net.op("MatMul", ["nhwc", net.weight(f"{_CALL}/dense/Tensordot/ReadVariableOp:0", 8, 6)], "dot")
    net.op("Add", ["dot", net.weight(f"{_CALL}/dense/BiasAdd/ReadVariableOp:0", 6)], "biased")
    net.op("Shape", ["biased"], f"{_CALL}/flatten/Shape:0")
    net.op("Cast", [f"{_CALL}/flatten/Shape:0"], "shape32", to=TensorProto.INT32)
    for name, value in (("from", [0]), ("to", [1]), ("along", [0])):
        net.const(name, np.array(value, np.int64))
    net.op("Slice", ["shape32", "from", "to", "along"], "strided")
    net.op("Squeeze", ["strided", "along"], "count32")
    net.op("Unsqueeze", ["count32", "along"], "count")
    net.op("Concat", ["count", net.const("minus", np.array([96], np.int32))], "sizes32", axis=0)
    net.op("Cast", ["sizes32"], "sizes", to=TensorProto.INT64)
    net.op("Reshape", ["biased", "sizes"], f"{_CALL}/flatten/Reshape:0")
    net.op("MatMul", [f"{_CALL}/flatten/Reshape:0", net.weight(f"{_CALL}/out/MatMul:0", 96, 5)],
           "logits")  # fmt: skip
    net.op("Add", ["logits", net.weight("const_fold_opt__32", 1, 5)], "scores")
    # Softmax in pieces, as it is lowered where its axis is not the last.
    net.op("ReduceMax", ["scores"], "top", axes=[-1], keepdims=1)
    net.op("Sub", ["scores", "top"], "shifted")
    net.op("Exp", ["shifted"], "powers")
    net.const("last", np.array([-1], np.int64))
    net.op("ReduceSum", ["powers", "last"], "total", keepdims=1)
    net.op("Div", ["powers", "total"], "Identity:0")
    return net.model({"image:0": ["unk__214", 8, 8, 3]}, ["Identity:0"], 15)


def labels_first() -> onnx.ModelProto:
    """Labels before scores, as classifiers of scikit-learn are converted."""
    net = Net()
    net.op("MatMul", ["X", net.weight("coefficient", 6, 9)], "mul_result")
    net.op("Add", ["mul_result", net.weight("intercepts", 1, 9)], "add_result")
    net.op("Relu", ["add_result"], "next_activations")
    net.op("MatMul", ["next_activations", net.weight("coefficient1", 9, 4)], "mul_result1")
    net.op("Add", ["mul_result1", net.weight("intercepts1", 1, 4)], "add_result1")
    net.op("Softmax", ["add_result1"], "probabilities", axis=1)
    net.op("ArgMax", ["probabilities"], "label", axis=1, keepdims=0)
    model = net.model({"X": ["N", 6]}, ["probabilities"], 13)
    label = helper.make_tensor_value_info("label", TensorProto.INT64, ["N"])
    scores = list(model.graph.output)
    del model.graph.output[:]
    model.graph.output.extend([label, *scores])
    return model


def transposed_once() -> onnx.ModelProto:
    """One kernel as the file's initialiser, turned by Transpose at run time, batch of one."""
    net = Net()
    net.weight("encoder.weight", 10, 6)
    net.op("Transpose", ["encoder.weight"], "turned", perm=[1, 0])
    net.op("MatMul", ["x", "turned"], "hidden")
    net.op("Tanh", ["hidden"], "code")
    # The decoder of a tied autoencoder: the same matrix the other way round.
    net.op("MatMul", ["code", "encoder.weight"], "decoded")
    net.op("Reshape", ["decoded", net.const("shape", np.array([1, 2, 3], np.int64))], "square")
    net.op("Gemm", ["code", net.weight("head.weight", 4, 10)], "scores", transB=1)
    return net.model({"x": [1, 6]}, ["square", "scores"], 17)


STYLES = {
    "paddle": (paddle, {"x": (3, 16, 16)}),
    "tensorflow": (tensorflow, {"image:0": (8, 8, 3)}),
    "labels_first": (labels_first, {"X": (6,)}),
    "transposed_once": (transposed_once, {"x": (6,)}),
}
