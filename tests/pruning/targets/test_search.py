"""Where the search looks, on drops that are known."""

import math
import random
from collections.abc import Callable

import pytest

from pruning.errors import SecateurError
from pruning.schedule.step import removal_count
from pruning.spec import MaxDrop
from pruning.study.search import Bracket, Probe, bracket, check_drop, following


def searched(
    drop: Callable[[float], float], asked: MaxDrop, total: int = 1_000_000, unit: int = 1
) -> tuple[list[Probe], Bracket]:
    probes: list[Probe] = []
    while (sparsity := following(asked, probes, total, unit)) is not None:
        assert len(probes) < asked.probes
        probes.append(Probe(sparsity, drop(sparsity)))
    return probes, bracket(asked, probes)


def gap(ends: Bracket) -> float:
    """By how much the weights kept at the ends differ."""
    low = ends.accepted.sparsity if ends.accepted else 0.0
    high = ends.refused.sparsity if ends.refused else 0.999
    return 1.0 - (1.0 - high) / (1.0 - low)


def power(root: float, exponent: float) -> Callable[[float], float]:
    return lambda s: 0.01 * (math.log(1 - s) / math.log(1 - root)) ** exponent


def step(root: float) -> Callable[[float], float]:
    return lambda s: 0.0 if s <= root else 0.8


@pytest.mark.parametrize("root", [0.15, 0.4, 0.7, 0.9, 0.97, 0.985])
@pytest.mark.parametrize("shape", ["smooth", "steep", "step"])
def test_typical_curves_are_resolved_in_eight_probes(root, shape):
    drop = {"smooth": power(root, 1.2), "steep": power(root, 5.0), "step": step(root)}[shape]
    probes, ends = searched(drop, MaxDrop())
    assert len(probes) <= 8
    assert ends.accepted is not None
    assert ends.refused is not None
    assert ends.accepted.sparsity <= root < ends.refused.sparsity
    # Sparsities of four decimals are a little coarser than the resolution.
    assert gap(ends) <= 0.053


def test_smooth_curves_take_fewer_probes_than_halving():
    roots = [root / 100 for root in range(20, 99, 3)]
    smooth, steps = (
        sum(len(searched(shape(root), MaxDrop())[0]) for root in roots)
        for shape in (lambda root: power(root, 2.0), step)
    )
    assert smooth < 0.95 * steps


def test_the_answer_is_the_largest_accepted_and_none_above_it_that_was_tried_was_accepted():
    draw = random.Random(0)
    for _ in range(200):
        probes, ends = searched(lambda s: 0.02 * s + draw.gauss(0.0, 0.01), MaxDrop())
        good = [p.sparsity for p in probes if p.drop <= 0.01]
        bad = [p.sparsity for p in probes if p.drop > 0.01]
        assert (ends.accepted.sparsity if ends.accepted else None) == max(good, default=None)
        assert not (good and bad) or max(good) < min(bad)
        assert len({p.sparsity for p in probes}) == len(probes)


def test_a_drop_of_exactly_the_allowed_size_is_accepted():
    assert bracket(MaxDrop(drop=0.3), [Probe(0.5, 0.1 + 0.2)]).accepted is not None


def test_nothing_allowed_goes_down_to_nothing_removed():
    probes, ends = searched(lambda s: 0.9, MaxDrop())
    assert ends.accepted is None
    assert min(p.sparsity for p in probes) <= 0.05


def test_everything_allowed_goes_up_to_the_most():
    probes, ends = searched(lambda s: 0.0, MaxDrop())
    assert ends.refused is None
    assert max(p.sparsity for p in probes) > 0.998


def test_a_network_that_can_not_be_measured_counts_as_refused():
    _, ends = searched(lambda s: math.inf if s > 0.6 else 0.0, MaxDrop())
    assert ends.accepted is not None
    assert 0.58 <= ends.accepted.sparsity <= 0.6


@pytest.mark.parametrize("probes", [2, 3, 5])
def test_few_probes_narrow_the_bracket_and_stop(probes):
    made, ends = searched(power(0.8, 2.0), MaxDrop(probes=probes))
    assert len(made) == probes
    assert gap(ends) < 0.9


def test_no_two_probes_have_the_same_number_of_weights_in_a_small_network():
    for total, unit in ((7, 1), (40, 1), (64, 4)):
        probes, _ = searched(step(0.55), MaxDrop(probes=64, resolution=0.001), total, unit)
        counts = [removal_count(p.sparsity, total, unit) for p in probes]
        assert len(set(counts)) == len(counts)
        assert min(counts) > 0


def test_a_coarse_resolution_still_makes_a_probe():
    probes, _ = searched(step(0.5), MaxDrop(resolution=1.0))
    assert len(probes) == 1


def test_no_drop_at_all_can_be_asked_for():
    _, ends = searched(lambda s: 0.0 if s <= 0.3 else 0.004, MaxDrop(drop=0.0))
    assert ends.accepted is not None
    assert ends.accepted.sparsity == pytest.approx(0.3, abs=0.04)


def test_an_upper_bound_that_no_result_could_keep_is_refused_with_the_samples_it_takes():
    asked = MaxDrop(judged_by="upper_bound", drop=0.01)
    with pytest.raises(SecateurError, match="not one answer changes") as caught:
        check_drop(asked, ("accuracy",), 200)
    assert caught.value.code == "target_unreachable"
    check_drop(asked, ("accuracy",), 300)
    assert "give at least 274 samples" in (caught.value.hint or "")


def test_a_metric_without_meaning_for_the_objective_is_refused():
    with pytest.raises(SecateurError, match="no meaning"):
        check_drop(MaxDrop(metric="cosine"), ("accuracy",), 1_000)


def test_of_shares_of_answers_no_least_width_is_foretold():
    asked = MaxDrop(judged_by="upper_bound", drop=0.01)
    check_drop(asked, ("accuracy",), 20, whole=False)
