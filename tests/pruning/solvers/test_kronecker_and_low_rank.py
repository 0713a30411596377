"""The OBS inverse and update of factored matrices against the dense matrices they stand for."""

import pytest
import torch

from pruning.criteria import Problem
from pruning.curvature.kronecker import Kronecker, KroneckerBlock
from pruning.curvature.matrix import LowRank
from pruning.errors import SecateurError
from pruning.solvers import kronecker, obs
from tests.oracle import brute_force

torch.set_num_threads(1)
DAMPING = 0.03


def orthogonal(size, seed):
    g = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(size, size, generator=g, dtype=torch.float64))[0]


def factored(share):
    """Two layers of 5 x 4 and 3 x 6, of which `share` of the weights are active."""
    g = torch.Generator().manual_seed(7)
    blocks, parts, start = [], [], 0
    for number, (o, i) in enumerate([(5, 4), (3, 6)]):
        left, right = orthogonal(o, number), orthogonal(i, number + 10)
        scales = torch.rand(o, i, generator=g, dtype=torch.float64) ** 4
        position = (torch.rand(o * i, generator=g) < share).nonzero()[:, 0]
        index = torch.arange(start, start + len(position))
        start += len(position)
        blocks.append(KroneckerBlock(left, right, scales, position, index))
        basis = torch.kron(left, right)
        parts.append((basis @ scales.flatten().diag() @ basis.T)[position][:, position])
    return Kronecker(tuple(blocks), start), torch.block_diag(*parts)


def low_rank():
    rows = torch.randn(6, 25, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return LowRank(rows), rows.T @ rows


MATRICES = {
    "kronecker, all active": lambda: factored(1.1),
    "kronecker, most active": lambda: factored(0.8),
    "kronecker, few active": lambda: factored(0.3),
    "low rank": low_rank,
}


@pytest.mark.parametrize("name", MATRICES)
def test_diagonal_and_inverse_diagonal_are_the_dense_ones(name):
    matrix, dense = MATRICES[name]()
    damped = dense + DAMPING * torch.eye(len(dense), dtype=torch.float64)
    inverse = torch.linalg.inv(damped).diagonal()
    torch.testing.assert_close(matrix.diagonal(), dense.diagonal(), rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(obs.inverse_diagonal(matrix, DAMPING), inverse, rtol=1e-9, atol=0)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7, 1.0])
@pytest.mark.parametrize("name", MATRICES)
def test_update_is_the_constrained_minimum(name, share):
    matrix, dense = MATRICES[name]()
    g = torch.Generator().manual_seed(3)
    weights = torch.randn(len(dense), generator=g, dtype=torch.float64)
    removed = torch.rand(len(dense), generator=g) < share
    change = obs.compensate(Problem(weights, matrix, DAMPING), removed)
    damped = dense + DAMPING * torch.eye(len(dense), dtype=torch.float64)
    expected = brute_force.constrained_minimum(damped, weights, removed)
    torch.testing.assert_close(change, expected, rtol=1e-8, atol=1e-10)


def test_without_damping_a_low_rank_matrix_is_refused_with_its_rank():
    with pytest.raises(obs.SingularError) as caught:
        obs.inverse_diagonal(low_rank()[0], 0.0)
    assert caught.value.rank_and_condition() == (6, float("inf"))
    assert len(caught.value.diagonal) == len(caught.value.weights) == 25


def test_without_damping_a_singular_kronecker_block_is_refused_with_its_rank():
    matrix, _ = factored(1.1)
    matrix.blocks[1].scales[0, 2] = 0.0
    with pytest.raises(obs.SingularError) as caught:
        obs.inverse_diagonal(matrix, 0.0)
    assert caught.value.weights.tolist() == list(range(20, 38))
    assert caught.value.rank_and_condition() == (17, float("inf"))


def test_large_restricted_blocks_are_refused_and_whole_ones_are_not(monkeypatch):
    monkeypatch.setattr(kronecker, "RESTRICTED_LIMIT", 2)
    obs.inverse_diagonal(factored(1.1)[0], DAMPING)
    with pytest.raises(SecateurError) as caught:
        obs.inverse_diagonal(factored(0.5)[0], DAMPING)
    assert caught.value.code == "curvature_too_large"
    assert "recomputations: 1" in caught.value.hint


@pytest.mark.parametrize("share", [0.2, 0.7])
@pytest.mark.parametrize("name", [n for n in MATRICES if n.startswith("kronecker")])
def test_conjugate_gradients_reach_the_constrained_minimum(name, share, monkeypatch):
    monkeypatch.setattr(kronecker, "RESTRICTED_LIMIT", 0)
    test_update_is_the_constrained_minimum(name, share)


def large(damping=1e-4):
    """One layer of 30 x 40 whose eigenvalues span nine decades, half of it removed."""
    left, right = orthogonal(30, 1), orthogonal(40, 2)
    scales = torch.logspace(0, -4, 30).double()[:, None] * torch.logspace(0, -5, 40).double()
    everything = torch.arange(1200)
    matrix = Kronecker((KroneckerBlock(left, right, scales, everything, everything),), 1200)
    g = torch.Generator().manual_seed(5)
    weights = torch.randn(1200, generator=g, dtype=torch.float64)
    problem = Problem(weights, matrix, damping * float(matrix.diagonal().mean()))
    return problem, torch.rand(1200, generator=g) < 0.5


def test_conjugate_gradients_converge_at_small_dampings(monkeypatch):
    problem, removed = large()
    expected = obs.compensate(problem, removed)
    monkeypatch.setattr(kronecker, "RESTRICTED_LIMIT", 100)
    steps = []
    product = KroneckerBlock.product
    monkeypatch.setattr(KroneckerBlock, "product", lambda *args: steps.append(1) or product(*args))
    change = obs.compensate(problem, removed)
    # It takes many steps here, so that a lower limit would have been reached.
    assert len(steps) > 2 * 200
    assert float((change - expected).norm() / expected.norm()) < 1e-5


def test_conjugate_gradients_that_do_not_converge_are_no_result(monkeypatch):
    monkeypatch.setattr(kronecker, "ITERATIONS", 2)
    monkeypatch.setattr(kronecker, "RESTRICTED_LIMIT", 100)
    problem, removed = large()
    with pytest.raises(obs.SingularError, match="did not converge in 2 steps") as caught:
        obs.compensate(problem, removed)
    assert torch.equal(caught.value.weights, (~removed).nonzero()[:, 0])
    assert caught.value.rank_and_condition() is None
    scales = problem.curvature.blocks[0].scales + problem.damping
    assert caught.value.bound == pytest.approx(float(scales.max() / scales.min()))


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_only_what_is_left_of_a_block_has_to_be_regular(share):
    """The whole block is singular, the part over the active weights is not."""
    matrix, _ = factored(share)
    for block in matrix.blocks:
        block.scales[0, 0] = 0.0
    basis = [(torch.kron(b.left, b.right), b) for b in matrix.blocks]
    parts = [(u @ b.scales.flatten().diag() @ u.T)[b.position][:, b.position] for u, b in basis]
    expected = torch.linalg.inv(torch.block_diag(*parts)).diagonal()
    torch.testing.assert_close(obs.inverse_diagonal(matrix, 0.0), expected, rtol=1e-7, atol=0)


def test_a_singular_part_of_a_block_is_refused_with_its_rank():
    matrix, _ = factored(0.8)
    block = matrix.blocks[0]
    block.scales[:, 1:] = 0.0
    with pytest.raises(obs.SingularError) as caught:
        obs.inverse_diagonal(matrix, 0.0)
    assert torch.equal(caught.value.weights, block.index)
    rank, condition = caught.value.rank_and_condition()
    assert rank == 5 < len(block.index)
    assert condition > 1e12


def test_columns_are_those_of_the_dense_matrix():
    matrix, dense = factored(1.1)
    block = matrix.blocks[1]
    at, position = torch.tensor([17, 0, 4, 4]), torch.tensor([3, 9, 2])
    own = dense[20:, 20:]
    torch.testing.assert_close(block.columns(position, block.scales), own[position])
    torch.testing.assert_close(block.columns(position, block.scales, at), own[position][:, at])
