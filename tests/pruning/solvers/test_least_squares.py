"""Magnitude and Wanda choose the support, least squares the weights."""

from dataclasses import replace

import pytest
import torch

from pruning.errors import SecateurError
from pruning.solvers import least_squares
from pruning.solvers.layer import LayerProblem, Pattern
from pruning.solvers.least_squares import LeastSquares
from pruning.solvers.singular import SingularError
from tests.pruning.solvers.layer_cases import PATTERNS, best_on, problem

torch.set_num_threads(1)


@pytest.mark.parametrize("criterion", ["wanda", "magnitude"])
@pytest.mark.parametrize("steps", [0, 100])
@pytest.mark.parametrize("name", PATTERNS)
def test_the_weights_are_the_best_on_the_support(name, steps, criterion):
    p = problem(PATTERNS[name])
    solution = least_squares.solve(p, LeastSquares(criterion, steps))
    assert int(solution.removed.sum()) == p.count
    torch.testing.assert_close(solution.weight, best_on(p, solution.removed), rtol=1e-8, atol=1e-8)
    assert not solution.weight[solution.removed].any()


def test_the_answer_is_that_of_lstsq_on_the_inputs():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(50, 12, generator=generator, dtype=torch.float64)
    aim = torch.randn(1, 4, 12, generator=generator, dtype=torch.float64)
    p = LayerProblem(aim, (inputs.T @ inputs / 50)[None], 0.0, 24)
    solution = least_squares.solve(p)
    for row in range(4):
        kept = ~solution.removed[0, row]
        expected = torch.linalg.lstsq(inputs[:, kept], inputs @ aim[0, row]).solution
        torch.testing.assert_close(solution.weight[0, row, kept], expected, rtol=1e-8, atol=1e-8)


def test_wanda_takes_the_same_number_of_each_row_by_weight_times_input_norm():
    p = problem(share=0.5)
    removed = least_squares.solve(p).removed
    assert (removed.sum(-1) == 12).all()
    score = p.aim.abs() * p.gram.diagonal(dim1=1, dim2=2).sqrt()[:, None, :]
    highest = score.masked_fill(~removed, 0).amax(-1)
    assert (highest <= score.masked_fill(removed, 9e9).amin(-1)).all()


def test_magnitude_compares_the_layer():
    p = problem(share=0.3)
    removed = least_squares.solve(p, LeastSquares("magnitude")).removed
    assert p.aim.abs()[removed].max() < p.aim.abs()[~removed].min()


@pytest.mark.parametrize("criterion", ["wanda", "magnitude"])
def test_of_equal_weights_exactly_so_many_go_by_position(criterion):
    p = LayerProblem(torch.ones(1, 4, 8), torch.eye(8)[None], 0.01, 17)
    removed = least_squares.solve(p, LeastSquares(criterion)).removed
    assert int(removed.sum()) == 17
    flat = removed.flatten()
    first = torch.arange(32) < 17
    rows = torch.arange(8).expand(4, 8) < torch.tensor([5, 4, 4, 4])[:, None]
    assert torch.equal(flat, rows.flatten() if criterion == "wanda" else first)


@pytest.mark.parametrize("steps", [0, 20])
def test_weights_gone_before_count_and_stay(steps):
    gone = torch.rand(2, 8, 24, generator=torch.Generator().manual_seed(1)) < 0.3
    p = problem(share=0.5, gone=gone)
    solution = least_squares.solve(p, LeastSquares(steps=steps))
    assert solution.removed[gone].all()
    assert int(solution.removed.sum()) == p.count


@pytest.mark.parametrize("steps", [0, 30])
def test_a_dead_input_keeps_its_weight_where_it_stays(steps):
    p = problem(share=0.02)
    gram = p.gram.clone()
    gram[:, :2], gram[:, :, :2] = 0.0, 0.0
    solution = least_squares.solve(replace(p, gram=gram), LeastSquares(steps=steps))
    stays = ~solution.removed[..., :2]
    assert stays.any()
    torch.testing.assert_close(
        solution.weight[..., :2][stays], p.aim[..., :2][stays], rtol=1e-9, atol=1e-9
    )


def test_survivors_without_full_rank_are_an_error_and_not_an_identity():
    with pytest.raises(SingularError):
        least_squares.solve(problem(samples=5, damping=0.0))


def test_weights_that_are_not_numbers_are_refused():
    p = problem()
    p.aim[0, 0, 0] = float("nan")
    for criterion in ("wanda", "magnitude"):
        with pytest.raises(SecateurError, match="not a number"):
            least_squares.solve(p, LeastSquares(criterion))


def test_blocks_go_by_their_summed_scores():
    p = problem(Pattern("block", 1, 4), shape=(1, 4, 16))
    removed = least_squares.solve(p).removed
    worth = (p.aim.square() * p.gram.diagonal(dim1=1, dim2=2)[:, None, :]).unflatten(-1, (-1, 4))
    gone = removed.unflatten(-1, (-1, 4))[..., 0]
    assert worth.sum(-1)[gone].max() <= worth.sum(-1)[~gone].min()
