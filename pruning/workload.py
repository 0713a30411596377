"""How much of a job is done, and how long the rest may take, while it runs. Torch-free.

Work is planned as visits of kinds ("scoring", "evaluating", "scoring.ladder", ...), each with a
price: samples through the network, and seconds beside them. By how much a kind exceeds its price is
learned from its visits that are over; one that was not visited yet is taken at its price, at the
pace of the others. A loop inside a visit says how far it is.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import exp

UNFINISHED = 0.999
"""The largest fraction of a job that is not over."""

OVERDUE = 0.3
"""What may remain of a visit that takes longer than expected, as a share of what it took."""

GUESSED_PACE = 5e-6
"""Seconds for one sample through the network until one was measured."""

AHEAD, UNSURE = 2.0, 0.02
"""How far time may run ahead of priced work: a fraction is at most so many times the share of the
work, and a little more. A first estimate that was far too short can't be taken back."""


@dataclass(frozen=True)
class Price:
    """What a visit is expected to take.

    Args:
        passes: Samples through the network, a forward pass of one as the unit.
        seconds: What it takes beside these.
    """

    passes: float = 0.0
    seconds: float = 0.0

    def at(self, pace: float) -> float:
        """In seconds.

        Args:
            pace: Seconds of a pass.
        """
        return self.passes * pace + self.seconds


def times(visits: float, passes: float = 0.0, seconds: float = 0.0) -> list[Price]:
    """So many visits of one price; a broken number of them is rounded."""
    return [Price(passes, seconds)] * round(visits)


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


class _Kind:
    """Visits of one kind: those planned, in their order, and what the ones that are over took."""

    def __init__(self, prices: Sequence[Price]) -> None:
        self.prices = list(prices)
        self.over = 0
        self.taken: list[tuple[Price, float]] = []

    @property
    def price(self) -> Price:
        """Of the visit that runs, or comes next; beyond those planned, of the last one."""
        if not self.prices:
            return Price()
        return self.prices[min(self.over, len(self.prices) - 1)]

    def took(self, seconds: float) -> None:
        """A visit is over. The first also loads what it needs, so the second replaces it."""
        self.taken = [*(self.taken[-1:] if self.over > 1 else []), (self.price, seconds)]
        self.over += 1

    def expected(self, price: Price, pace: float) -> float:
        """Seconds of a visit of a price, by what others of the kind took."""
        priced = price.at(pace)
        if not self.taken:
            return priced
        if priced <= 0.0 or any(at.at(pace) <= 0.0 for at, _ in self.taken):
            return sum(seconds for _, seconds in self.taken) / len(self.taken)
        factors = [seconds / at.at(pace) for at, seconds in self.taken]
        factor = sum(factors) / len(factors)
        return priced * (min(factor, factor**0.5) if self.over == 1 else factor)


class Workload:
    """What is planned, what is done, and what that says of the rest.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._kinds: dict[str, _Kind] = {}
        self._planned: set[str] = set()
        self._stack: list[_Visit] = []
        self._fraction = 0.0
        self._eta: tuple[float, float] | None = None
        self._finished = False

    def plan(self, parts: Mapping[str, Sequence[Price]]) -> None:
        """Takes up what is planned, the visits that are over included.

        What was planned of the same kind before is replaced.

        Args:
            parts: The price of each visit, by kind.
        """
        for kind, prices in parts.items():
            self._kind(kind).prices = list(prices)
            self._planned.add(kind)

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
        self._kind(visit.kind).took(visit.seconds(now))
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
        measured = self._pace()
        pace = GUESSED_PACE if measured is None else measured
        left = self._left(pace, now)
        fraction = min(elapsed / (elapsed + left) if left > 0 else UNFINISHED, UNFINISHED)
        fraction = min(fraction, AHEAD * self._share_done(pace, now) + UNSURE)
        self._fraction = max(self._fraction, fraction)
        unknown = measured is None and any(
            price.passes for kind in self._planned for price in self._to_come(kind)
        )
        return Estimate(self._fraction, elapsed, None if unknown else self._smoothed(left, now))

    def _kind(self, name: str) -> _Kind:
        return self._kinds.setdefault(name, _Kind([]))

    def _smoothed(self, left: float, now: float) -> float:
        """Seconds that are left, without jumps."""
        if self._eta is not None:
            before, at = self._eta
            left = (max(0.0, before - (now - at)) + left) / 2.0
        self._eta = (left, now)
        return left

    def _pace(self) -> float | None:
        """Seconds of a pass; None where none was clocked.

        First visits count only where there is nothing else, and of these the fastest.
        """
        first: list[float] = []
        passes = spent = 0.0
        for kind in self._kinds.values():
            for price, seconds in kind.taken:
                if price.seconds >= price.passes * GUESSED_PACE:
                    continue  # it says more of what else it does
                beside = max(0.0, seconds - price.seconds)
                if kind.over == 1:
                    first.append(beside / price.passes)
                else:
                    passes, spent = passes + price.passes, spent + beside
        return spent / passes if passes else min((p for p in first if p > 0), default=None)

    def _to_come(self, name: str) -> list[Price]:
        """Visits that have not begun."""
        kind = self._kinds[name]
        running = sum(visit.kind == name for visit in self._stack)
        return kind.prices[kind.over + running :]

    def _left(self, pace: float, now: float) -> float:
        left = 0.0
        for visit in self._stack:
            kind = self._kind(visit.kind)
            left += visit.rest(kind.expected(kind.price, pace), now)
        for name in self._planned:
            kind = self._kinds[name]
            left += sum(kind.expected(price, pace) for price in self._to_come(name))
        return left

    def _share_done(self, pace: float, now: float) -> float:
        """The part of the priced work that is done, whatever it took."""
        done = whole = 0.0
        for name in self._planned:
            kind = self._kinds[name]
            prices = [price.at(pace) for price in kind.prices]
            done, whole = done + sum(prices[: kind.over]), whole + sum(prices)
        for visit in self._stack:
            kind = self._kind(visit.kind)
            if kind.over < len(kind.prices):
                priced, spent = kind.price.at(pace), visit.seconds(now)
                rest = visit.rest(kind.expected(kind.price, pace), now)
                done += priced * (spent / (spent + rest) if spent + rest > 0 else 0.0)
        return done / whole if whole > 0 else 1.0
