"""Criteria against their formulas, and the hierarchy OBS -> OBD -> magnitude."""

import pytest
import torch

from pruning import catalogue
from pruning.criteria import Problem
from pruning.curvature.matrix import Dense, Diagonal
from pruning.registry import method
from pruning.spec import parse_spec

torch.set_num_threads(1)
W = torch.randn(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
H_DIAGONAL = torch.rand(40, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.1


def score(kind, *args):
    return method("criteria", kind).score(Problem(*args))


def test_every_declared_criterion_and_compensation_has_its_arithmetic():
    for kind, declaration in catalogue.criteria().items():
        assert callable(method("criteria", kind).score)
        method("criteria", kind).curvature(declaration(), 10)
    for kind in catalogue.compensations():
        assert callable(method("solvers", kind).compensate)


def test_magnitude():
    assert torch.equal(score("magnitude", W), W.abs())


def test_obd_is_half_h_w_squared():
    torch.testing.assert_close(score("obd", W, Diagonal(H_DIAGONAL)), H_DIAGONAL * W**2 / 2)


def test_obs_is_w_squared_over_twice_the_inverse_diagonal():
    rows = torch.randn(60, 40, dtype=torch.float64)
    h = rows.T @ rows
    inverse = torch.linalg.inv(h + 0.5 * torch.eye(40, dtype=torch.float64))
    torch.testing.assert_close(score("obs", W, Dense(h), 0.5), W**2 / (2 * inverse.diagonal()))


@pytest.mark.parametrize("curvature", [Dense(H_DIAGONAL.diag()), Diagonal(H_DIAGONAL)])
def test_obs_with_diagonal_curvature_is_obd(curvature):
    obs = score("obs", W, curvature, 0.0)
    torch.testing.assert_close(obs, score("obd", W, Diagonal(H_DIAGONAL)), rtol=1e-12, atol=0)


def test_obd_with_the_same_curvature_everywhere_ranks_as_magnitude():
    obd = score("obd", W, Diagonal(torch.full_like(W, 0.3)))
    assert torch.equal(obd.argsort(stable=True), W.abs().argsort(stable=True))


def test_full_inverse_over_too_many_weights_is_refused():
    criterion = parse_spec({"criterion": {"kind": "obs", "inverse": "full"}}).criterion
    with pytest.raises(Exception, match="curvature_too_large"):
        method("criteria", "obs").curvature(criterion, 10**6)
