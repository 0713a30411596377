"""How much of a job is done, and how long the rest may take, while it runs. Torch-free.

Work is planned in visits of kinds ("scoring", "evaluating", "scoring.ladder", ...), each worth some
samples through the network. What a visit takes is learned from those that are over; a kind that was
not visited yet is priced by its passes at the pace of the others. A loop inside a visit says how
far it is.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import exp

UNFINISHED = 0.999
"""The largest fraction of a job that is not over."""

OVERDUE = 0.3
"""What may remain of a visit that takes longer than expected, as a share of what it took."""

GUESSED_PACE = 2e-5
"""Seconds for one sample through the network until one was measured."""


@dataclass(frozen=True)
class Planned:
    """Work of one kind that is expected.

    Args:
        visits: How often.
        passes: Samples through the network in one visit, a forward pass of one as the unit.
        seconds: What a visit takes beside these.
    """

    visits: float
    passes: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """How far a job is.

    Args:
        fraction: Of the whole job, 0 to 1; it never falls.
        elapsed_seconds: Since it began.
        eta_seconds: Until its end; None while nothing was measured to tell it from.
    """

    fraction: float
    elapsed_seconds: float
    eta_seconds: float | None


def drifted(fraction: float, eta_seconds: float | None, seconds: float) -> float:
    """Where a job is likely to be some time after it was heard of last.

    It moves at the pace of the estimate at first, and never over half of what was left: news may
    be late because the work takes longer than was thought.

    Args:
        fraction: As heard last.
        eta_seconds: As heard with it.
        seconds: Since then.
    """
    if not eta_seconds or seconds <= 0:
        return fraction
    return fraction + 0.5 * (1.0 - fraction) * (1.0 - exp(-2.0 * seconds / eta_seconds))


class _Loop:
    """Something that counts up to a known total, from where it was when it was first told of."""

    def __init__(self, since: float, first: float, total: float) -> None:
        self.since, self.first, self.done, self.total = since, first, first, total

    def left(self, now: float) -> float | None:
        """Seconds until its end; None where that is not known."""
        if self.done <= self.first or self.total <= 0:
            return None
        return (now - self.since) * (self.total - self.done) / (self.done - self.first)


class _Visit:
    """Work that has begun: the time in it, without that of visits inside it, and its loops."""

    def __init__(self, kind: str, now: float) -> None:
        self.kind, self.began, self.since, self.spent = kind, now, now, 0.0
        self.running = True
        self.whole: _Loop | None = None
        self.inner: _Loop | None = None

    def seconds(self, now: float) -> float:
        return self.spent + (now - self.since if self.running else 0.0)

    def pause(self, now: float) -> None:
        self.spent, self.running = self.seconds(now), False

    def resume(self, now: float) -> None:
        self.since, self.running = now, True

    def loop(self, done: float, total: float, whole: bool, now: float) -> None:
        loop = self.whole if whole else self.inner
        if loop is None or total != loop.total or done < loop.done:
            # A loop over all of the visit that is told of after its first unit began with it.
            early = whole and loop is None and done <= 1.0
            loop = _Loop(self.began, 0.0, total) if early else _Loop(now, done, total)
            if whole:
                self.whole = loop
            else:
                self.inner = loop
        loop.done = done

    def rest(self, expected: float, now: float) -> float:
        """Seconds that are left, where a visit takes `expected`."""
        spent = self.seconds(now)
        if self.whole is not None and (left := self.whole.left(now)) is not None:
            return left
        inner = self.inner.left(now) if self.inner is not None else None
        return max(expected - spent, inner or 0.0, OVERDUE * spent)


class Workload:
    """What is planned, what is done, and what that says of the rest.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._planned: dict[str, Planned] = {}
        self._visits: dict[str, int] = {}
        self._learned: dict[str, float] = {}
        self._stack: list[_Visit] = []
        self._fraction = 0.0
        self._eta: tuple[float, float] | None = None
        self._finished = False

    def plan(self, parts: Mapping[str, Planned]) -> None:
        """Takes up what is planned; what was planned of the same kind before is replaced."""
        self._planned |= parts

    def happened(self, seconds: float) -> None:
        """Counts time that an earlier process spent on the job."""
        self._began -= seconds

    def begin(self, kind: str) -> None:
        """A visit begins, inside the running one if there is one."""
        now = self._clock()
        if self._stack:
            self._stack[-1].pause(now)
        self._stack.append(_Visit(kind, now))

    def end(self) -> None:
        """The running visit is over."""
        if not self._stack:
            return
        now = self._clock()
        visit = self._stack.pop()
        spent, kind = visit.seconds(now), visit.kind
        self._visits[kind] = self._visits.get(kind, 0) + 1
        # The first visit of a kind also loads what it needs, so the second one replaces it.
        known = self._learned.get(kind) if self._visits[kind] > 2 else None
        self._learned[kind] = spent if known is None else (known + spent) / 2.0
        if self._stack:
            self._stack[-1].resume(now)

    def loop(self, done: float, total: float, *, whole: bool) -> None:
        """How far a loop of the running visit is; `whole`: the visit ends with it."""
        if self._stack:
            self._stack[-1].loop(done, total, whole, self._clock())

    def finish(self) -> None:
        """The job is over."""
        while self._stack:
            self.end()
        self._finished = True

    def estimate(self) -> Estimate | None:
        """Where the job is; None while nothing is planned."""
        now = self._clock()
        elapsed = now - self._began
        if self._finished:
            return Estimate(1.0, elapsed, 0.0)
        if not self._planned:
            return None
        left = self._left(now)
        whole = elapsed + left
        fraction = min(elapsed / whole if whole > 0 else 0.0, UNFINISHED)
        self._fraction = max(self._fraction, fraction)
        return Estimate(self._fraction, elapsed, self._smoothed(left, now))

    def _smoothed(self, left: float, now: float) -> float | None:
        """Seconds that are left, without jumps; None while no pace is known."""
        if not self._learned or (self._pace() is None and self._priced()):
            return None
        if self._eta is not None:
            before, at = self._eta
            left = (max(0.0, before - (now - at)) + left) / 2.0
        self._eta = (left, now)
        return left

    def _pace(self) -> float | None:
        """Seconds of a pass; None where none was clocked.

        First visits count only where there is nothing else, and of these the fastest.
        """
        clocked = {
            kind: (part.passes, max(0.0, self._learned[kind] - part.seconds))
            for kind, part in self._planned.items()
            if part.passes and kind in self._learned
        }
        again = [pair for kind, pair in clocked.items() if self._visits[kind] > 1]
        if again:
            return sum(seconds for _, seconds in again) / sum(passes for passes, _ in again)
        return min((seconds / passes for passes, seconds in clocked.values()), default=None)

    def _priced(self) -> bool:
        """Whether passes make up what is left."""
        return any(part.passes and self._to_come(kind) > 0 for kind, part in self._planned.items())

    def _left(self, now: float) -> float:
        left = sum(visit.rest(self._expected(visit.kind), now) for visit in self._stack)
        for kind in self._planned:
            left += self._to_come(kind) * self._expected(kind)
        return left

    def _to_come(self, kind: str) -> float:
        """Visits that have not begun."""
        running = sum(visit.kind == kind for visit in self._stack)
        return max(0.0, self._planned[kind].visits - self._visits.get(kind, 0) - running)

    def _expected(self, kind: str) -> float:
        """Seconds of a visit."""
        learned, visits = self._learned.get(kind), self._visits.get(kind, 0)
        if learned is not None and visits > 1:
            return learned
        planned = self._planned.get(kind, Planned(0))
        pace = self._pace()
        pace = GUESSED_PACE if pace is None else pace
        priced = planned.passes * pace + planned.seconds
        return priced if learned is None else min(learned, (learned * priced) ** 0.5)
