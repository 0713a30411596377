"""Who shows keys that are not known is slowed down; who has a good one is not."""

import pytest

from api import failed_keys
from api.failed_keys import SECONDS_EACH, FailedKeys
from pruning.errors import SecateurError


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def failed(clock: Clock) -> FailedKeys:
    return FailedKeys(3, clock)


def show(failed: FailedKeys, address: str, secret: str, known: bool = False) -> str:
    """What becomes of it: let in, refused, slowed."""
    looked_up, refusal = False, None
    try:
        with failed.attempt(address, secret) as attempt:
            looked_up = True
            attempt.known = known
    except SecateurError as error:
        refusal = error
    if refusal is None:
        return "let in" if known else "refused"
    assert refusal.code == "too_many_requests"
    assert refusal.details["retry_after"] >= 1
    return "slowed" if looked_up else "not looked up"


def test_unknown_keys_drain_a_bucket_that_fills_again(failed: FailedKeys, clock: Clock) -> None:
    assert [show(failed, "a", str(n)) for n in range(5)] == ["refused"] * 3 + ["slowed"] * 2
    assert show(failed, "b", "x") == "refused"
    clock.now += SECONDS_EACH
    assert [show(failed, "a", str(n)) for n in range(2)] == ["refused", "slowed"]
    clock.now += SECONDS_EACH * 100
    assert [show(failed, "a", str(n)) for n in range(4)] == ["refused"] * 3 + ["slowed"]


def test_good_keys_of_the_same_address_are_let_in(failed: FailedKeys) -> None:
    assert show(failed, "a", "good", known=True) == "let in"
    for n in range(10):
        show(failed, "a", str(n))
    assert show(failed, "a", "good", known=True) == "let in"
    assert show(failed, "a", "another good one", known=True) == "let in"


def test_one_key_is_looked_up_at_a_time_where_too_many_failed(failed: FailedKeys) -> None:
    show(failed, "a", "good", known=True)
    for n in range(3):
        show(failed, "a", str(n))
    with failed.attempt("a", "4") as first:
        assert show(failed, "a", "5") == "not looked up"
        assert show(failed, "a", "good", known=True) == "let in"
        assert show(failed, "b", "5") == "refused"
        first.known = True
    assert show(failed, "a", "6") == "slowed"


def test_a_key_that_was_revoked_is_known_no_longer(failed: FailedKeys) -> None:
    show(failed, "a", "good", known=True)
    assert show(failed, "a", "good") == "refused"
    for n in range(2):
        show(failed, "a", str(n))
    assert show(failed, "a", "good") == "slowed"


def test_a_look_up_that_fails_itself_counts_for_nothing(failed: FailedKeys) -> None:
    for _ in range(10):
        with pytest.raises(OSError, match="database"), failed.attempt("a", "k"):
            raise OSError("database")
    assert show(failed, "a", "k") == "refused"


def test_what_is_remembered_is_bounded(failed: FailedKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failed_keys, "_MOST", 100)
    for n in range(500):
        show(failed, str(n), "x")
        show(failed, "same", f"good {n}", known=True)
    assert len(failed._spent) <= 100
    assert len(failed._known) <= 100
