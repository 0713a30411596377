"""How one criterion's runs are held against another's."""

import pytest
import torch

from pruning import intervals
from pruning.study.advantage import Finding, differences, student


def finding(each, loss=1.0):
    each = each.double()
    return Finding(loss, {"accuracy": float(each.mean())}, {"accuracy": each})


def only(pairs, metrics=("accuracy",)):
    return differences("obs", "magnitude", pairs, metrics, recovered=False)[0]


def right(count, of=200):
    return torch.arange(of) < count


def test_one_seed_has_the_paired_interval_of_the_evaluation_samples():
    own, other = right(180), right(150)
    found = only([(finding(own), finding(other))])
    drop = intervals.drop(own.double(), other.double())
    ends = (drop.value, drop.low, drop.high)
    assert (found.value, found.low, found.high) == pytest.approx(ends)
    assert found.value == pytest.approx(0.15)
    assert found.verdict == "better"
    assert found.message == (
        "obs was better than magnitude here: +15.00 points of accuracy, interval 9.85 to 19.85."
    )


@pytest.mark.parametrize(
    ("own", "other", "verdict", "words"),
    [
        (180, 179, "as_good", "magnitude was as good as obs here: +0.50 points of accuracy"),
        (179, 180, "as_good", "magnitude was as good as obs here: -0.50 points of accuracy"),
        (150, 180, "worse", "magnitude was better than obs here: -15.00 points of accuracy"),
        (150, 150, "as_good", "magnitude was as good as obs here: 0.00 points of accuracy"),
    ],
)
def test_as_good_is_where_the_interval_holds_zero(own, other, verdict, words):
    found = only([(finding(right(own)), finding(right(other)))])
    assert found.verdict == verdict
    assert found.message.startswith(words)
    assert (found.low <= 0 <= found.high) == (verdict == "as_good")


def test_seeds_that_disagree_widen_the_interval_and_more_of_the_same_do_not_narrow_it():
    same = [(finding(right(180)), finding(right(150)))]
    one, four = only(same), only(4 * same)
    assert (four.value, four.low, four.high) == pytest.approx((one.value, one.low, one.high))
    apart = [(finding(right(n)), finding(right(150))) for n in (110, 170, 180, 200)]
    found = only(apart)
    assert found.value == pytest.approx(0.125)
    assert found.verdict == "as_good"
    assert found.message.endswith("over 4 seeds.")


def test_the_interval_holds_the_true_advantage_over_samples_and_seeds():
    """Each criterion has an accuracy of .8 plus noise of the seed, so that the truth is zero."""
    draw = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(200):
        hard = torch.rand(300, generator=draw)
        pairs = [
            tuple(finding(hard < 0.8 + 0.03 * torch.randn(1, generator=draw)) for _ in range(2))
            for _ in range(5)
        ]
        found = only(pairs)
        held += found.low <= 0 <= found.high
    assert held >= 185


def test_the_loss_needs_three_seeds():
    pairs = [(Finding(loss=1.0 + 0.01 * n), Finding(loss=2.0)) for n in range(3)]
    few = only(pairs[:2], metrics=())
    assert (few.quantity, few.verdict, few.low, few.high) == ("loss", "unknown", None, None)
    assert few.value == pytest.approx(0.995)
    assert "comparison.seeds: 3" in few.message
    enough = only(pairs, metrics=())
    assert enough.verdict == "better"
    assert enough.value == pytest.approx(0.99)
    assert 0.9 < enough.low < enough.value < enough.high < 1.1


def test_seeds_in_which_a_run_failed_are_left_out():
    good = (finding(right(180)), finding(right(150)))
    failed = (finding(right(180)), Finding(error="singular"))
    assert only([good, failed]) == only([good])
    none_left = only([failed, (Finding(error="too large"), failed[1])])
    assert (none_left.verdict, none_left.value) == ("unknown", None)
    assert none_left.message == "magnitude could not be run at this sparsity: singular"


def test_students_quantile():
    """Table 26.10 of Abramowitz and Stegun 1964."""
    for freedom, value in ((2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042)):
        assert student(freedom) == pytest.approx(value, rel=0.01)


def test_one_sample_of_shares_says_nothing_of_chance():
    found = only([(finding(torch.tensor([0.9])), finding(torch.tensor([0.4])))])
    assert found.value == pytest.approx(0.5)
    assert (found.low, found.high, found.verdict) == (None, None, "unknown")
