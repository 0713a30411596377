"""Exactly k weights go, whatever the scores: patterns, allocations and schedules."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning.allocation import split
from pruning.errors import SecateurError
from pruning.patterns.unstructured import smallest
from pruning.schedule import one_shot, rounds
from pruning.schedule.step import removal_count
from pruning.spec import OneShot, Rounds

torch.set_num_threads(1)


@pytest.mark.parametrize("count", range(11))
def test_exactly_k_go_with_all_scores_equal_and_the_first_go_first(count):
    gone = smallest(torch.ones(10), count)
    assert gone.tolist() == [True] * count + [False] * (10 - count)


def test_the_smallest_go():
    assert smallest(torch.tensor([3.0, 1.0, 2.0, 1.0]), 3).tolist() == [False, True, True, True]


def test_scores_without_rank_are_refused():
    with pytest.raises(SecateurError, match="not a number"):
        smallest(torch.tensor([1.0, float("nan")]), 1)


@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=6),
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=6),
)
@settings(max_examples=150, deadline=None)
def test_counts_add_up_never_shrink_and_stay_close_to_their_quotas(sizes, shares):
    total = sum(sizes)
    group = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    kept = torch.ones(total, dtype=torch.bool)
    for target in sorted(int(s * total) for s in shares):
        active = kept.nonzero()[:, 0]
        count = target - (total - len(active))
        quotas = [target * n / total for n in sizes]
        parts = split(group[active], sizes, quotas, count)
        assert sum(n for _, n in parts) == count
        for layer, (positions, n) in enumerate(parts):
            assert 0 <= n <= len(positions)
            kept[active[positions[:n]]] = False
            removed = int((~kept[group == layer]).sum())
            assert abs(removed - target * sizes[layer] / total) <= len(sizes)
    assert int((~kept).sum()) == target


def test_without_quotas_there_is_one_set():
    (positions, count), *others = split(torch.zeros(7, dtype=torch.long), [7], None, 3)
    assert positions.tolist() == list(range(7))
    assert count == 3
    assert not others


def test_one_shot_removes_the_same_share_of_the_survivors_each_time():
    counts = [s.removed for s in one_shot.steps(OneShot(recomputations=4), 10_000, 8_500)]
    kept = [10_000, *(10_000 - k for k in counts)]
    ratios = [b / a for a, b in pairwise(kept)]
    assert counts[-1] == 8_500
    assert ratios == pytest.approx([0.15**0.25] * 4, abs=1e-3)


@pytest.mark.parametrize("curve", ["cubic", "linear", "geometric"])
def test_rounds_rise_to_the_target_and_recover_each_time(curve):
    steps = rounds.steps(Rounds(rounds=5, curve=curve), 1000, 800)
    counts = [s.removed for s in steps]
    assert counts == sorted(counts)
    assert counts[-1] == 800
    assert all(s.recover for s in steps)
    expected = {"cubic": 390, "linear": 160, "geometric": 275}[curve]
    assert counts[0] == expected


@given(
    total=st.integers(1, 500),
    sparsity=st.floats(0, 0.9999),
    count=st.integers(1, 64),
    curve=st.sampled_from(["cubic", "linear", "geometric"]),
)
@settings(max_examples=200, deadline=None)
def test_every_schedule_ends_at_the_target_and_never_goes_back(total, sparsity, count, curve):
    target = removal_count(sparsity, total)
    for steps in (
        one_shot.steps(OneShot(recomputations=count), total, target),
        rounds.steps(Rounds(rounds=count, curve=curve), total, target),
    ):
        counts = [s.removed for s in steps]
        assert counts == sorted(counts)
        assert counts[-1] == target
        assert steps[-1].recover
