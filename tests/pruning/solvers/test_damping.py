from math import log10

from pruning.solvers.damping import EXTENSIONS, GRID, Trial, best, sweep


def bowl(minimum):
    return lambda d: Trial(d, loss=1.0 + (log10(d) - minimum) ** 2)


def chosen(trials):
    return trials[best(trials)].damping


def test_sweep_finds_the_minimum_inside_and_outside_the_grid():
    for minimum in (-7, -6, -4, -2, 0, 2):
        trials = sweep(bowl(minimum))
        assert chosen(trials) == 10.0**minimum
        assert [t.damping for t in trials] == sorted(t.damping for t in trials)


def test_sweep_ends_after_so_many_extensions():
    assert len(sweep(bowl(-20))) == len(GRID) + EXTENSIONS


def test_sweep_starts_from_the_damping_of_the_step_before():
    trials = sweep(bowl(-2), near=1e-2)
    assert [t.damping for t in trials] == [1e-3, 1e-2, 1e-1]


def test_failed_trials_are_kept_and_never_chosen():
    def measure(damping):
        return Trial(damping, error="singular") if damping < 0.5 else Trial(damping, loss=damping)

    trials = sweep(measure)
    assert chosen(trials) == 1.0
    assert [t.error for t in trials if t.damping < 0.5] == ["singular"] * 4


def test_where_all_fail_more_damping_is_tried_and_nothing_chosen():
    trials = sweep(lambda d: Trial(d, error="singular"))
    assert best(trials) is None
    assert trials[-1].damping > GRID[-1]


def test_ties_go_to_the_prediction_that_agrees():
    trials = [
        Trial(1e-3, loss=0.5, predicted=0.1, measured=0.4),
        Trial(1e-2, loss=0.5, predicted=0.39, measured=0.4),
        Trial(1e-1, loss=0.6, predicted=0.5, measured=0.5),
    ]
    assert best(trials) == 1


def test_where_damping_makes_no_difference_the_sweep_does_not_wander():
    trials = sweep(lambda d: Trial(d, loss=0.5, predicted=0.0, measured=0.0))
    assert len(trials) == len(GRID)


def test_a_damping_outside_the_grid_does_not_hold_the_next_step_there():
    trials = sweep(bowl(0), near=1e-11)
    assert chosen(trials) == 1.0
