"""Every curvature against its definition by autograd, in float64, on the whole table of cases."""

import pytest
import torch

from pruning.curvature import (
    block_fisher,
    empirical_fisher,
    full,
    ggn_diagonal,
    per_sample,
    products,
    quadratic,
)
from pruning.curvature.network import first_output
from pruning.errors import SecateurError
from pruning.solvers.obs import inverse_diagonal
from tests.oracle import brute_force, cases

torch.set_num_threads(1)
cases_table = pytest.mark.parametrize("name", cases.NAMES)


def close(value, expected):
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)


def everything(case):
    return torch.arange(len(case.weights))


def outputs(case):
    return first_output(case.module(*case.data.inputs.values())).detach()


@pytest.fixture(params=["one chunk", "one row a chunk"])
def chunks(request, monkeypatch):
    if request.param == "one row a chunk":
        monkeypatch.setattr(per_sample, "CHUNK_BYTES", 1)


@cases_table
def test_factor_squares_to_the_hessian_of_the_loss_in_the_outputs(name):
    case = cases.make(name)
    output, target = torch.randn_like(outputs(case)[0]), case.data.target[0]
    s = case.loss.factor(output, target)
    close(s @ s.T, brute_force.output_hessian(case, output, 0))
    v = torch.randn_like(output)
    close(case.loss.project(output[None], v[None], target[None])[0], s.T @ v.flatten())


@cases_table
def test_samples_is_the_loss_of_torch(name):
    case = cases.make(name)
    scores = torch.randn_like(outputs(case))
    expected = [brute_force.sample_loss(case, z, n) for n, z in enumerate(scores)]
    close(case.loss.samples(scores, case.data.target), torch.stack(expected))


@cases_table
def test_per_sample_gradients(name, chunks):
    case = cases.make(name)
    rows = torch.cat(list(per_sample.gradients(case.network, case.data, case.loss)))
    close(rows, brute_force.per_sample_gradients(case))


@cases_table
def test_full_is_the_gauss_newton_matrix(name, chunks):
    case = cases.make(name)
    matrix = full.compute(case.network, case.data, case.loss, everything(case)).values
    close(matrix, brute_force.ggn(case))
    assert torch.equal(matrix, matrix.T)


@cases_table
def test_full_over_active_weights_is_the_submatrix(name):
    case = cases.make(name)
    active = everything(case)[::3]
    matrix = full.compute(case.network, case.data, case.loss, active).values
    close(matrix, brute_force.ggn(case)[active][:, active])


def test_panels_give_the_same_matrix_as_one_product(monkeypatch):
    monkeypatch.setattr(full, "PANEL", 7)
    case = cases.make("mlp-cross_entropy")
    matrix = full.compute(case.network, case.data, case.loss, everything(case)).values
    close(matrix, brute_force.ggn(case))


@cases_table
def test_ggn_diagonal_is_the_diagonal_of_the_gauss_newton_matrix(name, chunks):
    case = cases.make(name)
    active = everything(case)[1:]
    values = ggn_diagonal.compute(case.network, case.data, case.loss, active).diagonal()
    close(values, brute_force.ggn(case).diagonal()[1:])


@cases_table
def test_empirical_fisher_is_the_mean_of_squared_gradients(name):
    case = cases.make(name)
    values = empirical_fisher.compute(case.network, case.data, case.loss, everything(case))
    close(values.diagonal(), brute_force.per_sample_gradients(case).square().mean(0))


@cases_table
@pytest.mark.parametrize("block", [1, 4, 50])
def test_block_fisher_is_the_empirical_fisher_inside_blocks(name, block):
    case = cases.make(name)
    active = everything(case)[::2]
    blocks = block_fisher.compute(case.network, case.data, case.loss, active, block=block)
    g = brute_force.per_sample_gradients(case)[:, active]
    fisher = g.T @ g / case.data.samples
    seen = torch.zeros(len(active), dtype=torch.long)
    for values, index in zip(blocks.values, blocks.index, strict=True):
        real = index >= 0
        at = index[real]
        seen[at] += 1
        close(values[real][:, real], fisher[at][:, at])
        assert not values[~real].any()
        assert len(case.weights.group[active[at]].unique()) == 1
    assert (seen == 1).all()


@cases_table
def test_block_inverse_is_the_dense_inverse_of_each_block_and_woodburys(name):
    case = cases.make(name)
    active = everything(case)
    blocks = block_fisher.compute(case.network, case.data, case.loss, active, block=6)
    damping = 1e-3
    inverse = inverse_diagonal(blocks, damping)
    g = brute_force.per_sample_gradients(case)
    for index in blocks.index:
        at = index[index >= 0]
        fisher = g[:, at].T @ g[:, at] / len(g)
        dense = torch.linalg.inv(fisher + damping * torch.eye(len(at), dtype=torch.float64))
        torch.testing.assert_close(inverse[at], dense.diagonal(), rtol=1e-8, atol=0)
        # WoodFisher (Singh and Alistarh 2020, eq. 3): one rank-one update a sample.
        woodbury = torch.eye(len(at), dtype=torch.float64) / damping
        for row in g[:, at]:
            v = woodbury @ row
            woodbury -= torch.outer(v, v) / (len(g) + row @ v)
        torch.testing.assert_close(inverse[at], woodbury.diagonal(), rtol=1e-7, atol=0)


@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
@cases_table
def test_gradient_and_quadratic_model(name, matrix, monkeypatch):
    case = cases.make(name)
    if matrix == "gauss_newton":
        monkeypatch.setattr(products, "gradient_and_products", _no_second_derivatives)
    w = case.weights.read()
    change = 0.3 * torch.randn(len(w), dtype=torch.float64)
    g = torch.func.grad(lambda w: brute_force.mean_loss(case, w))(w).detach()
    h = (brute_force.exact_hessian if matrix == "hessian" else brute_force.ggn)(case)
    close(quadratic.gradient(case.network, case.data, case.loss), g)
    prediction = quadratic.predict(case.network, case.data, case.loss, change)
    assert prediction.matrix == matrix
    assert prediction.first_order == pytest.approx(float(g @ change), rel=1e-9)
    assert prediction.second_order == pytest.approx(float(change @ h @ change) / 2, rel=1e-9)
    for number, value in enumerate(prediction.by_layer):
        part = torch.where(case.weights.group == number, change, 0.0)
        share = float(g @ part + part @ h @ change / 2)
        assert value == pytest.approx(share, rel=1e-9, abs=1e-12)
    assert sum(prediction.by_layer) == pytest.approx(prediction.total, rel=1e-12)


@cases_table
def test_products_along_several_directions_are_those_of_the_matrices(name):
    case = cases.make(name)
    vectors = torch.randn(3, len(case.weights), dtype=torch.float64)
    found = quadratic.along(case.network, case.data, case.loss, vectors)
    close(found.products, vectors @ brute_force.exact_hessian(case))
    close(found.gradient, quadratic.gradient(case.network, case.data, case.loss))
    gauss_newton = quadratic.gauss_newton_products(case.network, case.data, case.loss, vectors)
    close(gauss_newton, vectors @ brute_force.ggn(case))


def _no_second_derivatives(*args):
    raise NotImplementedError("derivative not implemented")


def test_nothing_moved_costs_nothing():
    case = cases.make("mlp-mse")
    prediction = quadratic.predict(
        case.network, case.data, case.loss, torch.zeros(len(case.weights), dtype=torch.float64)
    )
    assert (prediction.total, prediction.by_layer) == (0.0, [0.0] * len(prediction.by_layer))


def test_gauss_newton_is_the_hessian_of_a_linear_network():
    case = cases.make("mlp-mse")
    case.module = torch.nn.Linear(6, 3).double().eval()
    hessian = torch.func.hessian(lambda w: brute_force.mean_loss(case, w))(case.weights.read())
    matrix = full.compute(case.network, case.data, case.loss, everything(case)).values
    close(matrix, hessian)


def test_training_mode_is_refused():
    case = cases.make("cnn-cross_entropy")
    case.module.train()
    with pytest.raises(ValueError, match="evaluation mode"):
        case.network  # noqa: B018


def test_rows_in_float32_give_a_positive_semidefinite_matrix_close_to_float64():
    case = cases.make("mlp-cross_entropy", samples=40)
    exact = full.compute(case.network, case.data, case.loss, everything(case)).values
    case.module.float()
    case.data.inputs["x0"] = case.data.inputs["x0"].float()
    matrix = full.compute(case.network, case.data, case.loss, everything(case)).values
    assert matrix.dtype == torch.float64
    torch.testing.assert_close(matrix, exact, rtol=1e-4, atol=1e-6)
    assert torch.linalg.eigvalsh(matrix).min() > -1e-15


def test_few_weights_on_large_activations_come_in_chunks(monkeypatch):
    """Rows of 5 weights are small, what the backward passes keep is not."""
    monkeypatch.setattr(per_sample, "ACTIVATION_BYTES", 3 * 8 * 2 * 4000)
    conv = torch.nn.Conv1d(1, 1, 5, padding=2, bias=False).double()
    module = torch.nn.Sequential(conv, torch.nn.Tanh(), torch.nn.AdaptiveAvgPool1d(3))
    module = module.append(torch.nn.Flatten()).eval()
    case = cases.make("mlp-cross_entropy", samples=9)
    case.module = module
    case.data.inputs["x0"] = torch.randn(9, 1, 4000).double()
    chunks = list(per_sample.gradients(case.network, case.data, case.loss))
    assert 3 <= len(chunks) <= 9
    close(torch.cat(chunks), brute_force.per_sample_gradients(case))
    matrix = full.compute(case.network, case.data, case.loss, everything(case)).values
    close(matrix, brute_force.ggn(case))


def test_blocks_that_fit_no_memory_are_refused_before_they_are_made():
    case = cases.make("mlp-cross_entropy")
    case.module = torch.nn.Sequential(torch.nn.Linear(3000, 1000), torch.nn.Linear(1000, 3))
    case.module.double().eval()
    with pytest.raises(SecateurError) as caught:
        block_fisher.compute(case.network, case.data, case.loss, everything(case), block=4096)
    assert caught.value.code == "curvature_too_large"
