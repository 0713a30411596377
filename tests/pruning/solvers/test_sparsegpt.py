"""SparseGPT against the paper's algorithm, column by column with an explicit inverse."""

import pytest
import torch

from pruning.errors import SecateurError
from pruning.solvers import layer_factor, sparsegpt
from pruning.solvers.layer import LayerProblem, Pattern
from pruning.solvers.singular import SingularError
from pruning.solvers.sparsegpt import SparseGPT
from tests.pruning.solvers.layer_cases import NM, PATTERNS, curvature, problem

torch.set_num_threads(1)


def column_by_column(p, block):
    """Invert the Gram matrix of the columns that are left anew at each column.

    The next column's error moves all columns behind it by the inverse's first row.
    """
    h = curvature(p)
    w, removed = p.aim.clone(), torch.zeros_like(p.aim, dtype=torch.bool)
    d, (r, c) = w.shape[2], (p.pattern.rows, p.pattern.columns)

    def costs(start, stop):
        """Of every group among the columns, what removing it costs with those before it fixed."""
        table = torch.empty(len(w), w.shape[1] // r, (stop - start) // c, dtype=w.dtype)
        for at in range(start, stop, c):
            inverse = torch.linalg.inv(h[:, at:, at:])[:, :c, :c]
            part = w[:, :, at : at + c]
            each = (part @ torch.linalg.inv(inverse) * part).sum(2)
            table[:, :, (at - start) // c] = each.unflatten(1, (-1, r)).sum(2)
        return table

    taken = 0
    for at in range(d):
        if p.pattern.kind == "nm":
            m = p.pattern.columns
            if at % m == 0:
                single = torch.stack(
                    [
                        w[:, :, j] ** 2 / torch.linalg.inv(h[:, j:, j:])[:, 0, 0, None]
                        for j in range(at, at + m)
                    ],
                    2,
                )
                first = single.argsort(dim=2, stable=True)[..., : m - p.pattern.keep]
                removed[:, :, at : at + m].scatter_(2, first, True)
        elif at % block == 0:
            stop = min(at + block, d)
            upto = p.count // (r * c) * stop // d
            table = costs(at, stop)
            chosen = table.flatten().argsort(stable=True)[: upto - taken]
            taken = upto
            mask = torch.zeros(table.numel(), dtype=torch.bool)
            mask[chosen] = True
            mask = mask.view(table.shape).repeat_interleave(r, 1).repeat_interleave(c, 2)
            removed[:, :, at:stop] = mask
        inverse = torch.linalg.inv(h[:, at:, at:])
        error = torch.where(removed[:, :, at], w[:, :, at], 0.0) / inverse[:, 0, 0, None]
        w[:, :, at:] -= error[..., None] * inverse[:, None, 0]
        w[:, :, at].masked_fill_(removed[:, :, at], 0.0)
    return w, removed


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("block", [8, 16, 128])
@pytest.mark.parametrize("seed", range(2))
def test_mask_and_weights_are_those_of_the_paper(name, block, seed):
    p = problem(PATTERNS[name], 0.6, (2, 8, 40), seed=seed)
    weight, removed = column_by_column(p, block)
    solution = sparsegpt.solve(p, SparseGPT(block))
    assert torch.equal(solution.removed, removed)
    torch.testing.assert_close(solution.weight, weight, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", PATTERNS)
def test_the_update_lands_in_the_weights_that_are_returned(name):
    p = problem(PATTERNS[name], 0.5, (1, 16, 64), samples=300)
    before = p.aim.clone()
    solution = sparsegpt.solve(p)
    masked = torch.where(solution.removed, 0.0, p.aim)
    assert p.error(solution.weight) < 0.7 * p.error(masked)
    assert torch.equal(p.aim, before)
    assert not solution.weight[solution.removed].any()


@pytest.mark.parametrize("share", [0.0, 0.013, 0.5, 0.77, 0.999, 1.0])
@pytest.mark.parametrize("name", [n for n, p in PATTERNS.items() if p.kind != "nm"])
def test_exactly_as_many_go_as_asked(share, name):
    p = problem(PATTERNS[name], share, (2, 8, 40))
    for block in (8, 12, 64):
        solution = sparsegpt.solve(p, SparseGPT(block))
        assert int(solution.removed.sum()) == p.count
        if p.count == 0:
            torch.testing.assert_close(solution.weight, p.aim)


def test_ties_go_by_position_and_half_is_not_all():
    aim = torch.full((1, 4, 8), -0.5, dtype=torch.float64)
    eye = torch.eye(8, dtype=torch.float64)[None]
    for count in (0, 3, 16, 32):
        solution = sparsegpt.solve(LayerProblem(aim, eye, 0.01, count))
        assert torch.equal(solution.removed, torch.arange(32).view(1, 4, 8) < count)
    pairs = sparsegpt.solve(LayerProblem(aim, eye, 0.01, 16, NM))
    assert torch.equal(pairs.removed, torch.tensor([True, True, False, False] * 2).expand(1, 4, 8))


@pytest.mark.parametrize("name", PATTERNS)
def test_what_is_gone_stays_gone_and_counts(name):
    pattern = PATTERNS[name]
    gone = sparsegpt.solve(problem(pattern, 0.3, seed=5)).removed
    p = problem(pattern, 0.6, gone=gone)
    solution = sparsegpt.solve(p, SparseGPT(8))
    assert bool(solution.removed[gone].all())
    assert int(solution.removed.sum()) == p.count
    assert not solution.weight[solution.removed].any()


@pytest.mark.parametrize("damping", [0.0, 0.01])
@pytest.mark.parametrize("pattern", [Pattern(), NM, Pattern("block", 4, 4)], ids=lambda p: p.kind)
def test_weights_on_dead_inputs_go_first_and_cost_nothing(damping, pattern):
    p = problem(pattern, shape=(2, 8, 24), damping=damping)
    dead = torch.tensor([4, 5, 6, 7]) if pattern.kind == "block" else torch.tensor([0, 7, 23])
    gram = p.gram.clone()
    gram[:, dead] = 0.0
    gram[:, :, dead] = 0.0
    solution = sparsegpt.solve(LayerProblem(p.aim, gram, damping, p.count, pattern))
    assert bool(solution.removed[:, :, dead].all())
    if pattern.kind != "nm":
        few = LayerProblem(p.aim, gram, damping, 2 * 8 * len(dead), pattern)
        solution = sparsegpt.solve(few, SparseGPT(8))
        assert bool(solution.removed[:, :, dead].all())
        assert few.error(solution.weight) == 0.0
        fewer = LayerProblem(p.aim, gram, damping, 16, pattern)
        solution = sparsegpt.solve(fewer)
        assert int(solution.removed.sum()) == 16
        assert not solution.removed[:, :, [j for j in range(24) if j not in dead.tolist()]].any()
        # What stays is not touched by the loss of weights that no output depends on.
        assert torch.equal(solution.weight[~solution.removed], p.aim[~solution.removed])


def test_single_precision_finds_the_error_of_double_precision():
    p = problem(share=0.6, shape=(1, 64, 256), samples=600)
    single = LayerProblem(p.aim.float(), p.gram.float(), p.damping, p.count)
    exact, ours = sparsegpt.solve(p), sparsegpt.solve(single)
    assert ours.weight.dtype == torch.float32
    assert p.error(ours.weight.double()) == pytest.approx(p.error(exact.weight), rel=1e-3)


def test_what_single_precision_can_not_factorise_is_factorised_in_double_precision():
    p = problem(share=0.5, shape=(1, 16, 48), samples=20, damping=2e-6, dtype=torch.float32)
    values = layer_factor.damped(p)
    _, bad = layer_factor._factor(values)
    assert bool(bad.all())
    torch.testing.assert_close(
        layer_factor.cholesky(values), torch.linalg.cholesky(values.double()).float()
    )
    solution = sparsegpt.solve(p)
    assert int(solution.removed.sum()) == p.count
    assert bool(solution.weight.isfinite().all())


def test_a_singular_gram_is_an_error_and_no_identity():
    p = problem(samples=9, damping=0.0)
    with pytest.raises(SingularError) as caught:
        sparsegpt.solve(p)
    assert caught.value.rank_and_condition()[0] == 9


def test_weights_that_are_not_numbers_are_refused():
    p = problem()
    p.aim[0, 1, 2] = torch.nan
    with pytest.raises(SecateurError) as caught:
        sparsegpt.solve(p)
    assert caught.value.code == "loss_non_finite"
