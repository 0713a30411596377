"""Rank and condition of every layout of curvature, against the dense matrix it stands for."""

import pytest
import torch

from pruning.criteria import Problem
from pruning.curvature import block_fisher, ekfac, full, kfac, low_rank
from pruning.curvature.matrix import Dense, LowRank
from pruning.trust import conditioning
from pruning.trust.conditioning import rank_and_condition
from tests.oracle import cases

torch.set_num_threads(1)


def found(matrix, damping, weights=None):
    size = matrix.diagonal().shape[0]
    checks = rank_and_condition(Problem(torch.ones(size).double(), matrix, damping))
    return {c.name.removeprefix("trust."): c for c in checks}


def dense_of(matrix, size):
    """The matrix that a layout stands for, as one [A, A]."""
    if isinstance(matrix, Dense):
        return matrix.values
    if isinstance(matrix, LowRank):
        return matrix.rows.T @ matrix.rows
    whole = torch.zeros(size, size, dtype=torch.float64)
    for block in matrix.blocks:
        basis = torch.kron(block.left, block.right)
        whole[block.index[:, None], block.index] = basis * block.scales.flatten() @ basis.T
    return whole


@pytest.mark.parametrize("kind", [full, low_rank, kfac, ekfac])
@pytest.mark.parametrize("samples", [4, 300])
def test_rank_and_condition_are_those_of_the_dense_matrix(kind, samples):
    case = cases.make("mlp-cross_entropy", samples=samples)
    size = len(case.weights)
    matrix = kind.compute(case.network, case.data, case.loss, torch.arange(size))
    spectrum = torch.linalg.eigvalsh(dense_of(matrix, size))
    got = found(matrix, 0.01)
    floor = float(spectrum.max()) * size * torch.finfo(torch.float64).eps
    assert got["curvature_rank"].value == float((spectrum > 10 * floor).sum()) / size
    if kind in (full, low_rank):
        expected = (float(spectrum.max()) + 0.01) / (max(float(spectrum.min()), 0.0) + 0.01)
        assert got["curvature_condition"].value == pytest.approx(expected, rel=1e-6)
    else:
        # Blocks are inverted one by one, so the worst of them counts.
        worst = max(
            (float(b.scales.max()) + 0.01) / (float(b.scales.min()) + 0.01) for b in matrix.blocks
        )
        assert got["curvature_condition"].value == pytest.approx(worst)


def test_without_damping_a_singular_matrix_has_infinite_condition():
    rows = torch.randn(3, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    got = found(LowRank(rows), 0.0)
    assert got["curvature_rank"].value == 3 / 8
    assert got["curvature_condition"].status == "warn"
    assert "infinite" in got["curvature_condition"].message


def test_a_matrix_too_large_to_decompose_says_so_and_bounds_its_condition(monkeypatch):
    case = cases.make("mlp-cross_entropy", samples=300)
    size = len(case.weights)
    matrix = full.compute(case.network, case.data, case.loss, torch.arange(size))
    exact = found(matrix, 0.01)["curvature_condition"].value
    monkeypatch.setattr(conditioning, "DECOMPOSED", size - 1)
    got = found(matrix, 0.01)
    rank = got["curvature_rank"]
    assert (rank.status, rank.value) == ("warn", None)
    assert f"Not measured: the rank of the curvature over {size} weights" in rank.message
    assert "at most" in got["curvature_condition"].message
    assert exact <= got["curvature_condition"].value <= 1.2 * exact + 1
    assert got["curvature_condition"].status == "pass"
    assert found(matrix, 0.0)["curvature_condition"].status == "warn"


def test_many_gradients_are_not_decomposed_and_that_is_said(monkeypatch):
    monkeypatch.setattr(conditioning, "DECOMPOSED", 2)
    got = found(LowRank(torch.ones(3, 8).double()), 0.1)
    assert got.keys() == {"curvature_rank"}
    assert "of 3 gradients" in got["curvature_rank"].message


def test_of_many_blocks_a_spread_is_decomposed_and_that_is_said(monkeypatch):
    case = cases.make("mlp-cross_entropy", samples=300)
    active = torch.arange(len(case.weights))
    matrix = block_fisher.compute(case.network, case.data, case.loss, active, block=5)
    whole = found(matrix, 0.1)["curvature_rank"]
    assert f"over {len(active)} weights" in whole.message
    monkeypatch.setattr(conditioning, "BLOCK_ENTRIES", 3 * 25)
    some = found(matrix, 0.1)["curvature_rank"]
    chosen = [0, (len(matrix.values) - 1) // 2, len(matrix.values) - 1]
    sizes = [int((matrix.index[b] >= 0).sum()) for b in chosen]
    assert f"3 of the {len(matrix.values)} blocks" in some.message
    assert f"hold {sum(sizes)} weights" in some.message
    ranks = [int(torch.linalg.matrix_rank(matrix.values[b], hermitian=True)) for b in chosen]
    assert some.value == sum(ranks) / sum(sizes)


def test_a_criterion_without_curvature_has_no_such_checks():
    assert rank_and_condition(Problem(torch.ones(4).double())) == []
