"""Swaps never make a row worse, keep its number of zeros, and mend a bad mask."""

import pytest
import torch

from pruning.solvers import admm, masked_cg, swaps
from pruning.solvers.layer import Pattern
from tests.pruning.solvers.layer_cases import NM, best_on, curvature, problem

torch.set_num_threads(1)


def from_magnitude(pattern, seed, gone=None):
    p = problem(pattern, seed=seed)
    h = curvature(p)
    squares = p.aim.square()
    if gone is not None:
        squares = squares.masked_fill(gone, -1.0)
    grouped = squares.unflatten(-1, (-1, 4)) if pattern.kind == "nm" else squares
    low = grouped.argsort(-1)[..., : grouped.shape[-1] // 2]
    removed = torch.zeros_like(grouped, dtype=torch.bool).scatter(-1, low, torch.ones_like(low) > 0)
    removed = removed.view(p.aim.shape)
    return p, h, masked_cg.improve(h, p.aim, p.aim, removed, 60), removed


def row_errors(p, h, weight):
    return (((weight - p.aim) @ h) * (weight - p.aim)).sum(-1)


@pytest.mark.parametrize("pattern", [Pattern(), NM], ids=["unstructured", "2:4"])
@pytest.mark.parametrize("seed", range(3))
def test_no_row_gets_worse_and_most_of_a_bad_mask_better(pattern, seed):
    p, h, weight, removed = from_magnitude(pattern, seed)
    before, last = row_errors(p, h, weight), None
    for rounds in (1, 4, 12):
        better, now = swaps.refine(
            h, p.aim, weight, removed, admm.metric(h), pattern, rounds=rounds, steps=30
        )
        assert not better[now].any()
        assert torch.equal(now.sum(-1), removed.sum(-1))
        if pattern.kind == "nm":
            assert (now.unflatten(-1, (-1, 4)).sum(-1) == 2).all()
        after = row_errors(p, h, better)
        assert (after <= (before if last is None else last) * (1 + 1e-12)).all()
        last = after
    assert float(last.sum()) < 0.9 * float(before.sum())
    assert float(last.sum()) == pytest.approx(
        float(row_errors(p, h, best_on(p, now)).sum()), rel=0.1
    )


def test_what_was_gone_before_does_not_come_back():
    gone = torch.rand(2, 8, 24, generator=torch.Generator().manual_seed(3)) < 0.4
    p, h, weight, removed = from_magnitude(Pattern(), 0, gone & (gone.cumsum(-1) <= 12))
    gone = gone & (gone.cumsum(-1) <= 12)
    assert removed[gone].all()
    _, now = swaps.refine(h, p.aim, weight, removed, admm.metric(h), Pattern(), gone=gone, rounds=8)
    assert now[gone].all()
    assert not torch.equal(now, removed)


def test_blocks_are_left_as_they_are():
    p, h, weight, removed = from_magnitude(Pattern(), 0)
    same, now = swaps.refine(h, p.aim, weight, removed, admm.metric(h), Pattern("block", 4, 4))
    assert torch.equal(same, weight)
    assert torch.equal(now, removed)
