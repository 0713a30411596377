"""Intervals against tables, brute force and simulation."""

from math import comb
from statistics import NormalDist

import pytest
import torch

from pruning import intervals
from pruning.study import chance


def zeros_and_ones(ones: int, n: int) -> torch.Tensor:
    return torch.cat([torch.ones(ones), torch.zeros(n - ones)]).double()


def pairs(lost: int, won: int, same: int) -> tuple[torch.Tensor, torch.Tensor]:
    dense = torch.cat([torch.ones(lost), torch.zeros(won), torch.ones(same)]).double()
    final = torch.cat([torch.zeros(lost), torch.ones(won), torch.ones(same)]).double()
    return dense, final


@pytest.mark.parametrize(
    ("ones", "n", "low", "high"),
    # Newcombe 1998, table I: the score method without correction.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611),
     (1, 29, 0.0061, 0.1718)],
)  # fmt: skip
def test_the_interval_of_a_share_is_wilsons(ones, n, low, high):
    found = intervals.of_mean(zeros_and_ones(ones, n))
    assert found == pytest.approx((low, high), abs=6e-5)


def test_the_interval_of_a_mean_of_other_values_is_the_normal_one():
    values = torch.linspace(0.2, 0.9, 50).double()
    mean = float(values.mean())
    low, high = intervals.of_mean(values)
    half = 1.959964 * float(values.std()) / 50**0.5
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=1e-6)


def test_a_cosine_of_one_everywhere_is_no_share_of_right_answers():
    ones = torch.ones(12).double()
    assert intervals.of_mean(ones, shares=False) == (1.0, 1.0)
    found = intervals.drop(ones, ones, shares=False)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_the_interval_of_a_drop_adds_half_a_pair_to_each_cell():
    dense, final = pairs(12, 5, 183)
    found = intervals.drop(dense, final)
    lost, won, n = 12.5, 5.5, 202
    centre = (lost - won) / n
    half = 1.959964 * ((lost + won - (lost - won) ** 2 / n) ** 0.5) / n
    assert found.value == pytest.approx(7 / 200)
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half), abs=1e-9)
    assert found.samples == 200


def test_more_looks_make_it_wider_by_their_quantile():
    dense, final = pairs(12, 5, 183)
    one, eight = intervals.drop(dense, final), intervals.drop(dense, final, 8)
    ratio = NormalDist().inv_cdf(1 - 0.05 / 16) / NormalDist().inv_cdf(0.975)
    assert (eight.high - eight.low) / (one.high - one.low) == pytest.approx(ratio)


def _covered(n: int, lost: float, won: float) -> float:
    """The exact chance that the interval holds the true drop, over all tables."""
    chance_of = {}
    for a in range(n + 1):
        for b in range(n + 1 - a):
            p = comb(n, a) * comb(n - a, b) * lost**a * won**b * (1 - lost - won) ** (n - a - b)
            if p > 1e-9:
                chance_of[a, b] = p
    total = 0.0
    for (a, b), p in chance_of.items():
        found = intervals.drop(*pairs(a, b, n - a - b))
        total += p if found.low <= lost - won <= found.high else 0.0
    return total


@pytest.mark.parametrize(("lost", "won"), [(0.03, 0.02), (0.06, 0.01), (0.01, 0.01)])
def test_the_true_drop_lies_inside_as_often_as_is_said_by_brute_force(lost, won):
    assert _covered(60, lost, won) >= 0.94


def test_over_simulated_searches_all_looks_hold_at_once_as_often_as_is_said():
    """Eight networks whose wrong answers overlap, on the same samples."""
    generator = torch.Generator().manual_seed(0)
    rates, held, runs, n = [0.005 * (i + 1) for i in range(8)], 0, 400, 1_000
    for _ in range(runs):
        hard = torch.rand(n, generator=generator, dtype=torch.float64)
        dense = torch.ones(n, dtype=torch.float64)
        found = [intervals.drop(dense, (hard > rate).double(), 8) for rate in rates]
        held += all(d.low <= rate <= d.high for d, rate in zip(found, rates, strict=True))
    # Two standard deviations of the simulation below what is said.
    assert held / runs >= 0.928


@pytest.mark.parametrize(("changed", "looks"), [(0.0, 8), (0.03, 1), (0.1, 8)])
def test_the_width_foretold_is_the_width_found(changed, looks):
    n = 1_000
    lost = int(n * changed / 2)
    found = intervals.drop(*pairs(lost, lost, n - 2 * lost), looks)
    half = (found.high - found.low) / 2
    assert chance.half_width(n, changed, looks) == pytest.approx(half, rel=1e-3)
    enough = chance.samples_for(half, changed, looks)
    assert abs(enough - n) <= 4
    assert chance.half_width(enough, changed, looks) <= half * (1 + 1e-9)


def test_of_shares_it_is_the_normal_interval_and_of_a_single_one_there_is_none():
    gap = torch.tensor([0.25, 0.0, 0.5, -0.25], dtype=torch.float64)
    found = intervals.drop(torch.full_like(gap, 0.5), 0.5 - gap)
    half = NormalDist().inv_cdf(0.975) * float(gap.std()) / 2
    assert (found.low, found.high) == pytest.approx((0.125 - half, 0.125 + half))
    alone = intervals.drop(gap[:1] + 0.5, gap[:1])
    assert (alone.value, alone.low, alone.high) == (0.5, None, None)
