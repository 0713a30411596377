"""Operators on host arrays, under vmap, in derivatives, and against hostile sizes."""

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from pruning.errors import SecateurError
from pruning.formats.onnx import read_onnx
from tests.pruning.formats.onnx_cases import Net, difference, refused, run_onnx

torch.set_num_threads(1)

INT = TensorProto.INT64


def sizes_by_shape():
    """A Reshape whose sizes run through operators on the host."""
    net = Net()
    net.op("Shape", ["x"], "s")
    for name, value in (("two", [2]), ("zero", 0), ("k", [3]), ("end", [99]), ("start", [1]),
                        ("more", [0, 1]), ("depth", 3), ("places", [[2]]), ("six", [6]),
                        ("values", [0, 1]), ("at", [[0]])):  # fmt: skip
        net.const(name, np.array(value, np.int64))
    net.op("Tile", ["s", "two"], "tiled")
    net.op("TopK", ["tiled", "k"], "top", axis=0)
    net.nodes[-1].output.append("top_places")
    net.op("CumSum", ["top_places", "zero"], "sums")
    net.op("Pad", ["sums", "more"], "padded")
    net.op("Mod", ["padded", "six"], "left")
    net.op("ScatterND", ["left", "at", "start"], "set")
    net.op("GatherND", ["set", "places"], "picked")
    net.op("OneHot", ["picked", "depth", "values"], "hot")
    net.op("NonZero", ["hot"], "found")
    net.op("ReduceSumSquare", ["found"], "total", keepdims=0)
    net.op("Unsqueeze", ["total", "zero_axis"], "rows")
    net.const("zero_axis", np.array([0], np.int64))
    net.op("Concat", ["rows", "minus"], "shape", axis=0)
    net.const("minus", np.array([-1], np.int64))
    net.op("Greater", ["rows", "zero_axis"], "some")
    net.op("Where", ["some", "shape", "shape"], "target")
    net.op("Reshape", ["x", "target"], "y")
    return net.model({"x": [6, 4]}, ["y"])


def test_shape_arithmetic_stays_on_the_host():
    x = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    assert difference(sizes_by_shape(), x) == 0


@pytest.mark.parametrize("opset", [11, 18])
def test_resize_to_sizes_computed_from_a_shape(opset):
    net = Net()
    net.op("Shape", ["a"], "s")
    net.const("start", np.array([2], np.int64))
    net.const("end", np.array([4], np.int64))
    net.op("Slice", ["s", "start", "end"], "wide")
    net.op("Shape", ["x"], "sx")
    net.op("Slice", ["sx", net.const("nought", np.array([0], np.int64)), "start"], "front")
    net.op("Concat", ["front", "wide"], "sizes", axis=0)
    none = net.const("none", np.zeros(0, np.float32))
    net.op("Resize", ["x", none, none, "sizes"], "y", mode="linear",
           coordinate_transformation_mode="pytorch_half_pixel")  # fmt: skip
    model = net.model({"x": ["n", 2, 3, 4], "a": ["n", 1, 7, 6]}, ["y"], opset)
    x, a = (np.random.default_rng(0).standard_normal(s).astype(np.float32)
            for s in ((3, 2, 3, 4), (3, 1, 7, 6)))  # fmt: skip
    assert difference(model, x, a) < 1e-5


def chain(net):
    """Operators that work sample by sample and have derivatives."""
    net.op("ConvTranspose", ["x", net.weight("up.weight", 3, 4, 2, 2)], "u", strides=[2, 2])
    net.op("Resize", ["u", "", net.const("scales", np.array([1, 1, 0.5, 1.5], np.float32))], "r",
           mode="linear")  # fmt: skip
    net.op("Pad", ["r", net.const("pads", np.array([0, 0, 1, 1, 0, 0, 1, 1]))], "p", mode="reflect")
    net.op("InstanceNormalization", ["p", net.weight("i.weight", 4), net.weight("i.bias", 4)], "n")
    net.op("LpPool", ["n"], "l", kernel_shape=[2, 2], strides=[2, 2])
    net.op("LRN", ["l"], "m", size=3)
    net.op("DepthToSpace", ["m"], "d", blocksize=2)
    net.op("TopK", ["d", net.const("k", np.array([3]))], "t", axis=-1)
    net.nodes[-1].output.append("places")
    net.op("ReduceLogSumExp", ["t", net.const("axes", np.array([-1]))], "e", keepdims=0)
    net.op("Einsum", ["e", net.weight("w", 6, 5)], "y", equation="bch,hk->bck")
    return net.model({"x": ["n", 3, 4, 4]}, ["y"], 18)


def test_a_chain_agrees_and_each_parameter_gets_its_gradient():
    model = chain(Net())
    x = np.random.default_rng(1).standard_normal((2, 3, 4, 4)).astype(np.float32)
    assert difference(model, x) < 1e-4
    module = read_onnx(model.SerializeToString()).module
    module(torch.from_numpy(x)).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in module.parameters())


def test_a_chain_runs_under_vmap_over_samples():
    module = read_onnx(chain(Net()).SerializeToString()).module
    x = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    each = torch.func.vmap(lambda one: module(one.unsqueeze(0)).squeeze(0))(x)
    assert torch.allclose(each, module(x), atol=1e-5)


def test_indexing_runs_under_vmap_over_samples():
    net = Net()
    for name, value in (("at", [[[0], [2]]]), ("axis", 1), ("one", [[0, 1]])):
        net.const(name, np.array(value, np.int64))
    net.op("GatherND", ["x", net.const("where", np.array([[[1], [0]]]))], "g", batch_dims=1)
    net.op("CumSum", ["g", "axis"], "c")
    net.op("ArgMax", ["c"], "a", axis=-1, keepdims=0)
    net.op("OneHot", ["a", net.const("depth", np.array(4)), net.weight("v", 2)], "h")
    net.op("Mul", ["h", "c"], "y")
    model = net.model({"x": [1, 3, 4]}, ["y"])
    module = read_onnx(model.SerializeToString()).module
    x = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))
    each = torch.func.vmap(lambda one: module(one.unsqueeze(0)).squeeze(0))(x)
    one = torch.cat([module(sample.unsqueeze(0)) for sample in x])
    assert torch.allclose(each, one)
    assert np.allclose(run_onnx(model, x[:1].numpy())[0], one[:1].numpy())


def test_a_row_of_attention_that_sees_nothing_is_zero_and_has_a_gradient():
    net = Net()
    net.op("Attention", ["x", "x", "x", net.const("mask", np.array([[True, False], [False] * 2]))],
           "y")  # fmt: skip
    module = read_onnx(net.model({"x": [2, 3, 2, 4]}, ["y"], 23).SerializeToString()).module
    x = torch.randn(2, 3, 2, 4, requires_grad=True)
    y = module(x)
    assert torch.equal(y[:, :, 1], torch.zeros(2, 3, 4))
    y.square().sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize(
    ("operator", "inputs", "attributes"),
    [
        ("Tile", [[10**7, 10**7]], {}),
        ("Pad", [[0, 10**12, 0, 10**12]], {}),
        ("Resize", [None, None, [10**9, 10**9]], {}),
        ("CenterCropPad", [[10**7, 10**7]], {}),
    ],
)
def test_results_of_any_size_are_refused_before_they_are_made(operator, inputs, attributes):
    net = Net()
    names = ["x"]
    for i, value in enumerate(inputs):
        names.append("" if value is None else net.const(f"c{i}", np.array(value, np.int64)))
    net.op(operator, names, "y", **attributes)
    error = refused(net.model({"x": ["n", 4]}, ["y"], 18), "model_too_large")
    assert "y" in str(error)


def test_host_arrays_of_any_size_are_refused_before_they_are_made():
    net = Net()
    net.op("Shape", ["x"], "s")
    net.op("Tile", ["s", net.const("many", np.array([10**12]))], "t")
    net.op("ReduceMax", ["t"], "m", keepdims=0)
    net.op("Cast", ["m"], "f", to=TensorProto.FLOAT)
    net.op("Mul", ["x", "f"], "y")
    refused(net.model({"x": [2, 4]}, ["y"]), "model_too_large")


@pytest.mark.parametrize(
    ("operator", "hint"),
    [("RandomNormalLike", "evaluation mode"), ("DynamicQuantizeLinear", "float model")],
)
def test_random_and_quantised_operators_are_refused_with_what_to_do(operator, hint):
    net = Net()
    outputs = ["a", "b", "c"] if operator == "DynamicQuantizeLinear" else ["a"]
    net.nodes.append(helper.make_node(operator, ["x"], outputs, name="node"))
    net.op("Cast", ["a"], "y", to=TensorProto.FLOAT)
    error = refused(net.model({"x": [2, 4]}, ["y"]), "operator_unsupported", operator)
    assert error.hint is not None
    assert hint in error.hint


def test_indices_out_of_bounds_are_an_error_with_the_name_of_the_node():
    net = Net()
    net.op("GatherND", ["x", "i"], "y")
    model = net.model({"x": [3, 4], "i": (INT, [1, 2])}, ["y"])
    module = read_onnx(model.SerializeToString()).module
    x = torch.arange(12.0).reshape(3, 4)
    assert module(x, torch.tensor([[2, 3]])).item() == 11
    with pytest.raises(SecateurError) as caught:
        module(x, torch.tensor([[0, 5]]))
    assert caught.value.where == "node_y (GatherND)"


def hidden(operator, inputs, opset=18, shape=("n", 2, 4), **attributes):
    """A node with a small result that takes a large value on the way."""
    net = Net()
    names = ["x"]
    for i, value in enumerate(inputs):
        names.append(net.const(f"c{i}", value) if isinstance(value, np.ndarray) else value)
    net.op(operator, names, "y", **attributes)
    return net.model({"x": list(shape)}, ["y"], opset)


LONG = 10**9
HIDDEN = {
    "transposed": hidden("ConvTranspose", [np.ones((2, 1, 1), np.float32)], strides=[LONG],
                         output_shape=[4]),
    "norm pool": hidden("LpPool", [], kernel_shape=[LONG], pads=[LONG, LONG], strides=[LONG]),
    "unpool": hidden("MaxUnpool", [np.zeros((1, 2, 4), np.int64), np.array([1, 2, 9])],
                     shape=(1, 2, 4), kernel_shape=[1], strides=[LONG]),
    "empty axis": hidden("Pad", [np.array([0, 0, LONG * 100, 0, -2, 0])], 18, (3, 2, 4),
                         mode="edge"),
    "scores": hidden("Attention", ["x", "x"], 23, (1, 1 << 20, 2), q_num_heads=2, kv_num_heads=2),
    "outer": hidden("Einsum", [np.ones((1 << 20, 1), np.float32), "x", "c0"], 17,
                    (1 << 20, 1), equation="ia,jb,ia,jb->"),
}  # fmt: skip


@pytest.mark.parametrize("case", HIDDEN)
def test_what_a_small_result_takes_on_the_way_is_priced_first(case):
    model = HIDDEN[case]
    shape = [d.dim_value or 1 for d in model.graph.input[0].type.tensor_type.shape.dim]
    with pytest.raises(SecateurError) as caught:
        read_onnx(model.SerializeToString()).module(torch.zeros(shape))
    assert caught.value.code in ("model_too_large", "model_invalid"), caught.value
