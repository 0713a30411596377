"""Hostile ONNX files: each ends in a refusal with its code, or is read cheaply; nothing is opened.

What declares or computes values of any size from a few bytes is priced before it is made; where
such a graph is legitimate, only what its intake takes is asserted.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from tests.pruning.formats.onnx_cases import Net, cnn, ints, mlp

MIB = 1 << 20
Refused = Callable[..., dict[str, Any]]
Intake = Callable[[str, Path], dict[str, Any]]


def written(folder: Path, model: onnx.ModelProto | bytes) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


def changed(change: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    model = mlp()
    change(model)
    return model


def giant_initialiser(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.dims[:] = [1 << 31, 1 << 31]


def overflowing_sizes(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [1 << 32, 1 << 32]  # 0 in 64 bits


def overflow_to_the_right_size(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.dims[:] = [(1 << 63) - 1, (1 << 63) - 1, 5, 7]


def negative_size(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [-7, -5]


def empty_times_giant(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.dims[:] = [0, 1 << 62, 1 << 62]


def traversal(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../../../etc/passwd")


def traversal_in_an_attribute(model: onnx.ModelProto) -> None:
    tensor = next(n for n in model.graph.node if n.op_type == "Constant").attribute[0].t
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value="/proc/self/environ")


def traversal_in_a_scalar(model: onnx.ModelProto) -> None:
    attribute = model.graph.node[0].attribute.add(name="more", type=AttributeProto.INT)
    attribute.tensors.add(data_location=TensorProto.EXTERNAL).external_data.add(
        key="location", value="../../../../../../etc/passwd"
    )


def cyclic(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = model.graph.node[-1].output[0]


def given_twice(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Relu", ["x"], [model.graph.node[0].output[0]]))


def recursive_function(model: onnx.ModelProto) -> None:
    inner = helper.make_node("F", ["a"], ["b"], domain="own")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model.functions.append(helper.make_function("own", "F", ["a"], ["b"], [inner], opsets))
    model.opset_import.append(opsets[1])
    model.graph.node.append(helper.make_node("F", ["x"], ["z"], domain="own"))


def not_a_number(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    value = numpy_helper.to_array(tensor).copy()
    value.flat[3] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def constant_of_text(model: onnx.ModelProto) -> None:
    node = next(n for n in model.graph.node if n.op_type == "Constant")
    del node.attribute[:]
    node.attribute.append(helper.make_attribute("value_strings", ["../x", "y"]))


def sparse_constant(model: onnx.ModelProto) -> None:
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.ones(1, np.float32), "values"),
        numpy_helper.from_array(np.zeros(1, np.int64), "indices"),
        [1 << 40],
    )
    node = next(n for n in model.graph.node if n.op_type == "Constant")
    del node.attribute[:]
    node.attribute.append(helper.make_attribute("sparse_value", sparse))


def wrong_attribute_type(model: onnx.ModelProto) -> None:
    attribute = next(a for a in model.graph.node[0].attribute if a.name == "transB")
    attribute.CopyFrom(helper.make_attribute("transB", "yes"))


def type_and_value_apart(model: onnx.ModelProto) -> None:
    next(a for a in model.graph.node[0].attribute).type = AttributeProto.GRAPH


def huge_attribute(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("pads", [1] * 1_000_000))


def many_attributes(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.extend(helper.make_attribute(f"a{i}", i) for i in range(200_000))


def giant_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1 << 60


def text_for_weights(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_type = TensorProto.STRING
    tensor.string_data.extend([b"x"] * 35)


CHANGES: list[tuple[Callable[[onnx.ModelProto], None], str]] = [
    (giant_initialiser, "model_too_large"),
    (overflowing_sizes, "model_too_large"),
    (overflow_to_the_right_size, "model_too_large"),
    (negative_size, "model_invalid"),
    (empty_times_giant, "model_invalid"),
    (traversal, "external_data"),
    (traversal_in_an_attribute, "external_data"),
    (traversal_in_a_scalar, "model_invalid"),
    (cyclic, "model_invalid"),
    (given_twice, "model_invalid"),
    (recursive_function, "operator_unsupported"),
    (not_a_number, "weights_non_finite"),
    (constant_of_text, "operator_attribute_unsupported"),
    (sparse_constant, "operator_attribute_unsupported"),
    (wrong_attribute_type, "model_invalid"),
    (type_and_value_apart, "model_invalid"),
    (huge_attribute, "model_invalid"),
    (many_attributes, "model_too_large"),
    (giant_input, "model_too_large"),
    (text_for_weights, "operator_attribute_unsupported"),
]


@pytest.mark.parametrize(("change", "code"), CHANGES, ids=lambda v: getattr(v, "__name__", v))
def test_a_file_that_was_tampered_with_is_refused(
    change: Callable[[onnx.ModelProto], None], code: str, refused: Refused, tmp_path: Path
) -> None:
    said = refused("model", written(tmp_path, changed(change)))
    assert said["code"] == code, said


@pytest.mark.parametrize("share", [0.02, 0.5, 0.999])
def test_a_file_that_ends_early_is_refused(share: float, refused: Refused, tmp_path: Path) -> None:
    data = cnn().SerializeToString()
    said = refused("model", written(tmp_path, data[: int(len(data) * share)]))
    assert said["code"] in ("model_truncated", "unsupported_format", "opset_unsupported")


@pytest.mark.parametrize("name", [b"fc1.weight", b"node_h", b"graph"])
def test_names_that_are_not_text_are_refused(name: bytes, refused: Refused, tmp_path: Path) -> None:
    data = mlp().SerializeToString()
    assert name in data
    said = refused("model", written(tmp_path, data.replace(name, b"\xff\xfe" + name[2:])))
    assert said["code"] == "model_unreadable"


def test_a_million_nodes_are_refused(refused: Refused, tmp_path: Path) -> None:
    model = mlp()
    data = model.SerializeToString()
    node = helper.make_node("Relu", ["x"], ["y"]).SerializeToString()
    body = (b"\x0a" + bytes([len(node)]) + node) * 1_000_000
    # A second graph field is merged into the first.
    size, length = len(body), b""
    while size:
        length += bytes([(size & 127) | (128 if size > 127 else 0)])
        size >>= 7
    said = refused("model", written(tmp_path, data + b"\x3a" + length + body))
    assert said["code"] == "model_too_large"


@pytest.mark.parametrize("depth", [13, 30, 500])
def test_deeply_nested_subgraphs_are_refused(depth: int, refused: Refused, tmp_path: Path) -> None:
    """Also those nested beyond what protocol buffers parse, written as bytes."""
    inner = helper.make_graph([], "g", [], []).SerializeToString()
    for _ in range(depth):
        attribute = field(1, b"b") + b"\xa0\x01\x05" + field(6, inner)
        inner = field(1, field(4, b"If") + field(5, attribute))
    data = b"\x08\x08" + field(7, inner) + b"\x42\x04\x0a\x00\x10\x11"
    assert refused("model", written(tmp_path, data))["code"] in (
        "model_too_large", "model_unreadable",
    )  # fmt: skip


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field of a protocol buffer."""
    size, length = len(content), b""
    while True:
        length += bytes([(size & 127) | (128 if size > 127 else 0)])
        size >>= 7
        if not size:
            return bytes([number << 3 | 2]) + length + content


def loop(trips: int) -> onnx.ModelProto:
    """X through a loop of `trips` rounds."""
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Relu", ["v"], ["w"])],
        "body",
        [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, []),
         info("v", TensorProto.FLOAT, None)],
        [info("on", TensorProto.BOOL, []), info("w", TensorProto.FLOAT, None)],
    )  # fmt: skip
    net = Net()
    net.const("trips", np.int64(trips))
    net.op("Loop", ["trips", "", "x"], "y", body=body)
    return net.model({"x": ["n", 4]}, ["y"])


@pytest.mark.parametrize("trips", [65, 1 << 31, 1 << 60, -1])
def test_loops_that_never_end_are_refused(trips: int, refused: Refused, tmp_path: Path) -> None:
    assert refused("model", written(tmp_path, loop(trips)))["code"] == "operator_unsupported"


def branch(depth: int) -> onnx.GraphProto:
    info = helper.make_tensor_value_info("r", TensorProto.FLOAT, None)
    if depth == 0:
        return helper.make_graph([helper.make_node("Relu", ["x"], ["r"])], "g", [], [info])
    both = {"then_branch": branch(depth - 1), "else_branch": branch(depth - 1)}
    node = helper.make_node("If", ["yes"], ["r"], **both)
    return helper.make_graph([node], "g", [], [info])


def test_ifs_in_ifs_cost_little(intake: Intake, tmp_path: Path) -> None:
    net = Net()
    net.const("yes", np.array(True))
    net.op("If", ["yes"], "y", then_branch=branch(9), else_branch=branch(9))
    check_cheap(intake("model", written(tmp_path, net.model({"x": ["n", 4]}, ["y"]))))


def unrolled_loops(net: Net) -> None:
    """Loops in loops: 64 rounds at each of four levels."""
    info = helper.make_tensor_value_info
    inner = [helper.make_node("Relu", ["v0"], ["w0"])]
    for level in range(4):
        body = helper.make_graph(
            [helper.make_node("Identity", [f"go{level}"], [f"on{level}"]), *inner], "body",
            [info(f"i{level}", TensorProto.INT64, []), info(f"go{level}", TensorProto.BOOL, []),
             info(f"v{level}", TensorProto.FLOAT, None)],
            [info(f"on{level}", TensorProto.BOOL, []), info(f"w{level}", TensorProto.FLOAT, None)],
        )  # fmt: skip
        value = f"v{level + 1}" if level < 3 else "x"
        result = f"w{level + 1}" if level < 3 else "y"
        inner = [helper.make_node("Loop", ["trips", "", value], [result], body=body)]
    net.const("trips", np.int64(64))
    net.nodes.extend(inner)


def expand(net: Net, shape: list[int]) -> None:
    net.op("Expand", ["x", net.const("to", ints(*shape))], "big")


def constant_of_shape(net: Net) -> None:
    net.op("ConstantOfShape", [net.const("to", ints(1 << 30, 1 << 30))], "big")


def range_of(net: Net) -> None:
    for name, value in (("from", 0), ("to", 1 << 50), ("by", 1)):
        net.const(name, np.int64(value))
    net.op("Range", ["from", "to", "by"], "numbers")
    net.op("Cast", ["numbers"], "big", to=TensorProto.FLOAT)


def tile(net: Net) -> None:
    net.op("Tile", ["x", net.const("by", ints(1 << 20, 1 << 20))], "big")


def tile_overflow(net: Net) -> None:
    net.op("Tile", ["x", net.const("by", ints(1 << 62, 1 << 62))], "big")


def padded(net: Net) -> None:
    net.op("Pad", ["x", net.const("by", ints(0, 1 << 40, 0, 1 << 40))], "big")


def outer_products(net: Net) -> None:
    net.op("Einsum", ["x", "x", "x", "x", "x", "x"], "big", equation="na,nb,nc,nd,ne,nf->nabcdef")
    net.op("Einsum", ["big", "big"], "bigger", equation="nabcdef,nghijkl->nabcdefghijkl")


def resized(net: Net) -> None:
    net.op("Unsqueeze", ["x", net.const("axes", ints(1, 2))], "image")
    net.op("Resize", ["image", "", "", net.const("to", ints(1, 1, 1 << 20, 1 << 20))], "big")


def one_hot(net: Net) -> None:
    net.op("Cast", ["x"], "places", to=TensorProto.INT64)
    net.const("depth", np.int64(1 << 40))
    net.op("OneHot", ["places", "depth", net.const("values", np.array([0, 1], np.float32))], "big")


def eye(net: Net) -> None:
    net.op("ConstantOfShape", [net.const("to", ints(1 << 20, 1 << 20))], "zeros")
    net.op("EyeLike", ["zeros"], "big")


def many_constants(net: Net) -> None:
    """Each is within the limit of one; together they are not."""
    net.const("to", ints(1 << 11, 1 << 11))
    for i in range(40):
        net.const(f"v{i}", np.full(1, i, np.float32))
        net.op("Expand", [f"v{i}", "to"], f"e{i}")
    net.op("Sum", [f"e{i}" for i in range(40)], "big")


BOMBS: list[Callable[[Net], None]] = [
    constant_of_shape, range_of, tile, tile_overflow, padded, outer_products, resized, one_hot,
    eye, many_constants,
]  # fmt: skip


@pytest.mark.parametrize("make", BOMBS, ids=lambda make: make.__name__)
def test_a_few_bytes_that_ask_for_terabytes_are_refused(
    make: Callable[[Net], None], refused: Refused, tmp_path: Path
) -> None:
    net = Net()
    make(net)
    net.op("ReduceSum", [net.nodes[-1].output[0]], "sum", keepdims=0)
    net.op("Add", ["x", "sum"], "y")
    model = net.model({"x": ["n", 64]}, ["y"])
    code = refused("model", written(tmp_path, model))["code"]
    assert code in ("model_too_large", "model_invalid")


def test_loops_that_unroll_to_millions_of_nodes_are_refused(
    refused: Refused, tmp_path: Path
) -> None:
    net = Net()
    unrolled_loops(net)
    model = net.model({"x": ["n", 4]}, ["y"])
    assert refused("model", written(tmp_path, model))["code"] == "model_too_large"


def check_cheap(said: dict[str, Any], grown: int = 64 * MIB) -> None:
    assert said["crash"] is None, said["crash"]
    assert said["seconds"] < 5, said
    assert said["grown"] < grown, said


def meeting(net: Net, value: str) -> None:
    """Samples meet on the way to the result, so that shapes alone don't prove them apart."""
    net.op("ReduceMax", [value], "top", axes=[0], keepdims=1)
    net.op("Sub", [value, "top"], "less")
    net.op("ReduceMean", ["less"], "y", axes=[-1], keepdims=0)


def wide(net: Net) -> None:
    expand(net, [1, 1 << 26, 1])
    net.op("ReduceMax", ["big"], "flat", axes=[2], keepdims=0)
    meeting(net, "flat")


def upsampled(net: Net) -> None:
    net.op("Unsqueeze", ["x", net.const("axes", ints(1, 2))], "image")
    net.const("scales", np.array([1, 1, 1 << 13, 1 << 8], np.float32))
    net.op("Resize", ["image", "", "scales"], "big", mode="nearest")
    net.op("Flatten", ["big"], "flat")
    meeting(net, "flat")


def filled(net: Net) -> None:
    net.op("Shape", ["x"], "sizes")
    net.op("Gather", ["sizes", net.const("zero", ints(0))], "batch", axis=0)
    net.op("Concat", ["batch", net.const("rest", ints(1 << 26))], "to", axis=0)
    net.op("ConstantOfShape", ["to"], "fill")
    net.op("ReduceMean", ["x"], "mean", axes=[1], keepdims=1)
    net.op("Add", ["fill", "mean"], "flat")
    meeting(net, "flat")


def squared(net: Net) -> None:
    net.op("Tile", ["x", net.const("by", ints(1, 1 << 8))], "row")
    net.op("Unsqueeze", ["row", net.const("last", ints(2))], "column")
    net.op("Transpose", ["column"], "flat", perm=[0, 2, 1])
    net.op("MatMul", ["column", "flat"], "big")
    net.op("MatMul", ["big", "big"], "bigger")
    meeting(net, "bigger")


def padded_and_strided(net: Net) -> None:
    """A convolution whose result is small, and its padded input not."""
    net.op("Unsqueeze", ["x", net.const("axes", ints(1))], "line")
    net.op("Conv", ["line", net.weight("c", 1, 1, 3)], "big", pads=[10**8, 10**8 + 1],
           strides=[10**8])  # fmt: skip
    net.op("Flatten", ["big"], "flat")
    meeting(net, "flat")


@pytest.mark.parametrize(
    "make", [wide, upsampled, filled, squared, padded_and_strided], ids=lambda make: make.__name__
)
def test_intake_does_not_run_a_graph_that_a_job_could_just_afford(
    make: Callable[[Net], None], intake: Intake, tmp_path: Path
) -> None:
    net = Net()
    make(net)
    check_cheap(intake("model", written(tmp_path, net.model({"x": ["n", 64]}, ["y"], 12))))


@pytest.mark.parametrize("kind", ["Conv", "MaxPool", "AveragePool", "LpPool"])
@pytest.mark.parametrize("pads", [[10**9, 10**9], [10**9, 10**9 + 1], [1 << 62, 1 << 62]])
def test_padding_that_a_stride_hides_costs_nothing(
    kind: str, pads: list[int], intake: Intake, tmp_path: Path
) -> None:
    net = Net()
    net.op("Unsqueeze", ["x", net.const("axes", ints(1))], "line")
    inputs = ["line", net.weight("c.weight", 1, 1, 3)] if kind == "Conv" else ["line"]
    net.op(kind, inputs, "small", kernel_shape=[3], pads=pads, strides=[10**9])
    net.op("Flatten", ["small"], "flat")
    meeting(net, "flat")
    check_cheap(intake("model", written(tmp_path, net.model({"x": ["n", 64]}, ["y"], 13))))


@pytest.mark.parametrize("samples", ["n", 2_000_000, 1])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_of_millions_of_steps_cost_little(
    kind: str, samples: str | int, intake: Intake, tmp_path: Path
) -> None:
    net = Net()
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    net.weight("w", 1, gates, 1)
    net.weight("r", 1, gates, 1)
    if samples == 1:
        net.op("Transpose", ["x"], "long", perm=[1, 0, 2])
    else:
        net.op("Identity", ["x"], "long")
    net.op(kind, ["long", "w", "r"], "states", hidden_size=1)
    net.op("ReduceMean", ["states"], "y", axes=[0, 1], keepdims=0)
    sizes = [samples, 2_000_000, 1] if samples == 1 else [samples, 1, 1]
    # Several samples of 8 MB are drawn before the layer says that it would take too long.
    said = intake("model", written(tmp_path, net.model({"x": sizes}, ["y"])))
    check_cheap(said, grown=160 * MIB)
