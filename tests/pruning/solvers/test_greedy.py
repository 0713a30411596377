"""The greedy path of OBS against inverting anew at every step."""

import pytest
import torch

from pruning.criteria import Problem
from pruning.curvature.matrix import Blocks, Dense, Diagonal
from pruning.errors import SecateurError
from pruning.solvers import greedy, obs

torch.set_num_threads(1)
N = 31


def problem(seed=0, damping=0.02, rank=50):
    g = torch.Generator().manual_seed(seed)
    rows = torch.randn(rank, N, generator=g, dtype=torch.float64)
    return Problem(torch.randn(N, generator=g, dtype=torch.float64), Dense(rows.T @ rows), damping)


def brute_force(p, count):
    """Invert the survivors' matrix anew before every deletion."""
    h = p.curvature.values + p.damping * torch.eye(N, dtype=torch.float64)
    w, left, order, costs = p.weights.clone(), list(range(N)), [], []
    for _ in range(count):
        inverse = torch.linalg.inv(h[left][:, left])
        saliency = w[left] ** 2 / (2 * inverse.diagonal())
        at = int(saliency.argmin())
        order.append(left[at])
        costs.append(float(saliency[at]))
        w[left] = w[left] - w[left[at]] / inverse[at, at] * inverse[:, at]
        w[left[at]] = 0.0
        del left[at]
    return order, costs, w


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rank", [50, 12], ids=["full rank", "low rank"])
def test_every_deletion_is_that_of_inverting_anew(seed, rank):
    p = problem(seed, rank=rank)
    order, costs, _ = brute_force(p, N)
    path = list(greedy.deletions(p))
    assert [d.position for d in path] == order
    torch.testing.assert_close(torch.tensor([d.cost for d in path]).double(),
                               torch.tensor(costs).double(), rtol=1e-7, atol=1e-12)  # fmt: skip
    for k in (1, N // 2, N - 1):
        torch.testing.assert_close(path[k - 1].weights, brute_force(p, k)[2], rtol=1e-7, atol=1e-9)
        assert not path[k - 1].weights[order[:k]].any()


def test_the_inverse_stays_that_of_the_survivors_to_the_end():
    p = problem()
    h = p.curvature.values + p.damping * torch.eye(N, dtype=torch.float64)
    inverse = greedy.Downdated(p.curvature, p.damping)
    for q in torch.randperm(N, generator=torch.Generator().manual_seed(0)).tolist()[:-1]:
        inverse.delete(q)
        left = inverse.left.nonzero()[:, 0]
        expected = torch.linalg.inv(h[left][:, left])
        torch.testing.assert_close(inverse.values[left][:, left], expected, rtol=1e-9, atol=1e-12)
        assert not inverse.values[q].any()


@pytest.mark.parametrize("count", [0, 1, 9, N - 1, N])
def test_a_path_costs_and_moves_what_removing_its_set_at_once_does(count):
    p = problem()
    path = greedy.path(p, count)
    assert int(path.removed.sum()) == count
    joint = obs.compensate(p, path.removed)
    torch.testing.assert_close(path.change, joint, rtol=1e-9, atol=1e-11)
    assert torch.equal(path.change[path.removed], -p.weights[path.removed])
    h = p.curvature.values + p.damping * torch.eye(N, dtype=torch.float64)
    cost = joint @ h @ joint / 2
    torch.testing.assert_close(path.scores[path.removed].sum(), cost, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("count", [0, 5, N])
def test_scores_are_costs_paid_and_costs_of_the_next_deletion(count):
    p = problem()
    path, steps = greedy.path(p, count), list(greedy.deletions(p))
    for step in steps[:count]:
        assert float(path.scores[step.position]) == step.cost
    if count < N:
        left = torch.where(path.removed, float("inf"), path.scores)
        assert float(left.min()) == pytest.approx(steps[count].cost, rel=1e-12)


def test_greedy_never_costs_more_than_the_same_number_at_once_here():
    """Not a theorem, but on strongly coupled weights single saliencies mislead."""
    g = torch.Generator().manual_seed(3)
    rows = torch.randn(40, N, generator=g, dtype=torch.float64) @ torch.randn(
        N, N, generator=g, dtype=torch.float64
    )
    p = Problem(torch.randn(N, generator=g, dtype=torch.float64), Dense(rows.T @ rows / 40), 1e-3)
    h = p.curvature.values + p.damping * torch.eye(N, dtype=torch.float64)
    path = greedy.path(p, 15)
    single = p.weights**2 / (2 * obs.inverse_diagonal(p.curvature, p.damping))
    at_once = torch.zeros(N, dtype=torch.bool)
    at_once[single.argsort()[:15]] = True
    change = obs.compensate(p, at_once)
    assert float(path.scores[path.removed].sum()) < 0.8 * float(change @ h @ change / 2)


def test_equal_costs_go_by_position():
    p = Problem(torch.full((6,), -0.5, dtype=torch.float64), Dense(torch.eye(6).double()), 0.0)
    assert [d.position for d in greedy.deletions(p)] == list(range(6))


def test_singular_curvature_is_refused():
    with pytest.raises(obs.SingularError):
        greedy.path(problem(damping=0.0, rank=9), 3)


def test_only_a_dense_matrix_can_be_downdated():
    w = torch.ones(4, dtype=torch.float64)
    blocks = Blocks(torch.eye(2).double().expand(2, 2, 2), torch.arange(4).view(2, 2), 4)
    for matrix in (Diagonal(w), blocks):
        with pytest.raises(SecateurError) as caught:
            greedy.path(Problem(w, matrix, 0.1), 2)
        assert caught.value.code == "spec_conflict"
