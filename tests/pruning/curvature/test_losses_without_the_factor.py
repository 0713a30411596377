"""What losses know of their Hessian without forming its square root, against autograd."""

import pytest
import torch

from pruning.curvature import ekfac, ggn_diagonal, ggn_mc, kfac, per_sample, second_backprop
from pruning.errors import SecateurError
from tests.oracle import brute_force, cases

torch.set_num_threads(1)
cases_table = pytest.mark.parametrize("name", cases.NAMES)


def outputs_of(case):
    with torch.no_grad():
        return case.network.outputs(case.network.parameters(), tuple(case.data.inputs.values()))


def hessians(case, outputs):
    rows = [brute_force.output_hessian(case, z, n) for n, z in enumerate(outputs)]
    return torch.stack(rows).detach()


@cases_table
def test_diagonal_and_rank_are_those_of_the_hessian_in_the_outputs(name):
    case = cases.make(name)
    outputs = outputs_of(case)
    exact = hessians(case, outputs)
    found = case.loss.diagonal(outputs, case.data.target)
    assert found.shape == outputs.shape
    expected = exact.diagonal(dim1=1, dim2=2).reshape(outputs.shape)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)
    ranks = torch.linalg.matrix_rank(exact, hermitian=True)
    assert torch.equal(case.loss.ranks(outputs, case.data.target), ranks)


@cases_table
def test_draws_have_the_hessian_as_their_covariance(name):
    case, count = cases.make(name, samples=3), 4_000
    # Outcomes that hardly ever happen would hide from the spread over the draws.
    outputs = torch.tanh(outputs_of(case))
    generator = torch.Generator().manual_seed(1)
    v = case.loss.draw(outputs, case.data.target, count, generator)
    assert v.shape == (count, *outputs.shape)
    v = v.flatten(2)
    products = v[..., :, None] * v[..., None, :]
    for found, expected in ((v, 0.0), (products, hessians(case, outputs))):
        error = found.std(0) / count**0.5
        assert bool(((found.mean(0) - expected).abs() <= 5 * error + 1e-12).all())
        assert float(error.max()) > 0


@cases_table
def test_what_needs_no_factor_forms_none(name, monkeypatch):
    case = cases.make(name)

    def refuse(*args):
        raise AssertionError("the square root of the Hessian was formed")

    monkeypatch.setattr(type(case.loss), "factor", refuse)
    active = torch.arange(len(case.weights))
    ggn_mc.compute(case.network, case.data, case.loss, active, samples=2)
    if name in ("mlp-cross_entropy", "mlp-mse", "mlp-bce", "lenet-bce", "mlp-match_dense_kl"):
        second_backprop.compute(case.network, case.data, case.loss, active)
    with pytest.raises(AssertionError):
        ggn_diagonal.compute(case.network, case.data, case.loss, active)


@pytest.mark.parametrize("kind", [ggn_diagonal, kfac, ekfac])
def test_too_many_outputs_are_refused_before_the_factor_is_formed(kind, monkeypatch):
    case = cases.make("mlp-cross_entropy")
    active = torch.arange(len(case.weights))
    kind.compute(case.network, case.data, case.loss, active)
    monkeypatch.setattr(per_sample, "OUTPUT_LIMIT", 2)
    monkeypatch.delattr(type(case.loss), "factor")
    with pytest.raises(SecateurError) as caught:
        kind.compute(case.network, case.data, case.loss, active)
    assert caught.value.code == "curvature_too_large"
    assert "ggn_mc" in caught.value.hint
    assert "empirical_fisher" in caught.value.hint
