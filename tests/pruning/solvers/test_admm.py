"""ADMM on the mask against every support there is, and what must hold whatever the layer."""

from dataclasses import replace
from itertools import combinations, product

import pytest
import torch

from pruning.errors import SecateurError
from pruning.solvers import admm, sparsegpt
from pruning.solvers import layer_patterns as patterns
from pruning.solvers.layer import LayerProblem, Pattern
from pruning.solvers.singular import SingularError
from tests.pruning.solvers.layer_cases import NM, PATTERNS, best_on, curvature, problem

torch.set_num_threads(1)
EFFORTS = {"normal": admm.FAST, "high": admm.THOROUGH}


def damped_error(p, weight):
    change = weight.double() - p.aim.double()
    return float(((change @ curvature(p)) * change).sum())


def supports(p):
    """Every set of entries that the pattern allows to remove."""
    shape, pattern = p.aim.shape, p.pattern
    size = pattern.rows * pattern.columns
    if pattern.kind == "nm":
        cut = pattern.columns - pattern.keep
        each = list(combinations(range(pattern.columns), cut))
        for chosen in product(each, repeat=p.aim.numel() // pattern.columns):
            removed = torch.zeros(len(chosen), pattern.columns, dtype=torch.bool)
            removed.scatter_(
                1, torch.tensor(chosen), torch.ones(len(chosen), cut, dtype=torch.bool)
            )
            yield removed.view(shape)
        return
    blocks = torch.zeros(shape[0], shape[1] // pattern.rows, shape[2] // pattern.columns)
    for chosen in combinations(range(blocks.numel()), p.count // size):
        removed = torch.zeros(blocks.numel(), dtype=torch.bool)
        removed[list(chosen)] = True
        yield patterns.from_groups(removed.view(blocks.shape), pattern)


TINY = {
    "unstructured": (Pattern(), (1, 2, 6)),
    "one row": (Pattern(), (1, 1, 10)),
    "2:4": (NM, (1, 2, 8)),
    "1x2": (Pattern("block", 1, 2), (1, 2, 8)),
    "2x1": (Pattern("block", 2, 1), (1, 2, 8)),
}


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("name", TINY)
def test_the_error_is_near_that_of_the_best_of_all_supports(name, effort):
    pattern, shape = TINY[name]
    ratios = []
    for seed in range(6):
        p = problem(pattern, shape=shape, seed=seed)
        least = min(damped_error(p, best_on(p, removed)) for removed in supports(p))
        ratios.append(damped_error(p, admm.solve(p, EFFORTS[effort]).weight) / least)
    assert min(ratios) > 1 - 1e-9
    assert sum(ratios) / len(ratios) < {"normal": 1.45, "high": 1.2}[effort]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("name", PATTERNS)
def test_exactly_count_zeros_in_the_places_of_the_pattern(name, effort, dtype):
    p = problem(PATTERNS[name], 0.6, dtype=dtype)
    solution = admm.solve(p, EFFORTS[effort])
    assert int(solution.removed.sum()) == p.count
    assert torch.equal(solution.weight == 0, solution.removed)
    assert solution.weight.dtype == dtype
    grouped = patterns.into_groups(solution.removed, p.pattern).sum(-1)
    if p.pattern.kind == "nm":
        assert (grouped == p.pattern.columns - p.pattern.keep).all()
    else:
        assert ((grouped == 0) | (grouped == p.pattern.rows * p.pattern.columns)).all()


@pytest.mark.parametrize("effort", EFFORTS)
def test_weights_that_were_gone_stay_gone(effort):
    gone = torch.rand(2, 8, 24, generator=torch.Generator().manual_seed(1)) < 0.3
    solution = admm.solve(problem(share=0.5, gone=gone), EFFORTS[effort])
    assert solution.removed[gone].all()
    assert int(solution.removed.sum()) == 2 * 8 * 24 // 2


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_nothing_or_everything_may_go(share):
    p = problem(share=share)
    solution = admm.solve(p)
    expected = p.aim if share == 0.0 else torch.zeros_like(p.aim)
    torch.testing.assert_close(solution.weight, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("effort", EFFORTS)
def test_of_equal_weights_exactly_so_many_go(effort):
    aim, gram = torch.ones(1, 6, 8), torch.eye(8)[None]
    for count in (1, 24, 47):
        solution = admm.solve(LayerProblem(aim, gram, 0.01, count), EFFORTS[effort])
        assert int(solution.removed.sum()) == count
        torch.testing.assert_close(solution.weight[~solution.removed], aim[~solution.removed])


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("seed", range(3))
def test_less_error_than_sparsegpt_and_no_more_with_more_effort(name, seed):
    p = problem(PATTERNS[name], seed=seed, shape=(2, 16, 48), samples=90)
    greedy, normal, high = (
        damped_error(p, s.weight)
        for s in (sparsegpt.solve(p), admm.solve(p), admm.solve(p, admm.THOROUGH))
    )
    assert normal < greedy
    assert high < 1.02 * normal


def test_the_answer_holds_the_compensation_and_not_the_masked_weights():
    p = problem()
    solution = admm.solve(p, replace(admm.FAST, polish=60))
    torch.testing.assert_close(solution.weight, best_on(p, solution.removed), rtol=1e-6, atol=1e-8)
    assert damped_error(p, solution.weight) < 0.5 * damped_error(p, p.aim * ~solution.removed)


def test_weights_on_dead_inputs_go_first_and_change_nothing_when_they_stay():
    p = problem(share=0.25)
    gram = p.gram.clone()
    gram[:, :2], gram[:, :, :2] = 0.0, 0.0
    solution = admm.solve(replace(p, gram=gram))
    assert solution.removed[..., :2].all()
    few = admm.solve(replace(p, gram=gram, count=10))
    assert int(few.removed[..., :2].sum()) == 10
    torch.testing.assert_close(few.weight[~few.removed], p.aim[~few.removed])


def test_inputs_without_full_rank_are_solved_and_lose_less_than_the_damping_allows():
    p = problem(samples=10, dtype=torch.float32)
    solution = admm.solve(p)
    assert solution.weight.isfinite().all()
    assert p.error(solution.weight) < p.error(p.aim * ~solution.removed)


def test_a_matrix_that_is_not_positive_is_an_error_and_not_an_identity():
    p = problem()
    with pytest.raises(SingularError):
        admm.solve(replace(p, gram=-p.gram, damping=0.0))


def test_weights_that_are_not_numbers_are_refused():
    p = problem()
    p.aim[0, 0, 0] = float("nan")
    with pytest.raises(SecateurError, match="not a number"):
        admm.solve(p)


def test_the_metric_is_the_inverted_diagonal_of_the_softened_inverse():
    p = problem()
    h = curvature(p)
    softened = h + admm.SOFT * torch.diag_embed(h.diagonal(dim1=1, dim2=2))
    expected = torch.linalg.inv(softened).diagonal(dim1=1, dim2=2) ** -0.5
    torch.testing.assert_close(admm.metric(h), expected, rtol=1e-9, atol=0)


def test_the_given_layer_is_left_as_it_was():
    p = problem()
    aim, gram = p.aim.clone(), p.gram.clone()
    admm.solve(p, admm.THOROUGH)
    assert torch.equal(p.aim, aim)
    assert torch.equal(p.gram, gram)
