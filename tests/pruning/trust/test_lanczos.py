"""Lanczos' method against a full eigenvalue decomposition."""

import pytest
import torch

from pruning.curvature.products import hessian_products
from pruning.trust.lanczos import lanczos, negative_share
from tests.oracle import brute_force, cases


def hessian(case):
    flat = case.weights.read()
    return torch.func.hessian(lambda w: brute_force.mean_loss(case, w))(flat).detach()


@pytest.mark.parametrize("name", ["mlp-cross_entropy", "mlp-mse", "cnn-cross_entropy"])
def test_with_all_steps_the_quadrature_is_exact(name):
    case = cases.make(name)
    h = hessian(case)
    values, vectors = torch.linalg.eigh(h)
    assert values[0] < 0  # otherwise the test shows nothing

    def product(v):
        return hessian_products(case.network, case.data, case.loss, v[None])[0]

    start = torch.randn(len(h), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = lanczos(product, start, len(h))
    scale = float(values.abs().max())
    assert float(found.values[0]) == pytest.approx(float(values[0]), abs=1e-9 * scale)
    assert float(found.values[-1]) == pytest.approx(float(values[-1]), abs=1e-9 * scale)
    mass = (vectors.T @ (start / start.norm())).square() * values.abs()
    exact = float(mass[values < 0].sum() / mass.sum())
    assert negative_share([found]) == pytest.approx(exact, rel=1e-6)


def test_few_steps_and_many_starts_estimate_the_share_below_zero():
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(80, 80, generator=generator, dtype=torch.float64))[0]
    values = torch.cat([torch.linspace(0.1, 5, 60), -torch.linspace(0.1, 2, 20)]).double()
    matrix = basis @ torch.diag(values) @ basis.T
    spectra = []
    for _ in range(40):
        signs = torch.randint(2, (80,), generator=generator).double() * 2 - 1
        spectra.append(lanczos(lambda v: matrix @ v, signs, 20))
    exact = float(-values[values < 0].sum() / values.abs().sum())
    assert negative_share(spectra) == pytest.approx(exact, rel=0.1)
    assert all(s.values[0] >= values.min() - 1e-12 for s in spectra)
    assert min(float(s.values[0]) for s in spectra) == pytest.approx(-2.0, rel=1e-2)


def test_ritz_values_stay_orthogonal_where_the_start_spans_few_directions():
    matrix = torch.diag(torch.tensor([1.0, 1.0, 1.0, 5.0]).double())
    found = lanczos(lambda v: matrix @ v, torch.ones(4).double(), 4)
    assert found.values.tolist() == pytest.approx([1.0, 5.0])
    assert found.weights.tolist() == pytest.approx([0.75, 0.25])


def test_a_matrix_of_zeros_has_no_share_below_zero():
    assert negative_share([lanczos(torch.zeros_like, torch.ones(5).double(), 5)]) == 0.0
