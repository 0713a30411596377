"""The OBS update against a KKT system and the textbook formula."""

import pytest
import torch

from pruning.criteria import Problem
from pruning.curvature.block_fisher import partition
from pruning.curvature.matrix import Blocks, Dense, Diagonal
from pruning.solvers import none, obs
from tests.oracle import brute_force

torch.set_num_threads(1)
N = 23


def problem(damping=0.01, rank=40, seed=0):
    g = torch.Generator().manual_seed(seed)
    rows = torch.randn(rank, N, generator=g, dtype=torch.float64)
    h = rows.T @ rows / rank
    w = torch.randn(N, generator=g, dtype=torch.float64)
    return Problem(w, Dense(h), damping)


def blocks_of(h, sizes, block):
    index = partition(torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)), block)
    values = torch.zeros(*index.shape, index.shape[1], dtype=torch.float64)
    mask = torch.zeros_like(h)
    for b, row in enumerate(index):
        at = row[row >= 0]
        values[b, : len(at), : len(at)] = h[at][:, at]
        mask[at[:, None], at] = 1.0
    return Blocks(values, index, len(h)), h * mask


def removed_sets():
    yield torch.zeros(N, dtype=torch.bool)
    yield torch.ones(N, dtype=torch.bool)
    for seed in range(4):
        yield torch.rand(N, generator=torch.Generator().manual_seed(seed)) < (seed + 1) / 5


@pytest.mark.parametrize("removed", removed_sets(), ids=lambda r: f"{int(r.sum())}-removed")
@pytest.mark.parametrize("layout", ["full", "blocks"])
def test_update_is_the_constrained_minimum_of_the_damped_quadratic(removed, layout):
    p = problem()
    h = p.curvature.values
    if layout == "blocks":
        blocks, h = blocks_of(h, [9, 14], 5)
        p = Problem(p.weights, blocks, p.damping)
    damped = h + p.damping * torch.eye(N, dtype=torch.float64)
    change = obs.compensate(p, removed)
    assert torch.equal(change[removed], -p.weights[removed])
    expected = brute_force.constrained_minimum(damped, p.weights, removed)
    torch.testing.assert_close(change, expected, rtol=1e-9, atol=1e-11)
    textbook = brute_force.textbook_update(damped, p.weights, removed)
    torch.testing.assert_close(change, textbook, rtol=1e-8, atol=1e-10)


def test_one_removed_weight_costs_its_saliency():
    p = problem()
    h = p.curvature.values + p.damping * torch.eye(N, dtype=torch.float64)
    inverse = obs.inverse_diagonal(p.curvature, p.damping)
    for q in range(N):
        removed = torch.arange(N) == q
        change = obs.compensate(p, removed)
        cost = 0.5 * change @ h @ change
        torch.testing.assert_close(cost, p.weights[q] ** 2 / (2 * inverse[q]))


@pytest.mark.parametrize("layout", ["diagonal", "dense", "blocks"])
def test_inverse_diagonal(layout):
    h = problem().curvature.values
    if layout == "diagonal":
        matrix, h = Diagonal(h.diagonal()), h.diagonal().diag()
    elif layout == "dense":
        matrix = Dense(h)
    else:
        matrix, h = blocks_of(h, [3, 20], 4)
    expected = torch.linalg.inv(h + 0.1 * torch.eye(N, dtype=torch.float64)).diagonal()
    torch.testing.assert_close(obs.inverse_diagonal(matrix, 0.1), expected)
    torch.testing.assert_close(matrix.diagonal(), h.diagonal())


def test_panels_give_the_same_inverse_diagonal(monkeypatch):
    expected = obs.inverse_diagonal(problem().curvature, 0.1)
    monkeypatch.setattr(obs, "PANEL", 5)
    torch.testing.assert_close(obs.inverse_diagonal(problem().curvature, 0.1), expected)


@pytest.mark.parametrize("layout", ["dense", "blocks"])
def test_singular_curvature_without_damping_is_refused_with_its_rank(layout):
    h = problem(rank=6).curvature.values
    matrix = Dense(h) if layout == "dense" else blocks_of(h, [N], N)[0]
    with pytest.raises(obs.SingularError) as caught:
        obs.inverse_diagonal(matrix, 0.0)
    assert caught.value.rank_and_condition()[0] == 6
    obs.inverse_diagonal(matrix, 1e-3)


def test_failing_block_is_named():
    h = torch.eye(N, dtype=torch.float64)
    h[7, 8] = h[8, 7] = 1.0
    matrix, _ = blocks_of(h, [N], 5)
    with pytest.raises(obs.SingularError) as caught:
        obs.inverse_diagonal(matrix, 0.0)
    assert caught.value.weights.tolist() == [5, 6, 7, 8, 9]


def test_without_compensation_survivors_stay():
    p = problem()
    removed = torch.arange(N) % 2 == 0
    change = none.compensate(p, removed)
    assert torch.equal(change, torch.where(removed, -p.weights, 0.0))
