"""Tells the outside how a job goes on, and clocks its phases."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pruning.events import (
    CheckpointEvent,
    Event,
    MetricEvent,
    Phase,
    PhaseEvent,
    ProgressEvent,
    WarningEvent,
)
from pruning.workload import Stage, Workload

INTERVAL = 1.0
"""Seconds between two progress events, at least."""


class Narrator:
    """Sends events of one job, progress at most once a second and as soon as a fraction is known.

    Args:
        emit: Receives the events.
        clock: Seconds, for the estimate of what is left.

    Attributes:
        timings: Seconds spent in each phase so far; a dotted name is a part of the phase before
            the dot.
    """

    def __init__(
        self,
        emit: Callable[[Event], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._emit = emit or (lambda event: None)
        self._phase: Phase | None = None
        self._since = time.monotonic()
        self._sent, self._placed = -INTERVAL, False
        self._about = self._run = ""
        self._work = Workload(clock)
        self.timings: dict[str, float] = {}

    def plan(self, stages: Iterable[Stage], before: float = 0.0) -> None:
        """What the job is expected to do, so that events can say how much of it is done.

        Args:
            stages: What comes next, before all that was planned earlier; the kind of a visit is a
                phase or a part of one, `<phase>.<part>`.
            before: Seconds that an earlier process spent on the job.
        """
        self._work.plan(stages)
        self._work.happened(before)

    def reach(self, stage: str, *, resumed: bool = False) -> None:
        """A stage begins, and what was planned before it is over or not needed.

        Args:
            stage: Its name.
            resumed: Whether an earlier process did all of it.
        """
        self._work.reach(stage, resumed=resumed)

    def finish(self) -> None:
        """The job is over: a last progress event, at 1, of its last phase."""
        self._work.finish()
        last = self._phase or "exporting"
        self.phase(None)
        self._emit(ProgressEvent(phase=last, done=1, total=1, **self._estimate()))

    def phase(self, phase: Phase | None) -> None:
        """A phase begins; None ends the running one.

        The running phase again says nothing and brings `timings` up to date.
        """
        now = time.monotonic()
        if self._phase is not None:
            spent = self.timings.get(self._phase, 0.0) + now - self._since
            self.timings[self._phase] = round(spent, 6)
        self._since, changed = now, phase != self._phase
        if changed and self._phase is not None:
            self._work.end()
        self._phase = phase
        if phase is not None and changed:
            self._work.begin(phase)
            self._emit(PhaseEvent(phase=phase))
            self._tell_unless_just_told(0, 0, self._about.removesuffix("; "))

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Clocks a part of the running phase, as `<phase>.<name>`."""
        key, since = f"{self._phase}.{name}", time.monotonic()
        self._work.begin(key)
        try:
            yield
        finally:
            self._work.end()
            spent = self.timings.get(key, 0.0) + time.monotonic() - since
            self.timings[key] = round(spent, 6)

    @contextmanager
    def about(self, message: str, done: float, total: float) -> Iterator[None]:
        """Several runs: says which one begins, and puts it in front of what is said of it."""
        self._about, self._run = f"{message}; ", f"{message.partition(' of ')[0]} "
        if self._phase is not None:
            self._sent = time.monotonic()
            self._tell(done, total, message)
        try:
            yield
        finally:
            self._about = self._run = ""

    def progress(
        self, done: float, total: float, message: str = "", *, whole: bool = False
    ) -> None:
        """`done` of `total` units of a loop; told of unless something was told just before.

        Args:
            done: Units that are done.
            total: Units of the loop.
            message: What the units are.
            whole: Whether the phase, or its running part, ends with the loop.
        """
        self._work.loop(done, total, whole=whole)
        self._tell_unless_just_told(done, total, f"{self._about}{message}")

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

    def _tell_unless_just_told(self, done: float, total: float, message: str) -> None:
        now = time.monotonic()
        first = self._work.planned and not self._placed  # so that a short job has a fraction too
        if self._phase is not None and (first or now - self._sent >= INTERVAL):
            self._sent = now
            self._tell(done, total, message)

    def _tell(self, done: float, total: float, message: str) -> None:
        assert self._phase is not None
        estimate = self._estimate()
        self._placed = bool(estimate)
        self._emit(
            ProgressEvent(phase=self._phase, done=done, total=total, message=message, **estimate)
        )

    def _estimate(self) -> dict[str, Any]:
        """The fields of an event that refer to the whole job."""
        found = self._work.estimate()
        if found is None:
            return {}
        eta = found.eta_seconds
        return {
            "fraction": round(found.fraction, 4),
            "elapsed_seconds": round(found.elapsed_seconds, 2),
            "eta_seconds": None if eta is None else round(eta, 2),
        }
