"""One bar over a whole job: its phase, how much is done, what is gone and what is left."""

import math
import time
from collections.abc import Callable

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from pruning.workload import drifted, remaining

NARROW = 72
"""Columns below which the bar says less in words."""


def clock(seconds: float) -> str:
    """65 as 1:05, 3700 as 1:01:40."""
    whole = int(seconds + 0.5)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def percent(fraction: float) -> str:
    """Of the whole job, in full per cent that are done: 99.6 % is not 100 %."""
    # .29 * 100 is 28.999999999999996.
    return f"{math.floor(100 * fraction + 1e-9)} %"


def told(fraction: float, elapsed: float | None, eta: float | None) -> str:
    """The same in a few words.

    Args:
        fraction: Of the whole job.
        elapsed: Seconds since it began.
        eta: Seconds that are left, as estimated.
    """
    parts = [
        percent(fraction),
        "" if elapsed is None else f"{clock(elapsed)} gone",
        "" if eta is None else f"about {clock(eta)} left",
    ]
    return ", ".join(filter(None, parts))


class Bar:
    """The bar, drawn anew as often as it is rendered.

    Between two events it moves on at the pace that the last one told of, and it never goes back.

    Args:
        now: A clock.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.text = self.note = ""
        self._now = now
        self._began = self._heard_at = self._told_at = now()
        self._heard: float | None = None
        self._pace: float | None = None
        self._elapsed: float | None = None
        self._eta: float | None = None
        self._shown = 0.0
        self._spinner = Spinner("dots")

    def restart(self) -> None:
        """From the beginning: another attempt."""
        self._heard = self._pace = self._elapsed = self._eta = None
        self._shown, self._began = 0.0, self._now()

    def hear(
        self, fraction: float | None, elapsed: float | None, eta: float | None, *, news: bool
    ) -> None:
        """Takes up what an event says of the whole job.

        Args:
            fraction: Of it; None where that is not known.
            elapsed: Seconds since it began.
            eta: Seconds that are left.
            news: Whether the job got on, and is not just still there.
        """
        if fraction is None:
            return
        self._shown = max(self._shown, fraction)
        self._elapsed, self._eta, self._told_at = elapsed, eta, self._now()
        if news or self._heard is None:
            self._heard, self._pace, self._heard_at = fraction, eta, self._told_at

    @property
    def fraction(self) -> float | None:
        """Of the whole job; None while nobody said."""
        if self._heard is None:
            return None
        since = self._now() - self._heard_at
        self._shown = max(self._shown, drifted(self._heard, self._pace, since))
        return self._shown

    @property
    def elapsed(self) -> float:
        """Seconds since the job began, or since the bar did."""
        return self._now() - self._began if self._elapsed is None else self._elapsed + self._since

    @property
    def eta(self) -> float | None:
        """Seconds that are left; None while that can't be told."""
        return None if self._eta is None else remaining(self._eta, self._since)

    @property
    def words(self) -> str:
        """What it says, as one line."""
        fraction = self.fraction
        known = "" if fraction is None else f": {told(fraction, self.elapsed, self.eta)}"
        return f"{self.text}{known}"

    @property
    def _since(self) -> float:
        return self._now() - self._told_at

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """One line, and below it what is said of the phase, wrapped."""
        fraction, eta = self.fraction, self.eta
        about = "" if options.max_width < NARROW else "about "
        left = "" if eta is None or fraction is None else f"{about}{clock(eta)} left"
        known = fraction is not None
        grid = Table.grid(padding=(0, 1), expand=True)
        for ratio in (None, None, 1, None, None, None):
            grid.add_column(ratio=ratio, no_wrap=True)
        grid.add_row(
            self._spinner,
            Text(self.text),
            ProgressBar(
                total=1.0, completed=fraction or 0.0, pulse=not known, animation_time=self._now()
            ),
            Text(f"{percent(fraction):>5}" if fraction is not None else ""),
            Text(clock(self.elapsed)),
            Text(left),
        )
        yield grid
        if self.note:
            yield Text(f"  {self.note}", style="dim")
