"""How much of a job is done, and how long the rest may take, while it runs. Torch-free.

A job is planned as stages, one after the other, each with the visits that it will make and their
prices. What a visit takes is learned from those that are over; one of a kind that was not visited
yet is taken at its price, at the pace of the others. A loop inside a visit says how far it is. A
stage that begins takes all before it off the plan: a search that ends early, or a round that is not
needed, is not waited for.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import exp
from types import MappingProxyType

from pruning.visits import OVERDUE, Kind, Price, Visit

UNFINISHED = 0.999
"""The largest fraction of a job that is not over."""

GUESSED_PACE = 5e-6
"""Seconds for one sample through the network until one was measured."""

AHEAD, UNSURE = 2.0, 0.02
"""How far time may run ahead of priced work: a fraction is at most so many times the share of the
work, and a little more. A first estimate that was far too short can't be taken back."""


@dataclass(frozen=True)
class Stage:
    """A part of a job that is known by name.

    Args:
        name: Unique within the job.
        visits: The price of each visit, by kind.
    """

    name: str
    visits: Mapping[str, Sequence[Price]]


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


def remaining(eta_seconds: float, seconds: float) -> float:
    """What is left of an estimate some time after it was heard of; never nothing.

    Args:
        eta_seconds: As heard last.
        seconds: Since then.
    """
    return max(eta_seconds - seconds, OVERDUE * seconds)


class Workload:
    """What is planned, what is done, and what that says of the rest.

    Args:
        clock: Seconds.

    Attributes:
        planned: Whether any stage was.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._kinds: dict[str, Kind] = {}
        self._ahead: deque[Stage] = deque()
        self._here: dict[str, deque[Price]] = {}
        self._last: dict[str, Price] = {}
        self._over: list[tuple[str, Price]] = []
        self._before: list[tuple[str, Price]] = []
        self._stack: list[Visit] = []
        self._fraction = 0.0
        self._eta: tuple[float, float] | None = None
        self.planned = self._finished = False

    def plan(self, stages: Iterable[Stage]) -> None:
        """Takes up stages, which come before those that were planned earlier."""
        self._ahead.extendleft(reversed(list(stages)))
        self.planned = True

    def reach(self, name: str, *, resumed: bool = False) -> None:
        """A stage begins, and what was to come before it does not any more.

        One that nobody planned changes nothing; its visits count like the last ones of their kind.

        Args:
            name: Of the stage.
            resumed: Whether an earlier process did all of it, and what comes before it: that
                counts as done.
        """
        at = next((i for i, stage in enumerate(self._ahead) if stage.name == name), None)
        if at is None:
            return
        passed = list(_visits(self._here))
        for _ in range(at):
            passed += _visits(self._ahead.popleft().visits)
        stage = self._ahead.popleft()
        self._here = {kind: deque(prices) for kind, prices in stage.visits.items()}
        if resumed:
            self._before += [*passed, *_visits(self._here)]
            self._here = {}
        if passed or resumed:
            self._eta = None

    def happened(self, seconds: float) -> None:
        """Counts time that an earlier process spent on the job."""
        self._began -= seconds

    def begin(self, kind: str) -> None:
        """A visit begins, inside the running one if there is one."""
        now = self._clock()
        if self._stack:
            self._stack[-1].pause(now)
        planned = self._here.get(kind)
        price = planned.popleft() if planned else self._last.get(kind, Price())
        self._last[kind] = price
        self._stack.append(Visit(kind, price, now))

    def end(self) -> None:
        """The running visit is over."""
        if not self._stack:
            return
        now = self._clock()
        visit = self._stack.pop()
        self._kind(visit.kind).took(visit.price, visit.seconds(now))
        self._over.append((visit.kind, visit.price))
        if self._stack:
            self._stack[-1].resume(now)

    def loop(self, done: float, total: float, *, whole: bool) -> None:
        """How far a loop of the running visit is; `whole`: the visit ends with it."""
        if self._stack:
            self._stack[-1].loop(done, total, self._clock(), whole=whole)

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
        if not self.planned:
            return None
        measured = self._pace()
        pace = GUESSED_PACE if measured is None else measured
        ahead = list(self._to_come())
        left = self._expected(ahead, pace, self._projected(now))
        left += sum(v.rest(self._kind(v.kind).expected(v.price, pace), now) for v in self._stack)
        gone = elapsed + self._expected(self._before, pace)
        fraction = min(gone / (gone + left) if left > 0 else UNFINISHED, UNFINISHED)
        fraction = min(fraction, AHEAD * self._share_done(ahead, pace, now) + UNSURE)
        self._fraction = max(self._fraction, fraction)
        unknown = measured is None and any(price.passes for _, price in ahead)
        return Estimate(self._fraction, elapsed, None if unknown else self._smoothed(left, now))

    def _kind(self, name: str) -> Kind:
        return self._kinds.setdefault(name, Kind())

    def _expected(
        self,
        visits: Iterable[tuple[str, Price]],
        pace: float,
        projected: Mapping[tuple[str, Price], float] = MappingProxyType({}),
    ) -> float:
        """Seconds of visits, by what others took or are about to take."""
        return sum(
            projected.get((kind, price)) or self._kind(kind).expected(price, pace)
            for kind, price in visits
        )

    def _projected(self, now: float) -> dict[tuple[str, Price], float]:
        """What the first visits of their kinds, which still run, will take."""
        running = {(v.kind, v.price): v.projected(now) for v in self._stack}
        return {
            (kind, price): seconds
            for (kind, price), seconds in running.items()
            if seconds is not None and not self._kind(kind).over
        }

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
            counted, seconds = kind.by_pass(GUESSED_PACE)
            if counted and kind.over == 1:
                first.append(seconds / counted)
            else:
                passes, spent = passes + counted, spent + seconds
        return spent / passes if passes else min((p for p in first if p > 0), default=None)

    def _to_come(self) -> Iterator[tuple[str, Price]]:
        """Visits that have not begun."""
        yield from _visits(self._here)
        for stage in self._ahead:
            yield from _visits(stage.visits)

    def _share_done(self, ahead: Iterable[tuple[str, Price]], pace: float, now: float) -> float:
        """The part of the priced work that is done, whatever it took."""
        done = sum(price.at(pace) for _, price in (*self._over, *self._before))
        whole = done + sum(price.at(pace) for _, price in ahead)
        for visit in self._stack:
            priced, spent = visit.price.at(pace), visit.seconds(now)
            rest = visit.rest(self._kind(visit.kind).expected(visit.price, pace), now)
            done += priced * (spent / (spent + rest) if spent + rest > 0 else 0.0)
            whole += priced
        return done / whole if whole > 0 else 1.0


def _visits(visits: Mapping[str, Iterable[Price]]) -> Iterator[tuple[str, Price]]:
    return ((kind, price) for kind, prices in visits.items() for price in prices)
