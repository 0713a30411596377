"""The imported module under torch.func, against a network written by hand."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call, grad, jacrev, jvp, vmap

from pruning.formats.onnx import read_onnx
from tests.pruning.formats.onnx_cases import CASES, cnn

torch.set_num_threads(1)


def by_hand(p, x):
    """The graph of `cnn`, written in torch."""
    x = F.conv2d(x, p["conv1.weight"], p["conv1.bias"], padding=1)
    x = F.batch_norm(x, p["bn1.running_mean"], p["bn1.running_var"], p["bn1.weight"], p["bn1.bias"],
                     eps=1e-3)  # fmt: skip
    r = F.relu(x)
    x = F.conv2d(r, p["conv2.weight"], groups=2, dilation=2, padding=2) + r
    x = F.conv2d(F.pad(x, (1, 2, 0, 1)), p["conv3.weight"], stride=(2, 1), groups=8)
    x = F.max_pool2d(F.pad(x, (1, 0, 0, 1), value=-torch.inf), 2, 2)
    x = F.conv2d(F.pad(x, (0, 1, 0, 0)), p["conv4.weight"], stride=(2, 1))
    x = F.leaky_relu(x, 0.1)
    ones = F.pad(torch.ones_like(x[:, :1]), (0, 1, 1, 0))
    x = F.avg_pool2d(F.pad(x, (0, 1, 1, 0)), 2, 1) / F.avg_pool2d(ones, 2, 1)
    return F.linear(x.flatten(1), p["fc.weight"], p["fc.bias"])


@pytest.fixture(scope="module")
def network():
    module = read_onnx(cnn().SerializeToString()).module.double()
    parameters = {n: p.detach() for n, p in module.named_parameters()}
    buffers = {n: b for n, b in module.named_buffers() if n.startswith("bn1.running")}
    torch.manual_seed(0)
    return module, parameters, buffers, torch.randn(4, 3, 9, 11, dtype=torch.float64)


def test_values(network):
    module, parameters, buffers, x = network
    assert torch.allclose(module(x), by_hand({**parameters, **buffers}, x), atol=1e-10)


def test_per_sample_gradients(network):
    module, parameters, buffers, x = network
    labels = torch.tensor([1, 0, 3, 9])

    def ours(p, x, t):
        return F.cross_entropy(functional_call(module, p, (x[None],)), t[None])

    def theirs(p, x, t):
        return F.cross_entropy(by_hand({**p, **buffers}, x[None]), t[None])

    a = vmap(grad(ours), (None, 0, 0))(parameters, x, labels)
    b = vmap(grad(theirs), (None, 0, 0))(parameters, x, labels)
    assert all(torch.allclose(a[n], b[n], atol=1e-10) for n in parameters)


def test_jacobians_of_each_sample(network):
    module, parameters, buffers, x = network
    few = {n: parameters[n] for n in ("fc.bias", "conv2.weight")}
    a = vmap(
        lambda x: jacrev(lambda p: functional_call(module, {**parameters, **p}, (x[None],))[0])(few)
    )(x[:2])
    b = vmap(lambda x: jacrev(lambda p: by_hand({**parameters, **buffers, **p}, x[None])[0])(few))(
        x[:2]
    )
    assert all(torch.allclose(a[n], b[n], atol=1e-10) for n in few)


def test_directional_derivatives(network):
    module, parameters, buffers, x = network
    torch.manual_seed(1)
    tangent = {n: torch.randn_like(p) for n, p in parameters.items()}
    a = jvp(lambda p: functional_call(module, p, (x,)), (parameters,), (tangent,))
    b = jvp(lambda p: by_hand({**p, **buffers}, x), (parameters,), (tangent,))
    assert torch.allclose(a[1], b[1], atol=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_every_case_runs_under_vmap_and_jvp(case):
    build, shape = CASES[case]
    module = read_onnx(build(17).SerializeToString()).module
    parameters = {n: p.detach() for n, p in module.named_parameters()}
    x = torch.randn(3, *shape)
    single = vmap(lambda x: functional_call(module, parameters, (x[None],))[0])(x)
    assert torch.allclose(single, module(x), atol=1e-5)
    out, moved = jvp(lambda p: functional_call(module, p, (x,)), (parameters,), (parameters,))
    assert torch.isfinite(moved).all()
    assert out.shape == moved.shape


def test_a_copy_is_independent_and_keeps_ties():
    module = read_onnx(cnn().SerializeToString()).module
    twin = copy.deepcopy(module)
    x = torch.randn(2, 3, 9, 11)
    before = module(x)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(module(x), before)
    assert not torch.equal(twin(x), before)


def test_it_trains():
    module = read_onnx(cnn().SerializeToString()).module.train()
    x, t = torch.randn(16, 3, 9, 11), torch.arange(16) % 10
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    losses = []
    for _ in range(20):
        loss = F.cross_entropy(module(x), t)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
