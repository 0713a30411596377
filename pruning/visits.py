"""What a piece of a job's work is priced at, what it took, and what the next one may take.

A visit is one piece of a kind ("scoring", "evaluating", "scoring.ladder", ...). Torch-free.
"""

from dataclasses import dataclass

OVERDUE = 0.3
"""What may remain of a visit that takes longer than expected, as a share of what it took."""

LEAST = 1e-3
"""Seconds that any visit takes."""

FADING = 0.75
"""How much a clocked visit counts beside the next one of its price."""


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
        return LEAST + self.passes * pace + self.seconds


def times(visits: float, passes: float = 0.0, seconds: float = 0.0) -> list[Price]:
    """So many visits of one price; a broken number of them is rounded."""
    return [Price(passes, seconds)] * round(visits)


class Loop:
    """Something that counts up to a known total, from where it was when it was first told of.

    Args:
        since: When it was told of first.
        first: Where it was then.
        total: Where it ends.
    """

    def __init__(self, since: float, first: float, total: float) -> None:
        self.since, self.first, self.done, self.total = since, first, first, total

    def left(self, now: float) -> float | None:
        """Seconds until its end; None where that is not known."""
        if self.done <= self.first or self.total <= 0:
            return None
        return (now - self.since) * (self.total - self.done) / (self.done - self.first)


class Visit:
    """A visit that has begun: the time in it, without that of visits inside it, and its loops.

    Args:
        kind: What it is one of.
        price: As planned.
        now: When it begins.
    """

    def __init__(self, kind: str, price: Price, now: float) -> None:
        self.kind, self.price = kind, price
        self._since, self._spent = now, 0.0
        self._running = True
        self._whole: Loop | None = None
        self._inner: Loop | None = None

    def seconds(self, now: float) -> float:
        """Spent in it so far."""
        return self._spent + (now - self._since if self._running else 0.0)

    def pause(self, now: float) -> None:
        """A visit inside it begins."""
        self._spent, self._running = self.seconds(now), False

    def resume(self, now: float) -> None:
        """That one is over."""
        self._since, self._running = now, True

    def loop(self, done: float, total: float, now: float, *, whole: bool) -> None:
        """How far a loop in it is; `whole`: the visit ends with it."""
        loop = self._whole if whole else self._inner
        if loop is None or total != loop.total or done < loop.done:
            # Not from the visit's beginning: the first unit also loads what the others need.
            loop = Loop(now, done, total)
            if whole:
                self._whole = loop
            else:
                self._inner = loop
        loop.done = done

    def projected(self, now: float) -> float | None:
        """Seconds of all of it, by the loop that it ends with; None where there is none."""
        left = None if self._whole is None else self._whole.left(now)
        return None if left is None else self.seconds(now) + left

    def rest(self, expected: float, now: float) -> float:
        """Seconds that are left, where a visit takes `expected`."""
        spent, projected = self.seconds(now), self.projected(now)
        if projected is not None:
            return projected - spent
        inner = self._inner.left(now) if self._inner is not None else None
        return max(expected - spent, inner or 0.0, OVERDUE * spent)


@dataclass
class _Clocked:
    """Visits of one price that are over, the later ones with more weight."""

    visits: float = 0.0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.visits = FADING * self.visits + 1.0
        self.seconds = FADING * self.seconds + seconds


class Kind:
    """What visits of one kind took.

    One that costs as much as others that are over takes as long as these, however wrong their price
    was. From one price to another goes what all of them took by what they were priced at: sums of
    both, so that a visit of next to no price and some overhead decides nothing.
    """

    def __init__(self) -> None:
        self.over = 0
        self._clocked: dict[Price, _Clocked] = {}

    def took(self, price: Price, seconds: float) -> None:
        """A visit is over. The first also loads what it needs, so the second replaces it."""
        if self.over == 1 and price in self._clocked:
            self._clocked.clear()
        self._clocked.setdefault(price, _Clocked()).add(seconds)
        self.over += 1

    def expected(self, price: Price, pace: float) -> float:
        """Seconds of a visit of a price.

        Args:
            price: As planned.
            pace: Seconds of a pass.
        """
        same = self._clocked.get(price)
        if same is not None and self.over > 1:
            return same.seconds / same.visits
        priced = price.at(pace)
        if not self.over:
            return priced
        paid = sum(found.visits * at.at(pace) for at, found in self._clocked.items())
        factor = sum(found.seconds for found in self._clocked.values()) / paid
        return priced * (min(factor, factor**0.5) if self.over == 1 else factor)

    def by_pass(self, guessed: float) -> tuple[float, float]:
        """Passes of the visits in which these count most, and the seconds they took.

        Args:
            guessed: Seconds of a pass, to tell which those are.
        """
        passes = seconds = 0.0
        for price, found in self._clocked.items():
            if price.seconds < price.passes * guessed:
                passes += found.visits * price.passes
                seconds += max(0.0, found.seconds - found.visits * price.seconds)
        return passes, seconds
