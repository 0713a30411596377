import copy

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from pruning.errors import SecateurError
from pruning.formats.onnx import onnx_bytes, read_onnx, write_onnx
from tests.pruning.formats.onnx_cases import CASES, Net, mlp, run_onnx

torch.set_num_threads(1)


def tensors(data: bytes) -> dict[str, np.ndarray]:
    proto = onnx.ModelProto.FromString(data)
    found = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Constant":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


@pytest.mark.parametrize("case", CASES)
def test_an_unchanged_module_gives_the_uploaded_model(case):
    model = CASES[case][0](17)
    imported = read_onnx(model.SerializeToString())
    assert onnx_bytes(imported) == model.SerializeToString(deterministic=True)


@pytest.mark.parametrize("case", CASES)
def test_a_changed_module_computes_the_same_in_onnxruntime(case, tmp_path):
    build, shape = CASES[case]
    data = build(17).SerializeToString()
    imported = read_onnx(data)
    module = copy.deepcopy(imported.module)
    torch.manual_seed(0)
    with torch.no_grad():
        statistics = [b for n, b in module.named_buffers() if ".running_" in n]
        for tensor in [*module.parameters(), *statistics]:
            tensor.mul_(torch.rand_like(tensor) + 0.5)
        for name in imported.weight_names:
            weight = module.get_parameter(name)
            weight.mul_((torch.rand_like(weight) > 0.5).float())
    path = tmp_path / "pruned.onnx"
    write_onnx(imported, path, module)
    x = np.random.default_rng(0).standard_normal((4, *shape)).astype(np.float32)
    with torch.no_grad():
        ours = module(torch.from_numpy(x)).numpy()
    written = path.read_bytes()
    assert np.abs(run_onnx(written, x)[0] - ours).max() < 1e-5
    assert onnx_bytes(imported) == onnx_bytes(read_onnx(data))
    again = read_onnx(written)
    for name in imported.weight_names:
        before, after = module.get_parameter(name), again.module.get_parameter(name)
        assert torch.equal(before == 0, after == 0), name
    assert [p.name for p in tmp_path.iterdir()] == ["pruned.onnx"]
    assert onnx_bytes(imported, module) == written


def test_only_changed_tensors_change_and_names_and_graph_stay():
    model = mlp()
    imported = read_onnx(model.SerializeToString())
    with torch.no_grad():
        imported.module.get_parameter("fc2.weight")[0, 1] = 0
    written = onnx_bytes(imported)
    before, after = tensors(model.SerializeToString()), tensors(written)
    assert before.keys() == after.keys()
    assert [n for n in before if not np.array_equal(before[n], after[n])] == ["fc2.weight"]
    (changed,) = np.argwhere(before["fc2.weight"] != after["fc2.weight"])
    assert changed.tolist() == [1, 0]  # MatMul keeps [in, out]
    proto = onnx.ModelProto.FromString(written)
    assert list(proto.graph.node) == list(model.graph.node)
    assert onnx.ModelProto.FromString(model.SerializeToString()) == imported.proto


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("alpha", [1.0, 0.3, -1.7])
def test_scale_and_dtype_are_undone_without_touching_other_weights(dtype, alpha):
    net = Net(dtype=dtype)
    net.op("Gemm", ["x", net.weight("fc.weight", 50, 40), net.weight("fc.bias", 1, 40)], "y",
           alpha=alpha, beta=0.7)  # fmt: skip
    data = net.model({"x": ["n", 50]}, ["y"]).SerializeToString()
    imported = read_onnx(data)
    weight = imported.module.get_parameter("fc.weight")
    removed = torch.rand(weight.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    with torch.no_grad():
        weight.masked_fill_(removed, -0.0)
        imported.module.get_parameter("fc.bias")[3] = 1.0
    before, after = tensors(data), tensors(onnx_bytes(imported))
    kept = ~removed.numpy().T
    assert after["fc.weight"].dtype == dtype
    assert np.array_equal(after["fc.weight"][kept], before["fc.weight"][kept])
    assert not after["fc.weight"][~kept].any()
    assert not np.signbit(after["fc.weight"][~kept]).any()
    assert after["fc.bias"].shape == (1, 40)
    assert after["fc.bias"][0, 3] == pytest.approx(1 / 0.7, rel=1e-3)
    assert (after["fc.bias"] != before["fc.bias"]).sum() == 1


@pytest.mark.parametrize("through", [["Identity"], ["Transpose"], ["Transpose", "Identity"]])
def test_a_weight_seen_through_other_nodes_is_written_where_it_stands(through):
    net = Net()
    name = net.weight("fc.weight", *((3, 5) if "Transpose" in through else (5, 3)))
    for i, kind in enumerate(through):
        name = net.op(kind, [name], f"w{i}", **({"perm": [1, 0]} if kind == "Transpose" else {}))
    net.op("MatMul", ["x", name], "y")
    model = net.model({"x": ["n", 5]}, ["y"])
    imported = read_onnx(model.SerializeToString())
    assert imported.weight_names == {"fc.weight": "fc.weight"}
    with torch.no_grad():
        imported.module.get_parameter("fc.weight")[2, 4] = 9.0
    after = tensors(onnx_bytes(imported))["fc.weight"]
    assert after[(2, 4) if "Transpose" in through else (4, 2)] == 9.0
    x = np.eye(5, dtype=np.float32)
    assert run_onnx(onnx_bytes(imported), x)[0][4, 2] == 9.0


def test_constants_given_as_lists_of_numbers_are_replaced():
    net = Net()
    net.op("MatMul", ["x", net.weight("fc.weight", 4, 3)], "m")
    net.op("Constant", [], "b", value_floats=[1.0, 2.0, 3.0])
    net.op("Add", ["m", "b"], "y")
    imported = read_onnx(net.model({"x": ["n", 4]}, ["y"]).SerializeToString())
    with torch.no_grad():
        imported.module.get_parameter("fc.bias")[1] = 7.0
    node = onnx.ModelProto.FromString(onnx_bytes(imported)).graph.node[1]
    assert helper.get_attribute_value(node.attribute[0]) == [1.0, 7.0, 3.0]


def test_weights_kept_in_typed_fields_are_replaced():
    net = Net()
    net.initializers.append(
        helper.make_tensor("fc.weight", onnx.TensorProto.FLOAT, [4, 2], list(range(8)))
    )
    net.op("MatMul", ["x", "fc.weight"], "y")
    imported = read_onnx(net.model({"x": ["n", 4]}, ["y"]).SerializeToString())
    with torch.no_grad():
        imported.module.get_parameter("fc.weight")[0, 3] = 0
    after = tensors(onnx_bytes(imported))["fc.weight"]
    assert after.tolist() == [[0, 1], [2, 3], [4, 5], [0, 7]]


def test_a_value_too_large_for_the_file_is_refused_by_name():
    net = Net(dtype=np.float16)
    net.op("MatMul", ["x", net.weight("fc.weight", 4, 2)], "y")
    imported = read_onnx(net.model({"x": ["n", 4]}, ["y"]).SerializeToString())
    with torch.no_grad():
        imported.module.get_parameter("fc.weight")[0, 0] = 1e6
    with pytest.raises(SecateurError) as caught:
        onnx_bytes(imported)
    assert (caught.value.code, caught.value.where) == ("weights_non_finite", "fc.weight")
