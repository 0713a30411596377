"""Exact, estimated, low-rank and factored curvature against brute force in float64."""

import pytest
import torch

from pruning.curvature import (
    ekfac,
    fisher,
    full,
    hessian,
    hessian_diagonal,
    hutchinson,
    kfac,
    low_rank,
    products,
    second_backprop,
)
from pruning.errors import SecateurError
from tests.oracle import brute_force, cases, networks

torch.set_num_threads(1)
cases_table = pytest.mark.parametrize("name", cases.NAMES)


def close(value, expected):
    """Within 1e-8 of the largest entry."""
    scale = float(expected.abs().max())
    torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-8 * scale)


def some(case):
    """Four of five weights."""
    position = torch.arange(len(case.weights))
    return position[position % 5 != 1]


def compute(module, case, active, **parameters):
    return module.compute(case.network, case.data, case.loss, active, **parameters)


@cases_table
def test_dense_and_diagonal_hessian_are_those_of_autograd(name):
    case = cases.make(name)
    active = some(case)
    exact = brute_force.exact_hessian(case)[active][:, active]
    dense = compute(hessian, case, active).values
    close(dense, exact)
    assert torch.equal(dense, dense.T)
    close(compute(hessian_diagonal, case, active).values, exact.diagonal())


def test_products_in_small_pieces_are_the_same(monkeypatch):
    case = cases.make("cnn-cross_entropy")
    active = some(case)
    expected = compute(hessian, case, active).values
    monkeypatch.setattr(products, "SAMPLES", 3)
    monkeypatch.setattr(hessian, "COLUMNS", 50)
    close(compute(hessian, case, active).values, expected)


@pytest.mark.parametrize("name", ["mlp-cross_entropy", "cnn-mse", "transformer-causal_lm"])
def test_hutchinson_is_within_four_standard_errors(name):
    case = cases.make(name)
    active = some(case)
    exact = brute_force.exact_hessian(case)[active][:, active]
    probes = 200
    estimate = compute(hutchinson, case, active, probes=probes, seed=1).values
    off = exact.square().sum(1) - exact.diagonal().square()
    error = (off / probes).sqrt()
    assert bool(((estimate - exact.diagonal()).abs() <= 4 * error + 1e-12).all())
    # The spread is the one that the theory says: neither the exact diagonal nor a wrong one.
    z = ((estimate - exact.diagonal()) / error)[error > 1e-12]
    assert 0.6 < float(z.square().mean()) < 1.6
    again = compute(hutchinson, case, active, probes=probes, seed=1).values
    assert torch.equal(estimate, again)


@cases_table
def test_dense_fisher_and_low_rank_are_the_empirical_fisher_matrix(name):
    case = cases.make(name)
    active = some(case)
    g = brute_force.per_sample_gradients(case)[:, active]
    close(compute(fisher, case, active).values, g.T @ g / len(g))
    rows = compute(low_rank, case, active)
    close(rows.rows.T @ rows.rows, g.T @ g / len(g))
    close(rows.diagonal(), g.square().mean(0))
    fewer = compute(low_rank, case, active, samples=3).rows
    assert fewer.shape == (3, len(active))
    distance = torch.cdist(fewer * 3**0.5, g)
    assert float(distance.min(1).values.max()) < 1e-12


@pytest.mark.parametrize(
    ("module", "limit", "home"),
    [
        (hessian, "HESSIAN_LIMIT", hessian),
        (hessian_diagonal, "HESSIAN_DIAGONAL_LIMIT", hessian_diagonal),
        (fisher, "FULL_LIMIT", fisher),
        (low_rank, "LOW_RANK_LIMIT", low_rank),
        (kfac, "FACTOR_LIMIT", kfac),
    ],
)
def test_curvature_above_its_limit_is_refused_with_what_to_change(module, limit, home, monkeypatch):
    case = cases.make("mlp-cross_entropy")
    monkeypatch.setattr(home, limit, 3)
    with pytest.raises(SecateurError) as caught:
        compute(module, case, some(case))
    assert caught.value.code == "curvature_too_large"
    assert caught.value.hint


SEQUENTIAL = ["mlp-cross_entropy", "mlp-mse", "mlp-bce", "cnn-cross_entropy", "lenet-bce"]


@pytest.mark.parametrize("second_derivatives", [False, True])
@pytest.mark.parametrize("name", [*SEQUENTIAL, "sequence-cross_entropy"])
def test_second_backprop_is_the_recursion_of_1989(name, second_derivatives):
    case = cases.make(name)
    active = some(case)
    values = compute(second_backprop, case, active, second_derivatives=second_derivatives).values
    close(values, brute_force.second_backprop(case, second_derivatives)[active])
    if not second_derivatives:
        assert bool((values >= 0).all())


@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "bce"])
def test_second_backprop_of_one_layer_is_the_exact_hessian_diagonal(loss):
    case = cases.of(networks.linear, [(6,)], loss)
    exact = brute_force.exact_hessian(case).diagonal()
    close(compute(second_backprop, case, torch.arange(len(exact))).values, exact)


def test_second_backprop_sums_over_branches_and_tied_layers():
    """Along a chain of single units nothing is off the diagonal, so the recursion is exact."""

    class Chain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)

        def forward(self, x):
            return self.b(torch.tanh(self.a(x)))

    case = cases.of(Chain, [(1,)], "mse", samples=5)
    case.data.target.resize_(5, 1)
    exact = brute_force.exact_hessian(case).diagonal()
    active = torch.arange(2)
    close(compute(second_backprop, case, active, second_derivatives=True).values, exact)

    class Branches(Chain):
        def forward(self, x):
            h = self.a(x)
            h += self.b(x)
            return torch.cat([h, -h], 1)

    case = cases.of(Branches, [(1,)], "mse", samples=5)
    case.data.target.resize_(5, 2)
    exact = brute_force.exact_hessian(case).diagonal()
    close(compute(second_backprop, case, active).values, exact)


def test_second_backprop_names_the_operation_and_the_layer_it_has_no_rule_for():
    case = cases.make("transformer-causal_lm")
    with pytest.raises(SecateurError, match="operator_unsupported") as caught:
        compute(second_backprop, case, some(case))
    assert "matmul" in caught.value.message or "transpose" in caught.value.message
    module = torch.nn.Sequential(torch.nn.Linear(6, 3), torch.nn.LayerNorm(3))
    case = cases.of(lambda: module, [(6,)], "mse")
    with pytest.raises(SecateurError) as caught:
        compute(second_backprop, case, some(case))
    assert caught.value.where == "1"
    assert "layer_norm" in caught.value.message
    assert "LayerNorm" in caught.value.message


def within_layers(case, matrix):
    group = case.weights.group
    return matrix * (group[:, None] == group[None, :])


def dense(kronecker):
    matrix = torch.zeros(kronecker.size, kronecker.size, dtype=torch.float64)
    for block in kronecker.blocks:
        columns = block.columns(block.position, block.scales)[:, block.position]
        matrix[block.index[:, None], block.index] = columns
    return matrix


@pytest.mark.parametrize("module", [kfac, ekfac])
def test_kronecker_is_exact_in_deep_linear_networks(module):
    case = cases.of(networks.deep_linear, [(6,)], "mse")
    exact = within_layers(case, brute_force.ggn(case))
    everything = torch.arange(len(exact))
    close(dense(compute(module, case, everything)), exact)
    active = some(case)
    close(dense(compute(module, case, active)), exact[active][:, active])


KRONECKER = [n for n in cases.NAMES if not n.startswith(("tied", "transformer"))]


@pytest.mark.parametrize("name", KRONECKER)
def test_kronecker_factors_are_those_of_the_definition(name):
    """Linear layers without positions: A = mean x x', B = mean sum_c b b'; trace kept by EKFAC."""
    case = cases.make(name)
    everything = torch.arange(len(case.weights))
    truth = brute_force.ggn(case)
    corrected = compute(ekfac, case, everything)
    plain = compute(kfac, case, everything)
    for factored, free in zip(plain.blocks, corrected.blocks, strict=True):
        block = truth[free.index][:, free.index]
        assert float(free.scales.sum()) == pytest.approx(float(block.trace()), rel=1e-9)
        basis = torch.kron(free.left, free.right)
        # The nearest diagonal in the eigenbasis is the true matrix's own diagonal there.
        close(free.scales.flatten(), (basis.T @ block @ basis).diagonal())
        nearer, further = ((dense_of(b) - block).norm() for b in (free, factored))
        assert nearer <= further + 1e-12


def dense_of(block):
    return block.columns(block.position, block.scales)


def test_kfac_of_a_convolution_is_patches_times_mean_gradients():
    conv = torch.nn.Conv2d(2, 3, 2, stride=2, padding=1, bias=False)
    build = lambda: torch.nn.Sequential(conv, torch.nn.Flatten(), torch.nn.Linear(27, 3))  # noqa: E731
    case = cases.of(build, [(2, 4, 4)], "mse")
    (block,) = compute(kfac, case, torch.arange(conv.weight.numel())).blocks
    x = case.data.inputs["x0"]
    patches = torch.nn.functional.unfold(x, 2, stride=2, padding=1)
    a = torch.einsum("nit,njt->ij", patches, patches) / len(x)
    w = case.module[2].weight.reshape(3, 3, 9)
    b = torch.einsum("cot,cpt->op", w, w) * (2 / 3) / 9
    close(dense_of(block), torch.kron(b, a).detach())


@pytest.mark.parametrize("name", ["tied-cross_entropy", "transformer-causal_lm"])
def test_kronecker_refuses_tied_weights_by_name(name):
    case = cases.make(name)
    tied = "first, second" if name.startswith("tied") else "query, key"
    with pytest.raises(SecateurError, match=tied) as caught:
        compute(kfac, case, torch.arange(len(case.weights)))
    assert caught.value.where == tied.split(",")[0]


def test_gauss_newton_is_the_hessian_where_the_dense_outputs_are_matched():
    case = cases.make("mlp-match_dense_kl")
    target = case.module(case.data.inputs["x0"]).detach()
    case.data.target.copy_(target)
    active = some(case)
    close(compute(full, case, active).values, brute_force.exact_hessian(case)[active][:, active])
    assert float(compute(fisher, case, active).values.abs().max()) < 1e-20
