"""Kronecker factors of convolutions, A and B each, against loops over samples and positions."""

from itertools import product

import pytest
import torch
from torch import nn

from pruning.curvature import kfac, second_backprop
from tests.oracle import brute_force, cases

torch.set_num_threads(1)

CONVOLUTIONS = {
    "two groups": (lambda: nn.Conv2d(4, 6, (3, 2), stride=2, padding=1, groups=2), (4, 5, 4)),
    "dilated": (lambda: nn.Conv2d(2, 3, 2, dilation=2, padding=1), (2, 4, 4)),
    "depthwise": (lambda: nn.Conv2d(3, 6, 2, groups=3), (3, 4, 3)),
    "one dimension": (lambda: nn.Conv1d(4, 4, 3, stride=2, padding=1, groups=2), (4, 7)),
}


def patches(conv, x):
    """Inputs of one sample that each output position of each group sees, [g, d, T]."""
    dims = len(conv.kernel_size)
    pad = [p for size in reversed(conv.padding) for p in (size, size)]
    x = nn.functional.pad(x, pad)
    spans = [
        range(0, n - d * (k - 1), s)
        for n, d, k, s in zip(
            x.shape[1:], conv.dilation, conv.kernel_size, conv.stride, strict=True
        )
    ]
    width = x.shape[0] // conv.groups
    found = []
    for group in range(conv.groups):
        columns = []
        for start in product(*spans):
            entries = [
                x[(channel, *(start[i] + conv.dilation[i] * offset[i] for i in range(dims)))]
                for channel in range(group * width, (group + 1) * width)
                for offset in product(*(range(k) for k in conv.kernel_size))
            ]
            columns.append(torch.stack(entries))
        found.append(torch.stack(columns, 1))
    return torch.stack(found)


def definition(case, conv, rest):
    """A = mean of sum_t x x' and B = mean of 1/T sum_t sum_c b b', group by group."""
    a = b = 0
    samples = case.data.samples
    for n in range(samples):
        x = case.data.inputs["x0"][n]
        z = conv(x[None])[0].detach()
        # The whole output Hessian pulled back to the convolution's outputs.
        jacobian = torch.func.jacrev(lambda z: rest(z[None])[0])(z).flatten(1).detach()
        curvature = brute_force.output_hessian(case, rest(z[None])[0].detach(), n)
        pulled = (jacobian.T @ curvature @ jacobian).detach()
        o, t = z.shape[0] // conv.groups, z[0].numel()
        pulled = pulled.view(conv.groups, o, t, conv.groups, o, t)
        b = b + torch.stack(
            [sum(pulled[g, :, s, g, :, s] for s in range(t)) / t for g in range(conv.groups)]
        )
        seen = patches(conv, x)
        a = a + seen @ seen.transpose(1, 2)
    return a / samples, b / samples


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_both_factors_of_a_convolution_are_those_of_the_definition(name, loss):
    build, shape = CONVOLUTIONS[name]

    def network():
        conv = build()
        outputs = conv(torch.zeros(1, *shape)).numel()
        return nn.Sequential(conv, nn.Tanh(), nn.Flatten(), nn.Linear(outputs, 3))

    case = cases.of(network, [shape], loss, samples=4)
    conv = case.module[0]
    active = torch.arange(conv.weight.numel())
    left, right, (high, low) = kfac.eigenbases(case.network, case.data, case.loss, active)[
        "0.weight"
    ]
    a, b = definition(case, conv, case.module[1:])
    torch.testing.assert_close(right @ torch.diag_embed(low) @ right.mT, a, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(left @ torch.diag_embed(high) @ left.mT, b, rtol=1e-9, atol=1e-12)
    blocks = kfac.compute(case.network, case.data, case.loss, active).blocks
    assert len(blocks) == conv.groups
    for group, block in enumerate(blocks):
        size = conv.weight.numel() // conv.groups
        assert torch.equal(block.index, torch.arange(group * size, (group + 1) * size))
        expected = torch.kron(b[group], a[group])
        found = block.columns(block.position, block.scales)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


DIFFERENCES = {
    "operator": lambda u, v: u - v,
    "function": torch.sub,
    "method": lambda u, v: u.sub(v),
    "in place": lambda u, v: (u * 1.0).sub_(v),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_second_backprop_takes_the_sign_of_what_is_subtracted(name):
    """Single units, so that the recursion is exact; f'' makes the sign of the gradient matter."""

    class Difference(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(1, 1), nn.Linear(1, 1)

        def forward(self, x):
            return DIFFERENCES[name](torch.tanh(self.a(x)), torch.tanh(self.b(x)))

    case = cases.of(Difference, [(1,)], "mse", samples=5)
    case.data.target.resize_(5, 1)
    exact = brute_force.exact_hessian(case).diagonal()
    found = second_backprop.compute(
        case.network, case.data, case.loss, torch.arange(2), second_derivatives=True
    ).values
    torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-12)
