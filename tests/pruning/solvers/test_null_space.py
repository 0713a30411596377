"""Weights whose row of curvature is zero: free, unmoved, and no hindrance to the others."""

import pytest
import torch

from pruning.criteria import Problem
from pruning.curvature.block_fisher import partition
from pruning.curvature.kronecker import Kronecker, KroneckerBlock
from pruning.curvature.matrix import Blocks, Dense, Diagonal, LowRank
from pruning.solvers import greedy, obs
from pruning.solvers.null_space import free
from pruning.solvers.singular import SingularError
from tests.oracle import brute_force

torch.set_num_threads(1)
N = 20


def positive(size, seed=0):
    g = torch.Generator().manual_seed(seed)
    rows = torch.randn(2 * size, size, generator=g, dtype=torch.float64)
    return rows.T @ rows / size


def with_zero_rows():
    """A matrix over 20 weights whose rows 0, 7, 8 and 19 are zero."""
    values = positive(N)
    for q in (0, 7, 8, 19):
        values[q] = values[:, q] = 0.0
    return values


def blocks():
    dense = with_zero_rows()
    index = partition(torch.repeat_interleave(torch.arange(2), torch.tensor([9, 11])), 6)
    values = torch.zeros(*index.shape, index.shape[1], dtype=torch.float64)
    mask = torch.zeros_like(dense)
    for number, row in enumerate(index):
        at = row[row >= 0]
        values[number, : len(at), : len(at)] = dense[at][:, at]
        mask[at[:, None], at] = 1.0
    return Blocks(values, index, N), dense * mask


def kronecker(position=None):
    """5 x 4 weights; output 2 and input 1 are dead."""
    b, a = positive(5, 1), positive(4, 2)
    b[2] = b[:, 2] = 0.0
    a[1] = a[:, 1] = 0.0
    high, left = torch.linalg.eigh(b)
    low, right = torch.linalg.eigh(a)
    scales = torch.relu(high)[:, None] * torch.relu(low)[None, :]
    position = torch.arange(N) if position is None else position
    block = KroneckerBlock(left, right, scales, position, torch.arange(len(position)))
    return Kronecker((block,), len(position)), torch.kron(b, a)[position][:, position]


SOME = torch.tensor([0, 1, 2, 4, 5, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 18, 19])
FEW = torch.tensor([0, 1, 5, 8, 9, 10, 12, 18])
MATRICES = {
    "diagonal": lambda: (
        Diagonal(with_zero_rows().diagonal()),
        with_zero_rows().diagonal().diag(),
    ),
    "dense": lambda: (Dense(with_zero_rows()), with_zero_rows()),
    "blocks": blocks,
    "kronecker, all active": kronecker,
    "kronecker, most active": lambda: kronecker(SOME),
    "kronecker, few active": lambda: kronecker(FEW),
}


@pytest.mark.parametrize("name", MATRICES)
def test_without_damping_they_are_left_out_and_the_rest_is_inverted(name):
    matrix, dense = MATRICES[name]()
    nothing = (dense == 0).all(1)
    assert 0 < int(nothing.sum()) < len(dense)
    assert torch.equal(free(matrix, 0.0), nothing)
    inverse = obs.inverse_diagonal(matrix, 0.0)
    assert bool((inverse[nothing] == torch.inf).all())
    rest = torch.linalg.inv(dense[~nothing][:, ~nothing]).diagonal()
    torch.testing.assert_close(inverse[~nothing], rest, rtol=1e-8, atol=0)
    weights = torch.linspace(-1, 2, len(dense), dtype=torch.float64)
    for removed in (torch.arange(len(dense)) % 3 == 0, nothing, ~nothing):
        change = obs.compensate(Problem(weights, matrix, 0.0), removed)
        stay = nothing & ~removed
        assert not change[stay].any()
        expected = brute_force.constrained_minimum(
            dense[~nothing][:, ~nothing], weights[~nothing], removed[~nothing]
        )
        torch.testing.assert_close(change[~nothing], expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", MATRICES)
def test_with_damping_they_are_weights_like_all_others(name):
    matrix, dense = MATRICES[name]()
    assert not free(matrix, 0.1).any()
    damped = dense + 0.1 * torch.eye(len(dense), dtype=torch.float64)
    inverse = obs.inverse_diagonal(matrix, 0.1)
    torch.testing.assert_close(inverse, torch.linalg.inv(damped).diagonal())


@pytest.mark.parametrize(
    "matrix",
    [
        Diagonal(torch.zeros(6).double()),
        Dense(torch.zeros(6, 6).double()),
        Blocks(torch.zeros(2, 3, 3).double(), torch.arange(6).view(2, 3), 6),
        LowRank(torch.zeros(4, 6).double()),
        Kronecker(
            (
                KroneckerBlock(
                    torch.eye(2).double(),
                    torch.eye(3).double(),
                    torch.zeros(2, 3).double(),
                    torch.arange(6),
                    torch.arange(6),
                ),
            ),
            6,
        ),
    ],
    ids=lambda m: type(m).__name__,
)
def test_a_matrix_of_zeros_makes_every_weight_free(matrix):
    assert bool((obs.inverse_diagonal(matrix, 0.0) == torch.inf).all())
    weights = torch.arange(1.0, 7.0).double()
    removed = torch.arange(6) < 2
    change = obs.compensate(Problem(weights, matrix, 0.0), removed)
    assert torch.equal(change, torch.where(removed, -weights, 0.0))


def test_a_hessian_row_with_a_zero_on_the_diagonal_alone_is_not_free():
    values = torch.tensor([[0.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    assert not free(Dense(values), 0.0).any()
    with pytest.raises(SingularError):
        obs.inverse_diagonal(Dense(values), 0.0)


def test_the_greedy_path_takes_them_first_and_then_goes_on_as_without_them():
    values = with_zero_rows()
    nothing = (values == 0).all(1)
    weights = torch.linspace(1, 2, N, dtype=torch.float64)
    path = list(greedy.deletions(Problem(weights, Dense(values), 0.0)))
    at = nothing.nonzero()[:, 0]
    assert [d.position for d in path[: len(at)]] == at.tolist()
    assert [d.cost for d in path[: len(at)]] == [0.0] * len(at)
    rest = (~nothing).nonzero()[:, 0]
    alone = list(greedy.deletions(Problem(weights[rest], Dense(values[rest][:, rest]), 0.0)))
    assert [d.position for d in path[len(at) :]] == [int(rest[d.position]) for d in alone]
    assert [d.cost for d in path[len(at) :]] == pytest.approx([d.cost for d in alone], rel=1e-9)


@pytest.mark.parametrize("scale", [1e-18, 1e18])
def test_rows_that_are_left_out_do_not_hide_how_large_the_others_are(scale):
    matrix, dense = blocks()
    weights = torch.linspace(-1, 2, N, dtype=torch.float64)
    removed = torch.arange(N) % 4 == 1
    damping = 0.1
    expected = obs.compensate(Problem(weights, matrix, damping), removed)
    scaled = Blocks(matrix.values * scale, matrix.index, N)
    change = obs.compensate(Problem(weights, scaled, damping * scale), removed)
    torch.testing.assert_close(change, expected, rtol=1e-9, atol=1e-12)
    inverse = obs.inverse_diagonal(scaled, damping * scale)
    damped = (dense + damping * torch.eye(N, dtype=torch.float64)) * scale
    torch.testing.assert_close(inverse * scale, torch.linalg.inv(damped).diagonal() * scale)


def test_what_is_not_a_number_is_a_failure_with_no_rank():
    values = positive(6)
    values[2, 3] = values[3, 2] = torch.nan
    rows = positive(6)
    rows[0, 0] = torch.nan
    for matrix in (Dense(values), LowRank(rows)):
        with pytest.raises(SingularError) as caught:
            obs.inverse_diagonal(matrix, 0.1)
        assert caught.value.rank_and_condition() == (0, float("inf"))
