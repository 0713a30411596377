"""Jobs that are put off: the service could not work on them, through no fault of their own.

A full disk, a database that stays locked: the attempt does not count as lost, and the job waits
longer each time before it is tried again. It is held back while a clock stands between `held_from`
and `not_before`, which is as long before the moment at which it was put off as `not_before` is
after it. A clock that was set back by more than the wait therefore holds nothing back, and no step
makes a wait longer than twice what it should be.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

import sqlalchemy as sa

from store.settings import Settings
from store.tables import Job


@dataclass(frozen=True)
class Backoff:
    """How long a job waits after it was put off for the n-th time in a row, in seconds.

    Args:
        first: The first wait; each further one is twice as long.
        longest: The longest of them.
        total: All waits in a row together; what would take longer is given up.
    """

    first: float
    longest: float
    total: float

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """That of the settings."""
        return cls(
            settings.put_off_first_seconds,
            settings.put_off_longest_seconds,
            settings.put_off_total_seconds,
        )

    def wait(self, number: int) -> float:
        """The wait after a job was put off for the `number`-th time in a row, from 1."""
        # The exponent is bounded: 2**number of a counter that went wrong has no end.
        return min(self.longest, self.first * 2.0 ** min(number - 1, 64))

    def waited(self, number: int) -> float:
        """The first `number` waits together."""
        total = 0.0
        for n in range(1, number + 1):
            if (wait := self.wait(n)) >= self.longest:
                return total + (number - n + 1) * self.longest
            total += wait
        return total

    def given_up(self, number: int) -> bool:
        """Whether a job that is put off for the `number`-th time in a row is given up."""
        return self.waited(number) > self.total


def hold(job: Job, wait: float, now: datetime) -> None:
    """Keeps a job from being claimed for `wait` seconds."""
    job.not_before = now + timedelta(seconds=wait)
    job.held_from = now - timedelta(seconds=wait)


def free(now: datetime) -> sa.ColumnElement[bool]:
    """SQL: nothing holds the job back at `now`."""
    return sa.or_(Job.not_before.is_(None), Job.not_before <= now, Job.held_from > now)
