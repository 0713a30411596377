"""Where weights come from: Constant nodes, chains of nodes, shared and tied tensors."""

import time

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from pruning.formats.onnx import onnx_bytes, read_onnx
from tests.pruning.formats.onnx_cases import Net, difference, ints, refused, run_onnx

torch.set_num_threads(1)

f32 = np.float32


def tensors(data: bytes) -> dict[str, np.ndarray]:
    return dict(read_onnx(data).tensors())


def follows(model: onnx.ModelProto, *inputs: np.ndarray) -> bytes:
    """Changes every parameter and statistic, writes, and compares with onnxruntime."""
    imported = read_onnx(model.SerializeToString())
    assert onnx_bytes(imported) == model.SerializeToString(deterministic=True)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        statistics = [b for n, b in imported.module.named_buffers() if "running_" in n]
        for tensor in [*imported.module.parameters(), *statistics]:
            tensor.mul_(torch.rand(tensor.shape, generator=generator) + 0.5)
            tensor.add_(torch.rand(tensor.shape, generator=generator))
        ours = imported.module(*(torch.from_numpy(x) for x in inputs)).numpy()
    data = onnx_bytes(imported)
    theirs = run_onnx(data, *inputs)[0]
    assert np.abs(ours - theirs).max() < 1e-4 * max(1, np.abs(theirs).max())
    again = read_onnx(data)
    assert again.skeleton() == imported.skeleton()
    with torch.no_grad():
        assert np.allclose(again.module(*map(torch.from_numpy, inputs)).numpy(), ours, atol=1e-4)
    return data


def chain(net: Net, steps: list) -> str:
    name = "w"
    for i, (kind, second, attributes) in enumerate(steps):
        inputs = [name] if second is None else [name, net.const(f"second{i}", second)]
        name = net.op(kind, inputs, f"chained{i}", **attributes)
    return name


CHAINS = {
    "reshape": ((20,), [("Reshape", ints(5, 4), {})]),
    "inferred": ((2, 10), [("Reshape", ints(-1, 4), {})]),
    "transposed twice": ((5, 4, 1), [("Transpose", None, {"perm": [2, 1, 0]}),
                                     ("Squeeze", ints(0), {}), ("Transpose", None, {})]),
    "between": ((2, 5, 2), [("Transpose", None, {"perm": [1, 0, 2]}), ("Reshape", ints(0, 4), {})]),
    "unsqueezed": ((20,), [("Unsqueeze", ints(0), {}), ("Reshape", ints(4, 5), {}),
                           ("Identity", None, {}), ("Transpose", None, {"perm": [1, 0]})]),
    "flat": ((5, 2, 2), [("Flatten", None, {"axis": 1})]),
    "scaled": ((5, 4), [("Mul", f32(0.37), {})]),
    "divided": ((4, 5), [("Transpose", None, {}), ("Div", np.array([[3.0]], f32), {})]),
}  # fmt: skip


@pytest.mark.parametrize("case", CHAINS)
def test_a_weight_at_the_end_of_a_chain_is_written_back_at_its_start(case):
    shape, steps = CHAINS[case]
    net = Net()
    net.weight("w", *shape)
    net.op("MatMul", ["x", chain(net, steps)], "y")
    model = net.model({"x": ["n", 5]}, ["y"])
    x = np.random.default_rng(0).standard_normal((3, 5)).astype(f32)
    assert difference(model, x) < 1e-6
    imported = read_onnx(model.SerializeToString())
    (layer,) = imported.facts.layers
    assert (layer.kind, layer.weight, layer.shape) == ("Linear", "w", [4, 5])
    data = follows(model, x)
    assert tensors(data)["w"].shape == shape


@pytest.mark.parametrize("stored", [np.float64, np.float16])
def test_a_weight_stored_in_another_type_keeps_it(stored):
    net = Net()
    net.const("w", np.random.default_rng(1).standard_normal((5, 4)).astype(stored))
    net.op("Cast", ["w"], "cast", to=TensorProto.FLOAT)
    net.op("MatMul", ["x", "cast"], "y")
    model = net.model({"x": ["n", 5]}, ["y"])
    imported = read_onnx(model.SerializeToString())
    assert difference(model, np.ones((2, 5), f32)) < 1e-6
    with torch.no_grad():
        imported.module.get_parameter(f"{imported.facts.layers[0].name}.weight")[1, 2] = 0
    after = tensors(onnx_bytes(imported))["w"]
    assert after.dtype == stored
    assert after[2, 1] == 0
    assert np.count_nonzero(after != tensors(model.SerializeToString())["w"]) == 1
    assert imported.facts.layers[0].dtype == np.dtype(stored).name


def test_bfloat16_weights_compute_in_float32_and_are_written_as_bfloat16():
    import ml_dtypes

    net = Net()
    value = np.random.default_rng(1).standard_normal((5, 4)).astype(ml_dtypes.bfloat16)
    net.initializers.append(numpy_helper.from_array(value, "w"))
    net.op("Cast", ["w"], "cast", to=TensorProto.FLOAT)
    net.op("MatMul", ["x", "cast"], "y")
    model = net.model({"x": ["n", 5]}, ["y"])
    imported = read_onnx(model.SerializeToString())
    x = np.random.default_rng(0).standard_normal((3, 5)).astype(f32)
    with torch.no_grad():
        weight = imported.module.get_parameter(f"{imported.facts.layers[0].name}.weight")
        assert weight.dtype == torch.float32
        ours = imported.module(torch.from_numpy(x)).numpy()
        assert np.abs(ours - x @ value.astype(f32)).max() < 1e-5
        weight[0, 1] = 0
    (tensor,) = onnx.ModelProto.FromString(onnx_bytes(imported)).graph.initializer
    assert tensor.data_type == TensorProto.BFLOAT16
    after = numpy_helper.to_array(tensor)
    assert after[1, 0] == 0
    assert np.count_nonzero(after != value) == 1
    assert imported.facts.layers[0].dtype == "bfloat16"


def test_a_weight_computed_from_two_tensors_is_refused_by_name():
    net = Net()
    net.op("Mul", [net.weight("v", 4, 2), net.weight("g", 2)], "w")
    net.op("MatMul", ["x", "w"], "y")
    model = net.model({"x": ["n", 4]}, ["y"])
    refused(model, "operator_attribute_unsupported", "computed by node_w (Mul)")


def test_constants_that_are_no_weights_are_worked_out_at_import():
    net = Net()
    net.const("limit", np.int64(6))
    net.const("zero", np.int64(0))
    net.const("one", np.int64(1))
    net.op("Range", ["zero", "limit", "one"], "positions")
    net.op("Cast", ["positions"], "real", to=TensorProto.FLOAT)
    net.op("Mul", ["real", net.const("rate", np.array([0.3], f32))], "angle")
    net.op("Sin", ["angle"], "wave")
    net.op("Add", ["x", "wave"], "h")
    net.op("MatMul", ["h", net.weight("fc.weight", 6, 2)], "y")
    model = net.model({"x": ["n", 6]}, ["y"])
    x = np.random.default_rng(0).standard_normal((3, 6)).astype(f32)
    assert difference(model, x) < 1e-6
    module = read_onnx(model.SerializeToString()).module
    assert [step.operator for step in module.steps] == ["Add", "MatMul"]


def block(net: Net, x: str, index: int) -> str:
    """Two norms and a linear layer, whose scales, offsets and statistics all share tensors."""
    inputs = [x, "ones", "zeros", "zeros", "ones"]
    net.op("BatchNormalization", inputs, f"b{index}")
    net.op("MatMul", [f"b{index}", net.weight(f"fc{index}.weight", 6, 6)], f"m{index}")
    net.op("Add", [f"m{index}", "zeros"], f"a{index}")
    net.op("LayerNormalization", [f"a{index}", "ones", "zeros"], f"l{index}")
    return net.op("Mul", [f"l{index}", "ones"], f"s{index}")


def shared() -> onnx.ModelProto:
    net = Net()
    net.const("ones", np.ones(6, f32))
    net.const("zeros", np.zeros(6, f32))
    net.op("Identity", ["zeros"], "nothing")
    block(net, block(net, "x", 0), 1)
    net.op("Add", ["s1", "nothing"], "y")
    return net.model({"x": ["n", 6]}, ["y"])


def test_vectors_that_only_hold_equal_values_are_parameters_of_their_own():
    model = shared()
    imported = read_onnx(model.SerializeToString())
    assert imported.facts.ties == []
    x = np.random.default_rng(0).standard_normal((3, 6)).astype(f32)
    assert difference(model, x) < 1e-5
    data = follows(model, x)
    after = tensors(data)
    assert set(after["ones"]) == {1.0}  # the last Mul still reads it
    assert sum("/unshared_" in name for name in after) == 14
    twice = follows(onnx.ModelProto.FromString(data), x)
    assert tensors(twice).keys() == after.keys()


def test_only_the_parameter_that_has_changed_gets_a_tensor_of_its_own():
    imported = read_onnx(shared().SerializeToString())
    names = [n for n, p in imported.module.named_parameters() if p.dim() == 1]
    with torch.no_grad():
        imported.module.get_parameter(names[0]).add_(1.0)
    proto = onnx.ModelProto.FromString(onnx_bytes(imported))
    assert [t.name for t in proto.graph.initializer if "unshared" in t.name] == ["ones/unshared_1"]
    renamed = [n for n in proto.graph.node if "ones/unshared_1" in n.input]
    assert [list(n.input).index("ones/unshared_1") for n in renamed] == [1]
    onnx.checker.check_model(proto)


def test_a_tensor_of_an_old_file_that_is_given_a_copy_is_an_input_too():
    net = Net()
    net.const("zeros", np.zeros(4, f32))
    for i, name in enumerate("ab"):
        net.op("Gemm", ["xa"[i], net.weight(f"{name}.weight", 4, 4), "zeros"], "ay"[i])
    model = net.model({"x": ["n", 4]}, ["y"], 9)
    model.ir_version = 3
    for t in model.graph.initializer:
        info = onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims)
        model.graph.input.append(info)
    follows(model, np.ones((2, 4), f32))


def test_one_matrix_in_two_layers_is_one_parameter():
    net = Net()
    net.weight("w", 4, 4)
    net.op("MatMul", ["x", "w"], "a")
    net.op("Relu", ["a"], "r")
    net.op("MatMul", ["r", "w"], "y")
    model = net.model({"x": ["n", 4]}, ["y"])
    imported = read_onnx(model.SerializeToString())
    assert len(imported.facts.ties) == 1
    assert len(list(imported.module.parameters())) == 1
    assert tensors(follows(model, np.ones((2, 4), f32))).keys() == {"w"}


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_one_matrix_in_two_layouts_is_one_parameter(alpha):
    net = Net()
    net.weight("w", 4, 6)
    net.op("Gemm", ["x", "w"], "a", alpha=alpha)
    net.op("Relu", ["a"], "r")
    net.op("Gemm", ["r", "w"], "y", transB=1)
    model = net.model({"x": ["n", 4]}, ["y"])
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(f32)
    assert difference(model, x) < 1e-5
    module = read_onnx(model.SerializeToString()).module
    assert [tuple(p.shape) for p in module.parameters()] == [(6, 4)]
    module(torch.from_numpy(x)).sum().backward()
    (parameter,) = module.parameters()
    by_hand = torch.tensor(tensors(model.SerializeToString())["w"]).requires_grad_()
    (torch.relu(alpha * torch.from_numpy(x) @ by_hand) @ by_hand.T).sum().backward()
    assert torch.allclose(parameter.grad * alpha, by_hand.grad.T, atol=1e-5)
    assert tensors(follows(model, x)).keys() == {"w"}


@pytest.mark.parametrize("head", ["Transpose", "transB", "plain"])
def test_an_embedding_tied_to_the_head_is_one_parameter(head):
    net = Net()
    net.weight("table", 6, 4 if head != "plain" else 6)
    net.op("Gather", ["table", "x"], "e")
    net.op("ReduceMean", ["e"], "h", axes=[1], keepdims=0)
    if head == "Transpose":
        net.op("Transpose", ["table"], "turned")
        net.op("MatMul", ["h", "turned"], "y")
    else:
        net.op("Gemm", ["h", "table"], "y", transB=int(head == "transB"))
    model = net.model({"x": (TensorProto.INT64, ["n", 3])}, ["y"])
    x = np.array([[0, 5, -1], [2, -6, 1]])
    assert difference(model, x) < 1e-5
    module = read_onnx(model.SerializeToString()).module
    assert len(list(module.parameters())) == 1
    assert any(isinstance(m, nn.Embedding) for m in module.modules())
    assert tensors(follows(model, x)).keys() == {"table"}


def test_a_mask_of_minus_infinity_is_no_broken_weight():
    net = Net()
    mask = np.triu(np.full((3, 3), -np.inf, f32), 1)
    net.op("MatMul", ["x", net.weight("q.weight", 4, 4)], "q")
    net.op("Transpose", ["q"], "k", perm=[0, 2, 1])
    net.op("MatMul", ["q", "k"], "s")
    net.op("Add", ["s", net.const("mask", mask)], "m")
    net.op("Softmax", ["m"], "y", axis=-1)
    x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(f32)
    assert difference(net.model({"x": ["n", 3, 4]}, ["y"]), x) < 1e-6


def test_every_weight_may_stand_in_a_constant_node():
    net = Net()
    net.op("Gemm", ["x", net.constant_weight("w", 5, 7), net.constant_weight("b", 7)], "h")
    net.op("Constant", [], "scale", value_float=2.0)
    net.op("Mul", ["h", "scale"], "t")
    net.op("Constant", [], "shape", value_ints=[-1, 7])
    net.op("Reshape", ["t", "shape"], "y")
    model = net.model({"x": ["n", 5]}, ["y"])
    x = np.random.default_rng(0).standard_normal((2, 5)).astype(f32)
    assert difference(model, x) < 1e-6
    assert set(tensors(follows(model, x))) == {"w", "b", "scale", "shape"}


def split(net: Net, sizes: list[int], axis: int, names: list[str]) -> None:
    node = onnx.helper.make_node("Split", ["w", net.const("sizes", ints(*sizes))], names, axis=axis)
    net.nodes.append(node)


def sliced(net: Net, output: str, *bounds: int, axis: int = 0, step: int = 1) -> str:
    given = [net.const(f"{output}{i}", ints(v)) for i, v in enumerate((*bounds, axis, step))]
    return net.op("Slice", ["w", *given], output)


def rows(net: Net) -> None:
    net.weight("w", 9, 5)
    split(net, [4, 5], 0, ["p", "q"])


def columns(net: Net) -> None:
    net.weight("w", 5, 9)
    split(net, [4, 5], 1, ["pt", "qt"])
    net.op("Transpose", ["pt"], "p", perm=[1, 0])
    net.op("Transpose", ["qt"], "q", perm=[1, 0])


def strides(net: Net) -> None:
    net.weight("w", 8, 5)
    sliced(net, "p", 0, 8, step=2)
    sliced(net, "q", -1, -100, step=-2)


def stack(net: Net) -> None:
    net.weight("w", 3, 4, 5)
    net.op("Gather", ["w", net.const("first", np.array(0))], "p", axis=0)
    net.op("Gather", ["w", net.const("last", np.array(-1))], "q", axis=0)


def listed(net: Net) -> None:
    net.weight("w", 9, 5)
    net.op("Gather", ["w", net.const("odd", ints(1, 3, 7))], "p", axis=0)
    net.op("Gather", ["w", net.const("even", ints(0, 2, -1))], "q", axis=0)


def from_sizes(net: Net) -> None:
    """Bounds that are the width of the input."""
    net.weight("w", 10, 5)
    net.op("Shape", ["x"], "s")
    net.op("Gather", ["s", net.const("one", ints(1))], "five", axis=0)
    for name, value in (("zero", 0), ("many", 99)):
        net.const(name, ints(value))
    net.op("Slice", ["w", "zero", "five"], "p")
    net.op("Slice", ["w", "five", "many"], "q")


@pytest.mark.parametrize("cut", [rows, columns, strides, stack, listed, from_sizes])
def test_parts_of_a_tensor_are_weights_that_are_written_back_into_it(cut):
    net = Net()
    cut(net)
    net.op("Gemm", ["x", "p"], "a", transB=1)
    net.op("Transpose", ["q"], "turned", perm=[1, 0])
    net.op("MatMul", ["x", "turned"], "b")
    net.op("Concat", ["a", "b"], "y", axis=-1)
    model = net.model({"x": ["n", 5]}, ["y"])
    x = np.random.default_rng(0).standard_normal((3, 5)).astype(f32)
    assert difference(model, x) < 1e-6
    imported = read_onnx(model.SerializeToString())
    first, second = imported.facts.layers
    whole = tensors(model.SerializeToString())["w"]
    assert (first.kind, first.weight, second.weight) == ("Linear", "w", "w")
    assert imported.facts.parameters == whole.size
    assert first.is_output
    assert second.is_output
    data = follows(model, x)
    assert set(tensors(data)) == set(tensors(model.SerializeToString()))
    assert tensors(data)["w"].shape == whole.shape
    left = np.count_nonzero(tensors(data)["w"] == whole)
    assert left == whole.size - first.parameters - second.parameters


@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize(
    ("shape", "places"),
    [((5, 9), [1, 3, -2]), ((5, 5), [3, 0, 4, 1, 2]), ((5, 3, 2), 1), ((5, 3, 2), -1)],
    ids=["list", "square", "scalar", "last"],
)
def test_columns_that_are_gathered_are_a_weight(shape, places, axis):
    net = Net()
    net.weight("w", *shape)
    net.op("Gather", ["w", net.const("places", np.array(places))], "p", axis=axis)
    net.op("MatMul", ["x", "p"], "y")
    model = net.model({"x": ["n", 5]}, ["y"])
    x = np.random.default_rng(0).standard_normal((3, 5)).astype(f32)
    assert difference(model, x) < 1e-6
    imported = read_onnx(model.SerializeToString())
    whole = tensors(model.SerializeToString())["w"]
    taken = np.take(whole, places, axis)
    (layer,) = imported.facts.layers
    assert (layer.weight, layer.parameters) == ("w", taken.size)
    data = follows(model, x)
    assert np.count_nonzero(tensors(data)["w"] == whole) == whole.size - taken.size


def test_an_axis_that_a_gathered_weight_lacks_is_refused():
    net = Net()
    net.weight("w", 5, 9)
    net.op("Gather", ["w", net.const("places", ints(0, 1))], "p", axis=5)
    net.op("MatMul", ["x", "p"], "y")
    refused(net.model({"x": ["n", 5]}, ["y"]), "model_invalid", "axis")


def test_parts_that_share_numbers_are_no_weights_and_are_counted_once():
    net = Net()
    net.weight("w", 9, 5)
    sliced(net, "p", 0, 5)
    sliced(net, "q", 4, 9)
    net.op("Gemm", ["x", "p"], "a", transB=1)
    net.op("Gemm", ["x", "q"], "b", transB=1)
    net.op("Add", ["a", "b"], "c")
    net.op("Gemm", ["c", net.weight("f", 3, 5)], "y", transB=1)
    model = net.model({"x": ["n", 5]}, ["y"])
    x = np.random.default_rng(0).standard_normal((3, 5)).astype(f32)
    assert difference(model, x) < 1e-6
    facts = read_onnx(model.SerializeToString()).facts
    assert [layer.weight for layer in facts.layers] == ["f"]
    assert [(o.name, o.kind, o.parameters) for o in facts.others] == [("w", "computed", 45)]
    assert facts.parameters == 45 + 15


def test_a_part_beside_a_reader_of_the_whole_is_no_weight_of_its_own():
    net = Net()
    net.weight("w", 5, 5)
    sliced(net, "p", 0, 3)
    net.op("Gemm", ["x", "w"], "a", transB=1)
    net.op("Gemm", ["a", "p"], "y", transB=1)
    model = net.model({"x": ["n", 5]}, ["y"])
    x = np.random.default_rng(0).standard_normal((3, 5)).astype(f32)
    assert difference(model, x) < 1e-6
    facts = read_onnx(model.SerializeToString()).facts
    assert [layer.parameters for layer in facts.layers] == [25]
    follows(model, x)


def test_a_part_that_something_else_reads_gets_a_tensor_of_its_own():
    net = Net()
    net.weight("w", 9, 5)
    split(net, [4, 5], 0, ["p", "q"])
    net.op("Gemm", ["x", "p"], "a", transB=1)
    net.op("ReduceSum", ["q", net.const("axes", ints(0))], "s", keepdims=0)
    net.op("Add", ["x", "s"], "moved")
    net.op("Gemm", ["moved", net.weight("f", 4, 5)], "b", transB=1)
    net.op("Add", ["a", "b"], "y")
    model = net.model({"x": ["n", 5]}, ["y"])
    x = np.random.default_rng(0).standard_normal((3, 5)).astype(f32)
    assert difference(model, x) < 1e-6
    imported = read_onnx(model.SerializeToString())
    assert [layer.parameters for layer in imported.facts.layers] == [20, 20]
    data = follows(model, x)
    assert np.array_equal(tensors(data)["w"], tensors(model.SerializeToString())["w"])


def test_many_parts_of_a_long_tensor_are_read_without_writing_all_places_out():
    net = Net()
    net.weight("w", 100_000, 5)
    net.const("axis", ints(0))
    parts = []
    for n in range(300):
        net.const(f"a{n}", ints(n))
        net.const(f"b{n}", ints(n + 1))
        parts.append(net.op("Slice", ["w", f"a{n}", f"b{n}", "axis"], f"p{n}"))
    net.op("Concat", parts, "whole", axis=0)
    net.op("Transpose", ["whole"], "turned", perm=[1, 0])
    net.op("MatMul", ["x", "turned"], "y")
    model = net.model({"x": ["n", 5]}, ["y"])
    x = np.random.default_rng(0).standard_normal((3, 5)).astype(f32)
    start = time.perf_counter()
    assert difference(model, x) < 1e-5
    assert time.perf_counter() - start < 60
