"""Steps of every schedule against the closed forms they come from; torch-free."""

import pytest

from pruning.schedule.step import between, planned_steps, scorings
from pruning.spec import AtInitialisation, OneShot, Proximal, Rounds

TOTAL = 1_000


def ends(schedule, target, total=TOTAL, unit=1):
    return [s.removed for s in planned_steps(schedule, total, target, unit) if s.recover]


def test_cubic_is_the_curve_of_zhu_and_gupta():
    """s_t = s_f + (s_i - s_f) (1 - t / n)^3 from s_i = 0: Zhu and Gupta 2017, eq. 1."""
    n, final = 8, 0.9
    wanted = [final + (0.0 - final) * (1 - t / n) ** 3 for t in range(1, n + 1)]
    assert ends(Rounds(rounds=n, curve="cubic"), 900) == [int(TOTAL * s + 0.5) for s in wanted]


def test_geometric_removes_the_same_share_of_the_survivors_every_round():
    assert ends(Rounds(rounds=4, curve="geometric"), 9_375, 10_000) == [5_000, 7_500, 8_750, 9_375]


def test_linear_removes_the_same_number_every_round():
    assert ends(Rounds(rounds=5, curve="linear"), 900) == [180, 360, 540, 720, 900]


@pytest.mark.parametrize("curve", ["cubic", "linear", "geometric"])
@pytest.mark.parametrize("recomputations", [1, 3])
@pytest.mark.parametrize(("total", "target"), [(97, 95), (97, 1), (97, 0), (97, 97), (5, 3)])
def test_rounds_never_go_back_and_end_at_the_target(curve, recomputations, total, target):
    schedule = Rounds(rounds=6, curve=curve, recomputations=recomputations)
    steps = planned_steps(schedule, total, target)
    counts = [step.removed for step in steps]
    assert counts == sorted(counts)
    assert counts[-1] == target
    assert sum(step.recover for step in steps) == 6
    assert steps[-1].recover


def test_inside_a_round_the_same_share_of_the_survivors_goes_each_time():
    schedule = Rounds(rounds=2, curve="geometric", recomputations=2)
    steps = planned_steps(schedule, 10_000, 9_375)
    assert [s.removed for s in steps] == [5_000, 7_500, 8_750, 9_375]
    assert [s.recover for s in steps] == [False, True, False, True]


def test_a_round_of_linear_is_cut_into_shares_of_its_own_survivors():
    steps = planned_steps(Rounds(rounds=2, curve="linear", recomputations=3), 10_000, 9_000)
    left = [10_000 - s.removed for s in steps]
    for first, last in ((0, 2), (2, 5)):
        begin = 10_000 if first == 0 else left[first]
        part = left[first + (first > 0) : last + 1]
        ratio = (part[-1] / begin) ** (1 / 3)
        assert part == pytest.approx([begin * ratio**i for i in (1, 2, 3)], abs=1)


def test_one_round_with_recomputations_is_one_shot():
    rounds = planned_steps(Rounds(rounds=1, recomputations=4), TOTAL, 870)
    assert rounds == planned_steps(OneShot(recomputations=4), TOTAL, 870)


def test_at_initialisation_is_one_step_by_way_of_equal_shares():
    (step,) = planned_steps(AtInitialisation(iterations=4), 10_000, 9_375)
    assert (step.via, step.removed, step.recover) == ((5_000, 7_500, 8_750), 9_375, True)
    (plain,) = planned_steps(AtInitialisation(), 10_000, 9_375)
    assert plain.via == ()


def test_a_hundred_iterations_on_a_few_weights_are_as_many_as_remove_something():
    (step,) = planned_steps(AtInitialisation(iterations=100), 12, 9)
    assert step.via == tuple(range(1, 9))
    assert scorings([step]) == 9


def test_soft_pruning_takes_the_target_at_once():
    (step,) = planned_steps(Proximal(), TOTAL, 870)
    assert (step.removed, step.recover, step.via) == (870, True, ())


def test_groups_go_whole_at_every_count_on_the_way():
    schedules = [
        Rounds(rounds=3, recomputations=2),
        AtInitialisation(iterations=7),
        OneShot(recomputations=5),
    ]
    for schedule in schedules:
        for step in planned_steps(schedule, 96, 72, unit=8):
            assert all(count % 8 == 0 for count in (*step.via, step.removed))


def test_nothing_lies_between_where_nothing_would_be_left_or_removed():
    assert between(3, 10, 4, 10) == []
    assert between(5, 5, 4, 10) == []
    assert between(0, 1, 4, 10) == []
