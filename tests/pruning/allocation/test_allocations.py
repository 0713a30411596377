"""How many weights each layer loses: formulas of the papers, and brute force for the search."""

import itertools
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning.allocation import Layers, erk, global_, owl, search, uniform
from pruning.allocation.ladder import Ladder, by_marginal
from pruning.spec import (
    ERKAllocation,
    GlobalAllocation,
    OWLAllocation,
    SearchAllocation,
    UniformAllocation,
)

SHAPES = [(6, 1, 5, 5), (16, 6, 5, 5), (120, 400), (84, 120), (10, 84)]
TOTAL = sum(torch.Size(s).numel() for s in SHAPES)


def layers(shapes=SHAPES, outliers=None, ladders=None, prices=None) -> Layers:
    found = outliers or [0.0] * len(shapes)
    return Layers(
        shapes,
        lambda _: found,
        None if ladders is None else lambda: ladders,
        None if prices is None else lambda _: prices,
    )


def test_uniform_gives_every_layer_its_share():
    quotas = uniform.quotas(UniformAllocation(), layers([(10,), (20,), (30,)]), 30)
    assert quotas == [5, 10, 15]


def test_global_without_ladders_leaves_it_to_the_scores():
    assert global_.quotas(GlobalAllocation(), layers(), 3) is None


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_erk_densities_are_in_proportion_to_the_dimensions(share):
    target = int(share * TOTAL)
    quotas = erk.quotas(ERKAllocation(), layers(), target)
    assert sum(quotas) == pytest.approx(target, rel=1e-9)
    densities = [1 - q / n for q, n in zip(quotas, layers().sizes, strict=True)]
    assert all(-1e-12 <= d <= 1 + 1e-12 for d in densities)
    raw = [sum(s) / torch.Size(s).numel() for s in SHAPES]
    scale = [d / r for d, r in zip(densities, raw, strict=True) if d < 1 - 1e-9]
    assert scale == pytest.approx([scale[0]] * len(scale), rel=1e-9)
    # A layer is full only if its wish was for more.
    full = [r for d, r in zip(densities, raw, strict=True) if d >= 1 - 1e-9]
    assert all(r * scale[0] >= 1 - 1e-6 for r in full)


def test_owl_keeps_more_where_outliers_are():
    outliers = [0.02, 0.01, 0.03, 0.0, 0.01]
    options = OWLAllocation(spread=0.08)
    target = int(0.6 * TOTAL)
    quotas = owl.quotas(options, layers(outliers=outliers), target)
    assert sum(quotas) == pytest.approx(target, rel=1e-9)
    densities = [1 - q / n for q, n in zip(quotas, layers().sizes, strict=True)]
    assert max(densities) - min(densities) == pytest.approx(2 * 0.08)
    for (a, b), (x, y) in zip(
        itertools.combinations(densities, 2), itertools.combinations(outliers, 2), strict=True
    ):
        assert a - b == pytest.approx((x - y) / 0.03 * 0.16)


def test_owl_without_differences_is_uniform():
    quotas = owl.quotas(OWLAllocation(), layers(outliers=[0.1] * 5), TOTAL // 2)
    shares = [q / n for q, n in zip(quotas, layers().sizes, strict=True)]
    assert shares == pytest.approx([TOTAL // 2 / TOTAL] * 5)


def _ladder(size: int, draw: random.Random, power: float = 2.0) -> Ladder:
    rungs = sorted({0, size, *draw.sample(range(1, size), 4)})
    rises = [0.0]
    for k in rungs[1:]:
        rises.append(rises[-1] + draw.random() * (k / size) ** power)
    return Ladder(tuple(rungs), tuple(rises))


@pytest.mark.parametrize("seed", range(12))
def test_the_search_finds_what_trying_everything_finds(seed):
    draw = random.Random(seed)
    ladders = [_ladder(14, draw) for _ in range(3)]
    prices = [draw.choice([1.0, 2.0, 5.5]) for _ in ladders]
    saved = 14 * sum(prices) * draw.random()
    found = search.cheapest(ladders, prices, saved)

    def cost(counts):
        return sum(ladder.at(k) for ladder, k in zip(ladders, counts, strict=True))

    def saves(counts):
        return sum(p * k for p, k in zip(prices, counts, strict=True))

    assert saves(found) >= saved - 1e-9
    best = min(
        cost(counts)
        for counts in itertools.product(range(15), repeat=3)
        if saves(counts) >= saved - 1e-9
    )
    assert cost(found) == pytest.approx(best, rel=1e-6, abs=1e-9)


@given(target=st.integers(0, 300), seed=st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_a_budget_of_weights_is_met_exactly(target, seed):
    draw = random.Random(seed)
    ladders = [_ladder(100, draw) for _ in range(3)]
    view = layers([(100,)] * 3, ladders=ladders, prices=[1.0] * 3)
    assert sum(search.quotas(SearchAllocation(), view, target)) == target
    assert sum(by_marginal(ladders, target)) == target


@pytest.mark.parametrize("seed", range(8))
def test_equal_marginals_are_cheapest_on_convex_ladders(seed):
    draw = random.Random(seed)
    ladders = []
    for _ in range(3):
        slopes = sorted(draw.random() for _ in range(4))
        rises = [0.0, *itertools.accumulate(3 * s for s in slopes)]
        ladders.append(Ladder((0, 3, 6, 9, 12), tuple(rises)))
    found = by_marginal(ladders, 17)
    best = min(
        sum(ladder.at(k) for ladder, k in zip(ladders, counts, strict=True))
        for counts in itertools.product(range(13), repeat=3)
        if sum(counts) == 17
    )
    cost = sum(ladder.at(k) for ladder, k in zip(ladders, found, strict=True))
    assert cost == pytest.approx(best)


def test_a_ladder_that_falls_is_refused():
    with pytest.raises(ValueError, match="ladder"):
        Ladder((0, 2, 4), (0.0, 2.0, 1.0))
