"""Who has fallen silent, told by one's own clock alone.

Whoever lives changes something again and again: a counter in a row of the database. Who watches
notes for how long it has seen the same value. No two machines' clocks are compared, and no wall
clock is read, so setting a clock costs nothing: a watcher that has just begun only takes as long
again as it would have taken anyway.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from store.clock import elapsed

Key = TypeVar("Key", bound=Hashable)


@dataclass
class _Seen:
    value: Hashable
    seconds: float


class FailureDetector(Generic[Key]):
    """For how long each of several values has been seen unchanged.

    Args:
        longest_gap: The most, in seconds, that may count between two looks. Who could not look, for
            the database did not answer or the machine was suspended, has seen no silence: those
            who are watched had no chance to show a sign either, and get one before they count as
            silent. Normal looks must be closer together than this.
        clock: Seconds on a clock that is never set.
    """

    def __init__(self, longest_gap: float, clock: Callable[[], float] = elapsed) -> None:
        self._longest_gap = longest_gap
        self._clock = clock
        self._looked: float | None = None
        self._seen: dict[Key, _Seen] = {}

    def look(self, values: Mapping[Key, Hashable]) -> dict[Key, float]:
        """Takes note of all values as they are now.

        Returns:
            For how many seconds each has been seen as it is; 0 for one that is new or has changed.
        """
        now = self._clock()
        gap = 0.0 if self._looked is None else min(now - self._looked, self._longest_gap)
        self._looked = now
        before, self._seen = self._seen, {}
        for key, value in values.items():
            known = before.get(key)
            same = known is not None and known.value == value
            self._seen[key] = _Seen(value, known.seconds + gap if known and same else 0.0)
        return {key: seen.seconds for key, seen in self._seen.items()}
