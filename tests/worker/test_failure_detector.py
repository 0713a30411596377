"""Silence is what a process has seen itself, on its own clock, while it could look."""

from worker.failure_detector import FailureDetector


class Clock:
    now = 1e6

    def __call__(self) -> float:
        return self.now


def detector(longest_gap: float = 10.0) -> tuple[FailureDetector[str], Clock]:
    clock = Clock()
    return FailureDetector(longest_gap, clock), clock


def test_the_same_value_grows_old_and_a_new_one_is_young() -> None:
    beats, clock = detector()
    assert beats.look({"a": 1, "b": 1}) == {"a": 0, "b": 0}
    clock.now += 5
    assert beats.look({"a": 1, "b": 2}) == {"a": 5, "b": 0}
    clock.now += 5
    assert beats.look({"a": 1, "b": 2}) == {"a": 10, "b": 5}


def test_what_was_away_begins_anew() -> None:
    beats, clock = detector()
    beats.look({"a": 1})
    clock.now += 5
    beats.look({})
    clock.now += 5
    assert beats.look({"a": 1}) == {"a": 0}


def test_time_in_which_nobody_could_look_counts_for_little() -> None:
    beats, clock = detector(longest_gap=10)
    beats.look({"a": 1})
    clock.now += 3600
    assert beats.look({"a": 1}) == {"a": 10}
    clock.now += 4
    assert beats.look({"a": 1}) == {"a": 14}
