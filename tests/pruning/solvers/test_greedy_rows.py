"""Greedy OBS by row against inverting every row's curvature anew before every step."""

import itertools

import pytest
import torch

from pruning.errors import SecateurError
from pruning.solvers import elimination, greedy_rows, row_paths
from pruning.solvers.greedy_rows import GreedyRows
from pruning.solvers.layer import LayerProblem, Pattern
from pruning.solvers.singular import SingularError
from tests.pruning.solvers.layer_cases import NM, PATTERNS, best_on, curvature, problem

torch.set_num_threads(1)
LADDERS = [name for name, pattern in PATTERNS.items() if pattern.kind != "nm"]


def path(p, steps=None):
    """The layer's greedy path: of all groups that may go, the one that costs least now.

    Returns:
        Mask, weights and the undamped error after each step.
    """
    h, gram = curvature(p), p.gram.double()
    aim = p.aim.double()
    w, removed = aim.clone(), torch.zeros_like(aim, dtype=torch.bool)
    r, c = (p.pattern.rows, 1 if p.pattern.kind == "nm" else p.pattern.columns)
    gone = torch.zeros_like(removed) if p.gone is None else p.gone

    def cost(g, top, left):
        rows, columns = range(top, top + r), list(range(left, left + c))
        kept = (~removed[g, top]).nonzero()[:, 0].tolist()
        inverse = torch.linalg.inv(h[g][kept][:, kept])
        at = [kept.index(j) for j in columns]
        block = torch.linalg.inv(inverse[at][:, at])
        part = w[g, rows][:, columns]
        move = part @ block @ inverse[at]
        return float((part @ block * part).sum()), kept, move

    states = []
    current = {}

    def refresh(g, top):
        for left in range(0, aim.shape[2], c):
            key = (g, top, left)
            if removed[g, top, left]:
                current.pop(key, None)
                continue
            value, kept, move = cost(*key)
            if p.pattern.kind == "nm":
                start = left // p.pattern.columns * p.pattern.columns
                group = removed[g, top, start : start + p.pattern.columns]
                if int(group.sum()) >= p.pattern.columns - p.pattern.keep:
                    current.pop(key, None)
                    continue
            current[key] = (-float("inf") if gone[key] else value, key, kept, move)

    for g, top in itertools.product(range(aim.shape[0]), range(0, aim.shape[1], r)):
        refresh(g, top)
    total = p.count // (r * c) if steps is None else steps
    for _ in range(total):
        _, (g, top, left), kept, move = min(current.values(), key=lambda x: x[:2])
        w[g, top : top + r, kept] -= move
        w[g, top : top + r, left : left + c] = 0.0
        removed[g, top : top + r, left : left + c] = True
        change = w - aim
        states.append((removed.clone(), w.clone(), float(((change @ gram) * change).sum())))
        refresh(g, top)
    return states


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("seed", range(3))
def test_support_and_weights_are_those_of_inverting_anew(name, seed):
    p = problem(PATTERNS[name], 0.6, seed=seed)
    solution = greedy_rows.solve(p)
    removed, weight, _ = path(p)[-1]
    assert torch.equal(solution.removed, removed)
    assert int(solution.removed.sum()) == p.count
    assert not solution.weight[removed].any()
    torch.testing.assert_close(solution.weight, weight, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(solution.weight, best_on(p, removed), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", LADDERS)
@pytest.mark.parametrize("samples", [60, 9], ids=["full rank", "low rank"])
def test_one_run_yields_every_step_of_the_ladder(name, samples):
    p = problem(PATTERNS[name], 1.0, (2, 4, 16), samples=samples)
    ladder = greedy_rows.ladder(p)
    states = path(p)
    errors = torch.tensor([0.0, *[state[2] for state in states]], dtype=torch.float64)
    torch.testing.assert_close(ladder.errors(), errors, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(errors[-1], torch.tensor(p.size(), dtype=torch.float64))
    size = p.pattern.rows * p.pattern.columns
    for step in (0, 1, len(states) // 2, len(states)):
        solution = ladder.solve(step * size)
        assert int(solution.removed.sum()) == step * size
        if step:
            assert torch.equal(solution.removed, states[step - 1][0])
            torch.testing.assert_close(solution.weight, states[step - 1][1], rtol=1e-8, atol=1e-9)
        assert p.error(solution.weight) == pytest.approx(float(errors[step]), rel=1e-8, abs=1e-9)


def test_errors_of_rows_are_those_of_each_row_alone():
    p = problem(share=1.0, shape=(1, 3, 12))
    rows = greedy_rows.ladder(p).row_errors()
    assert rows.shape == (3, 13)
    for i in range(3):
        alone = LayerProblem(p.aim[:, i : i + 1], p.gram, p.damping, 12)
        expected = [0.0, *[state[2] for state in path(alone)]]
        torch.testing.assert_close(rows[i], torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("memory", [1, 10_000, 10**9])
@pytest.mark.parametrize("name", ["unstructured", "2:4", "4x4"])
def test_chunks_do_not_change_the_answer(memory, name):
    p = problem(PATTERNS[name], 0.6, (1, 32, 32))
    expected = greedy_rows.solve(p)
    solution = greedy_rows.solve(p, GreedyRows(memory))
    assert torch.equal(solution.removed, expected.removed)
    torch.testing.assert_close(solution.weight, expected.weight)


@pytest.mark.parametrize("share", [0.03, 0.2, 0.9, 0.97])
def test_rows_that_stopped_too_early_go_again(monkeypatch, share):
    p = problem(share=share, shape=(1, 16, 32))
    scale = torch.logspace(-2, 2, 16, dtype=torch.float64)[torch.randperm(16)]
    p = LayerProblem(p.aim * scale[:, None], p.gram, p.damping, p.count)
    expected = greedy_rows.solve(p, GreedyRows(10**9))
    assert torch.equal(expected.removed, path(p)[-1][0])
    monkeypatch.setattr(row_paths, "MARGIN", 0.5)
    again = greedy_rows.solve(p, GreedyRows(1))
    assert torch.equal(again.removed, expected.removed)


def test_short_panels_and_frequent_cuts_do_not_change_the_answer(monkeypatch):
    for pattern in PATTERNS.values():
        p = problem(pattern, 0.75, (2, 8, 40))
        expected = greedy_rows.solve(p)
        with monkeypatch.context() as m:
            m.setattr(elimination, "PANELS", (2, 3))
            m.setattr(elimination, "CUT", 1.0)
            solution = greedy_rows.solve(p)
        assert torch.equal(solution.removed, expected.removed)
        torch.testing.assert_close(solution.weight, expected.weight)


@pytest.mark.parametrize("name", PATTERNS)
def test_what_is_gone_stays_gone_and_counts(name):
    pattern = PATTERNS[name]
    first = greedy_rows.solve(problem(pattern, 0.3, seed=5)).removed
    if pattern.kind == "nm":
        # Some groups have lost more than the pattern takes, others nothing.
        first = torch.rand(first.shape, generator=torch.Generator().manual_seed(1)) < 0.3
    p = problem(pattern, 0.6, gone=first)
    if pattern.kind == "nm":
        each = first.unflatten(2, (-1, 4)).sum(3)
        assert int((each > 2).sum()) > 0
        p = problem(pattern, gone=first)
        p = LayerProblem(p.aim, p.gram, p.damping, int(each.clamp(min=2).sum()), pattern, first)
    solution = greedy_rows.solve(p)
    assert bool(solution.removed[first].all())
    assert int(solution.removed.sum()) == p.count
    assert not solution.weight[solution.removed].any()
    if pattern.kind == "nm":
        assert torch.equal(solution.removed.unflatten(2, (-1, 4)).sum(3), each.clamp(min=2))
    else:
        assert torch.equal(solution.removed, path(p)[-1][0])
        only = LayerProblem(p.aim, p.gram, p.damping, int(first.sum()), pattern, first)
        assert torch.equal(greedy_rows.solve(only).removed, first)


@pytest.mark.parametrize("damping", [0.0, 0.01])
def test_weights_on_dead_inputs_go_first_and_cost_nothing(damping):
    p = problem(shape=(2, 8, 24), damping=damping)
    dead = torch.tensor([0, 7, 23])
    gram = p.gram.clone()
    gram[:, dead] = 0.0
    gram[:, :, dead] = 0.0
    few = LayerProblem(p.aim, gram, damping, 2 * 8 * 3)
    solution = greedy_rows.solve(few)
    assert bool(solution.removed[:, :, dead].all())
    assert few.error(solution.weight) == 0.0
    more = LayerProblem(p.aim, gram, damping, 200)
    solution = greedy_rows.solve(more)
    assert bool(solution.removed[:, :, dead].all())
    assert int(solution.removed.sum()) == 200
    assert float(greedy_rows.ladder(more).errors()[48]) == pytest.approx(0.0, abs=1e-12)


def test_equal_costs_go_by_position_and_exactly_as_many_as_asked():
    aim = torch.full((1, 4, 6), -0.5, dtype=torch.float64)
    eye = torch.eye(6, dtype=torch.float64)[None]
    for count in (0, 1, 5, 6, 7, 12, 24):
        solution = greedy_rows.solve(LayerProblem(aim, eye, 0.01, count))
        expected = torch.arange(24).view(1, 4, 6) < count
        assert torch.equal(solution.removed, expected)
    pairs = greedy_rows.solve(LayerProblem(aim[..., :4], eye[:, :4, :4], 0.01, 8, NM))
    assert torch.equal(pairs.removed, torch.tensor([True, True, False, False]).expand(1, 4, 4))


def test_single_precision_finds_the_error_of_double_precision():
    p = problem(share=0.6, shape=(1, 32, 96), samples=200)
    single = LayerProblem(p.aim.float(), p.gram.float(), p.damping, p.count)
    exact, ours = greedy_rows.solve(p), greedy_rows.solve(single)
    assert ours.weight.dtype == torch.float32
    assert int(ours.removed.sum()) == p.count
    assert p.error(ours.weight.double()) == pytest.approx(p.error(exact.weight), rel=1e-4)


def test_what_single_precision_can_not_hold_is_done_in_double_precision():
    p = problem(share=0.5, shape=(1, 16, 48), samples=20, damping=1e-7)
    single = LayerProblem(p.aim.float(), p.gram.float(), p.damping, p.count)
    twice = LayerProblem(single.aim.double(), single.gram.double(), p.damping, p.count)
    ours, exact = greedy_rows.solve(single), greedy_rows.solve(twice)
    assert p.error(ours.weight.double()) <= 1.02 * p.error(exact.weight) + 1e-6 * p.size()


def test_a_singular_gram_is_an_error_and_no_identity():
    p = problem(samples=9, damping=0.0)
    with pytest.raises(SingularError) as caught:
        greedy_rows.solve(p)
    assert caught.value.rank_and_condition()[0] == 9


def test_an_nm_pattern_has_no_ladder():
    with pytest.raises(ValueError, match="no ladder"):
        greedy_rows.ladder(problem(NM))


@pytest.mark.parametrize("count", [-1, 3, 400])
def test_a_ladder_answers_its_own_steps_only(count):
    p = problem(Pattern("block", 1, 4), 0.5)
    with pytest.raises(ValueError, match="no step"):
        greedy_rows.ladder(p).removed(count)


def test_weights_that_are_not_numbers_are_refused():
    p = problem()
    p.aim[0, 1, 2] = torch.nan
    with pytest.raises(SecateurError) as caught:
        greedy_rows.solve(p)
    assert caught.value.code == "loss_non_finite"
