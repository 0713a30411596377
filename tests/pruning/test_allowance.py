"""Calls that nobody can interrupt: watched where the process may be ended, and only there."""

import threading
import time

import pytest

from pruning import allowance
from pruning.errors import SecateurError

ERROR = SecateurError("data_too_large", "Too much.")


@pytest.fixture
def ended():
    """What the process would have been ended with."""
    said: list[SecateurError] = []
    allowance.ended_by(said.append)
    yield said
    allowance.ended_by(None)


def busy(until) -> None:
    deadline = time.monotonic() + 20
    while not until() and time.monotonic() < deadline:
        pass


def test_a_librarys_own_process_is_not_watched():
    before = threading.active_count()
    with allowance.at_most(0.0, 0, ERROR):
        assert threading.active_count() == before


def test_computing_beyond_the_allowance_ends_the_process(ended):
    with allowance.at_most(0.05, 1 << 40, ERROR):
        busy(lambda: ended)
    assert ended == [ERROR]


def test_memory_beyond_the_allowance_ends_the_process(ended):
    with allowance.at_most(1e9, 32 << 20, ERROR):
        held = bytearray(b"x") * (128 << 20)
        busy(lambda: ended)
    assert ended == [ERROR]
    assert held


def test_waiting_is_no_computing_and_nothing_goes_on_after_the_call(ended):
    before = threading.active_count()

    def fails() -> None:
        with allowance.at_most(0.5, 1 << 40, ERROR):
            time.sleep(0.6)
            raise ValueError("its own")

    with pytest.raises(ValueError, match="its own"):
        fails()
    assert not ended
    assert threading.active_count() == before
