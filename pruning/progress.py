"""Tells the outside how a job goes on, and clocks its phases."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pruning.events import (
    CheckpointEvent,
    Event,
    MetricEvent,
    Phase,
    PhaseEvent,
    ProgressEvent,
    WarningEvent,
)

INTERVAL = 1.0
"""Seconds between two progress events, at least."""


class Narrator:
    """Sends events of one job, progress at most once a second.

    Attributes:
        timings: Seconds spent in each phase so far; a dotted name is a part of the phase before
            the dot.
    """

    def __init__(self, emit: Callable[[Event], None] | None = None) -> None:
        self._emit = emit or (lambda event: None)
        self._phase: Phase | None = None
        self._since = time.monotonic()
        self._sent = -INTERVAL
        self._about = self._run = ""
        self.timings: dict[str, float] = {}

    def phase(self, phase: Phase | None) -> None:
        """A phase begins; None ends the running one.

        The running phase again says nothing and brings `timings` up to date.
        """
        now = time.monotonic()
        if self._phase is not None:
            spent = self.timings.get(self._phase, 0.0) + now - self._since
            self.timings[self._phase] = round(spent, 6)
        self._since, changed = now, phase != self._phase
        self._phase = phase
        if phase is not None and changed:
            self._emit(PhaseEvent(phase=phase))

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Clocks a part of the running phase, as `<phase>.<name>`."""
        key, since = f"{self._phase}.{name}", time.monotonic()
        try:
            yield
        finally:
            spent = self.timings.get(key, 0.0) + time.monotonic() - since
            self.timings[key] = round(spent, 6)

    @contextmanager
    def about(self, message: str, done: float, total: float) -> Iterator[None]:
        """Several runs: says which one begins, and puts it in front of what is said of it."""
        self._about, self._run = f"{message}; ", f"{message.partition(' of ')[0]} "
        if self._phase is not None:
            self._sent = time.monotonic()
            self._emit(ProgressEvent(phase=self._phase, done=done, total=total, message=message))
        try:
            yield
        finally:
            self._about = self._run = ""

    def progress(self, done: float, total: float, message: str = "") -> None:
        """`done` of `total` units of the running phase; dropped if the last one was just sent."""
        now = time.monotonic()
        if self._phase is None or now - self._sent < INTERVAL:
            return
        self._sent = now
        message = f"{self._about}{message}"
        self._emit(ProgressEvent(phase=self._phase, done=done, total=total, message=message))

    def metric(self, name: str, stage: str, value: float) -> None:
        """A measured number; of several runs, the stage says which one."""
        stage = stage if stage == "dense" else f"{self._run}{stage}"
        self._emit(MetricEvent(name=name, stage=stage, value=value))

    def warning(self, code: str, message: str, where: str | None = None) -> None:
        """Something the user should know."""
        self._emit(WarningEvent(code=code, message=message, where=where))

    def checkpoint(self, path: Path) -> None:
        """A file from which a later attempt can go on."""
        self._emit(CheckpointEvent(name=path.name, bytes=path.stat().st_size))
