"""Recurrent layers and transposed convolutions: there, pruned, and back into the file."""

import copy
from itertools import product

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from pruning.formats.onnx import onnx_bytes, read_onnx
from pruning.layers import prunable_layers
from tests.pruning.formats.onnx_cases import Net, difference, refused, run_onnx

torch.set_num_threads(1)

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
UNITS, ENTRIES = 5, 3


def recurrent(kind, direction="forward", *, bias=True, state=True, opset=17, lengths=None, **more):
    net = Net()
    ways = 2 if direction == "bidirectional" else 1
    rows = GATES[kind] * UNITS
    names = ["x", net.weight("rnn.W", ways, rows, ENTRIES), net.weight("rnn.R", ways, rows, UNITS)]
    names.append(net.weight("rnn.B", ways, 2 * rows) if bias else "")
    names.append(net.const("lengths", np.array(lengths, np.int32)) if lengths else "")
    if state:
        names += [net.weight(name, ways, 2, UNITS) for name in ("h", "c")[: 1 + (kind == "LSTM")]]
    outputs = ["y", "last", "memory"][: 2 + (kind == "LSTM")]
    node = helper.make_node(
        kind, names, outputs, name="node", hidden_size=UNITS, direction=direction, **more
    )
    net.nodes.append(node)
    return net.model({"x": [4, 2, ENTRIES]}, outputs, opset)


def transposed(opset=17, **attributes):
    net = Net(4)
    groups = attributes.get("group", 1)
    weight, bias = net.weight("up.weight", 4, 3, 3, 2), net.weight("up.bias", 3 * groups)
    net.op("ConvTranspose", ["x", weight, bias], "u", **attributes)
    net.op("Relu", ["u"], "r")
    net.op("Conv", ["r", net.weight("out.weight", 2, 3 * groups, 1, 1)], "y")
    return net.model({"x": ["n", 4, 5, 6]}, ["y"], opset)


def steps(seed=0):
    return np.random.default_rng(seed).standard_normal((4, 2, ENTRIES)).astype(np.float32)


def pruned(imported):
    """A copy of the module with every parameter changed and a third of them zero."""
    module = copy.deepcopy(imported.module)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(torch.rand_like(parameter) + 0.5)
            parameter.mul_(torch.rand_like(parameter) > 0.3)
    return module


def goes_back(model, x):
    """Asserts that the file follows the changed module, and reads as that module again."""
    imported = read_onnx(model.SerializeToString())
    assert onnx_bytes(imported) == model.SerializeToString(deterministic=True)
    module = pruned(imported)
    written = onnx_bytes(imported, module)
    with torch.no_grad():
        ours = module(torch.from_numpy(x))
    ours = ours if isinstance(ours, tuple) else (ours,)
    for a, b in zip(ours, run_onnx(written, x), strict=True):
        assert a.shape == b.shape
        assert np.abs(a.numpy() - b).max() < 1e-5
    again = read_onnx(written).module
    for before, after in zip(module.parameters(), again.parameters(), strict=True):
        assert torch.equal(before, after)
    assert onnx_bytes(imported) == model.SerializeToString(deterministic=True)


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_recurrent_layers_compute_as_onnxruntime_and_go_back(kind, direction):
    for bias, state in product((False, True), (False, True)):
        variants = [{"linear_before_reset": i} for i in (0, 1)] if kind == "GRU" else [{}]
        if kind == "RNN":
            ways = 2 if direction == "bidirectional" else 1
            variants.append({"activations": ["Relu"] * ways})
        for more in variants:
            model = recurrent(kind, direction, bias=bias, state=state, **more)
            assert difference(model, steps()) < 1e-5, (bias, state, more)
            goes_back(model, steps())


@pytest.mark.parametrize("opset", [9, 14, 22])
def test_recurrent_layers_are_read_in_every_version(opset):
    for kind in GATES:
        assert difference(recurrent(kind, opset=opset, lengths=[4, 4]), steps()) < 1e-5


def test_gates_are_prunable_under_the_names_of_torch():
    module = read_onnx(recurrent("LSTM", "bidirectional").SerializeToString()).module
    names = {(w.layer, w.param) for w in prunable_layers(module)}
    assert {param for _, param in names} == {
        "weight_ih_l0", "weight_hh_l0", "weight_ih_l0_reverse", "weight_hh_l0_reverse",
    }  # fmt: skip
    early = read_onnx(recurrent("GRU").SerializeToString()).module
    assert sorted(tuple(w.weight.shape) for w in prunable_layers(early)) == [
        (5, 5),
        (10, 5),
        (15, 3),
    ]


def test_every_weight_is_known_by_the_tensor_that_holds_it():
    imported = read_onnx(recurrent("LSTM", "bidirectional").SerializeToString())
    held = {path.rpartition(".")[2]: name for path, name in imported.weight_names.items()}
    assert held["weight_ih_l0_reverse"] == "rnn.W"
    assert held["weight_hh_l0"] == "rnn.R"
    assert held["bias_hh_l0"] == held["bias_ih_l0_reverse"] == "rnn.B"


def test_one_changed_gate_changes_its_own_rows_alone():
    model = recurrent("LSTM", "bidirectional")
    imported = read_onnx(model.SerializeToString())
    (path,) = (p for p in imported.weight_names if p.endswith("weight_ih_l0_reverse"))
    with torch.no_grad():
        imported.module.get_parameter(path)[UNITS : 2 * UNITS] = 0  # torch's forget gate
    proto = onnx.ModelProto.FromString(onnx_bytes(imported))
    before = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    after = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    assert [n for n in before if not np.array_equal(before[n], after[n])] == ["rnn.W"]
    rows = np.argwhere((before["rnn.W"] != after["rnn.W"]).any(-1))
    assert rows.tolist() == [[1, i] for i in range(2 * UNITS, 3 * UNITS)]  # ONNX's f of iofc


def test_a_layer_used_twice_stays_one_layer_of_weights():
    net = Net()
    w, r = net.weight("W", 1, 4 * UNITS, UNITS), net.weight("R", 1, 4 * UNITS, UNITS)
    net.nodes.append(helper.make_node("LSTM", ["x", w, r], ["a"], hidden_size=UNITS, name="one"))
    net.op("Squeeze", ["a", net.const("axis", np.array([1]))], "b")
    net.nodes.append(helper.make_node("LSTM", ["b", w, r], ["y"], hidden_size=UNITS, name="two"))
    model = net.model({"x": [4, 2, UNITS]}, ["y"])
    module = read_onnx(model.SerializeToString()).module
    assert len(list(module.parameters())) == 2
    goes_back(model, np.random.default_rng(0).standard_normal((4, 2, UNITS)).astype(np.float32))


def test_a_tensor_in_two_roles_becomes_two_parameters():
    net = Net()
    w = net.weight("both", 1, 4 * UNITS, UNITS)
    net.nodes.append(helper.make_node("LSTM", ["x", w, w], ["y"], hidden_size=UNITS, name="node"))
    imported = read_onnx(net.model({"x": [4, 2, UNITS]}, ["y"]).SerializeToString())
    module = pruned(imported)
    x = np.random.default_rng(0).standard_normal((4, 2, UNITS)).astype(np.float32)
    with torch.no_grad():
        ours = module(torch.from_numpy(x)).numpy()
    assert np.abs(run_onnx(onnx_bytes(imported, module), x)[0] - ours).max() < 1e-5


@pytest.mark.parametrize(
    ("kind", "more", "text"),
    [
        ("LSTM", {"clip": 1.0}, "clip"),
        ("LSTM", {"input_forget": 1}, "input_forget"),
        ("LSTM", {"activations": ["Sigmoid", "Relu", "Tanh"]}, "activations"),
        ("GRU", {"activations": ["HardSigmoid", "Tanh"]}, "activations"),
        ("RNN", {"activations": ["Tanh"], "activation_alpha": [0.5]}, "activation_alpha"),
        ("GRU", {"lengths": [4, 3]}, "sequence_lens"),
    ],
)
def test_what_torch_can_not_compute_is_refused(kind, more, text):
    refused(recurrent(kind, **more), "operator_attribute_unsupported", text)


def test_peepholes_are_refused():
    model = recurrent("LSTM")
    model.graph.node[0].input.append("peep")
    model.graph.initializer.append(
        numpy_helper.from_array(np.zeros((1, 3 * UNITS), np.float32), "peep")
    )
    refused(model, "operator_attribute_unsupported", "peephole")


def test_recurrent_weights_of_wrong_shapes_are_refused():
    model = recurrent("LSTM")
    model.graph.initializer[1].CopyFrom(
        numpy_helper.from_array(np.zeros((1, 20, 4), np.float32), "rnn.R")
    )
    refused(model, "model_invalid", "")


def test_a_recurrent_weight_that_is_not_finite_is_refused_by_name():
    model = recurrent("GRU")
    value = numpy_helper.to_array(model.graph.initializer[0]).copy()
    value[0, 0, 0] = np.nan
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(value, "rnn.W"))
    refused(model, "weights_non_finite", "rnn.W")


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": [2, 2], "pads": [1, 0, 1, 0], "output_padding": [1, 1]},
        {"strides": [2, 1], "pads": [0, 1, 1, 0]},
        {"group": 2, "dilations": [2, 1]},
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"strides": [2, 2], "output_shape": [11, 12]},
    ],
)
@pytest.mark.parametrize("opset", [9, 22])
def test_transposed_convolutions_go_back(attributes, opset):
    model = transposed(opset, **attributes)
    module = read_onnx(model.SerializeToString()).module
    assert isinstance(module.up, nn.ConvTranspose2d)
    assert {w.layer for w in prunable_layers(module)} == {"up", "out"}
    goes_back(model, np.random.default_rng(0).standard_normal((3, 4, 5, 6)).astype(np.float32))


def test_a_transposed_convolution_with_a_computed_weight_is_refused():
    net = Net()
    net.op("Mul", [net.weight("a", 4, 3, 3), net.weight("b", 4, 3, 3)], "w")
    net.op("ConvTranspose", ["x", "w"], "y")
    model = net.model({"x": ["n", 4, 5]}, ["y"])
    refused(model, "operator_attribute_unsupported", "ConvTranspose")


def test_outputs_of_a_transposed_convolution_have_a_bound():
    net = Net()
    net.op("ConvTranspose", ["x", net.weight("w", 4, 3, 3)], "y", output_shape=[10**9])
    refused(net.model({"x": ["n", 4, 5]}, ["y"]), "model_too_large")


@pytest.mark.parametrize("kind", GATES)
def test_copies_of_a_recurrent_module_share_nothing(kind):
    module = read_onnx(recurrent(kind).SerializeToString()).module
    other = copy.deepcopy(module)
    x = torch.from_numpy(steps())
    before = module(x)[0].detach()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert torch.equal(module(x)[0], before)
    assert not torch.equal(other(x)[0], before)


@pytest.mark.parametrize("kind", GATES)
def test_every_parameter_of_a_recurrent_layer_gets_a_gradient(kind):
    module = read_onnx(recurrent(kind, "bidirectional").SerializeToString()).module
    module(torch.from_numpy(steps()))[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("relu", [False, True])
def test_each_sample_of_a_recurrent_layer_gets_its_own_gradient(kind, relu):
    more = {"activations": ["Relu"] * 2} if relu and kind == "RNN" else {}
    more |= {"linear_before_reset": int(not relu)} if kind == "GRU" else {}
    model = recurrent(kind, "bidirectional", state=False, **more)
    module = read_onnx(model.SerializeToString()).module
    x = torch.from_numpy(steps())
    parameters = dict(module.named_parameters())

    def loss(given, one):
        return torch.func.functional_call(module, given, (one.unsqueeze(1),))[0].square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 1))(parameters, x)
    module(x)[0].square().sum().backward()
    for name, parameter in parameters.items():
        assert torch.allclose(each[name].sum(0), parameter.grad, atol=1e-5), name


EQUATIONS = {
    # equation, shapes of the input and of the weight, shape of the layer's weight
    "bsk,kd->bsd": ((2, 3, 4), (4, 5), (5, 4)),
    "bsk,khd->bshd": ((2, 3, 4), (4, 2, 3), (6, 4)),
    "bshd,hdk->bsk": ((2, 3, 4, 5), (4, 5, 3), (3, 20)),
    "bshd,khd->bks": ((2, 3, 4, 5), (6, 4, 5), (6, 20)),
    "...k,kd->...d": ((2, 3, 2, 4), (4, 5), (5, 4)),
    "kd,bks->bsd": ((2, 4, 3), (4, 5), (5, 4)),
    "b...k,kde->bd...e": ((2, 3, 4), (4, 5, 2), (10, 4)),
}


@pytest.mark.parametrize("equation", EQUATIONS)
def test_a_product_written_as_einsum_is_a_linear_layer(equation):
    given, shape, matrix = EQUATIONS[equation]
    net = Net()
    names = ["x", net.weight("proj.weight", *shape)]
    net.op("Einsum", names[::-1] if equation.startswith("kd") else names, "y", equation=equation)
    model = net.model({"x": list(given)}, ["y"])
    module = read_onnx(model.SerializeToString()).module
    assert isinstance(module.proj, nn.Linear)
    assert tuple(module.proj.weight.shape) == matrix
    goes_back(model, np.random.default_rng(0).standard_normal(given).astype(np.float32))


@pytest.mark.parametrize("equation", ["bij,ij->b", "bij,kj->bk", "bii,ij->bj"])
def test_other_sums_with_a_constant_are_no_layers(equation):
    net = Net()
    net.op("Einsum", ["x", net.weight("w", 3, 3)], "y", equation=equation)
    model = net.model({"x": [2, 3, 3]}, ["y"])
    assert not list(read_onnx(model.SerializeToString()).module.parameters())
    x = np.random.default_rng(0).standard_normal((2, 3, 3)).astype(np.float32)
    assert difference(model, x) < 1e-5


def test_group_and_instance_norms_are_trainable_and_go_back():
    net = Net()
    net.op("InstanceNormalization", ["x", net.weight("a", 4), net.weight("b", 4)], "i")
    net.op("GroupNormalization", ["i", net.weight("c", 4), net.weight("d", 4)], "g", num_groups=2)
    net.op("RMSNormalization", ["g", net.weight("e", 6)], "y")
    model = net.model({"x": [2, 4, 5, 6]}, ["y"], 23)
    assert len(list(read_onnx(model.SerializeToString()).module.parameters())) == 5
    goes_back(model, np.random.default_rng(0).standard_normal((2, 4, 5, 6)).astype(np.float32))
