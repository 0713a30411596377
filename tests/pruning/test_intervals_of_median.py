"""The interval of a median holds whatever the distribution is, and is refused to too few values."""

import numpy as np
import pytest

from pruning import intervals


@pytest.mark.parametrize(("n", "k"), [(6, 1), (8, 1), (9, 2), (20, 6), (100, 40)])
def test_the_ends_are_the_order_statistics_of_the_sign_test(n: int, k: int):
    assert intervals.of_median(range(1, n + 1)) == (k, n + 1 - k)


def test_five_values_enclose_it_too_seldom():
    assert intervals.of_median([1.0, 2.0, 3.0, 4.0, 5.0]) is None
    assert intervals.of_median([]) is None


@pytest.mark.parametrize("draw", ["lognormal", "standard_cauchy", "exponential"])
def test_it_covers_the_median_at_least_as_often_as_it_says(draw: str):
    random = np.random.default_rng(7)
    median = {"lognormal": 1.0, "standard_cauchy": 0.0, "exponential": float(np.log(2))}[draw]
    found = [intervals.of_median(getattr(random, draw)(size=31)) for _ in range(2000)]
    inside = np.mean([ends is not None and ends[0] <= median <= ends[1] for ends in found])
    assert 0.94 < inside < 0.985


def test_a_thousand_values_are_no_matter():
    ends = intervals.of_median(np.arange(5000.0))
    assert ends is not None
    assert 2400 < ends[0] < 2500 < ends[1] < 2600
