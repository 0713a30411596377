"""How far uploads, downloads and jobs are, on stderr: bars in a terminal, plain lines elsewhere."""

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
from rich.text import Text

from pruning.events import (
    AliveEvent,
    Event,
    MetricEvent,
    PhaseEvent,
    ProgressEvent,
    StateEvent,
    WaitingEvent,
    WarningEvent,
)
from pruning.report.numbers import metric, several
from pruning.spec import OneShot, Rounds, parse_spec
from secateur._files import Reporter
from secateur.cli.bar import Bar, clock
from secateur.errors import SecateurError
from secateur.resources import OtherEvent

_DESCRIPTIONS = {
    "loading": "Loading",
    "checking": "Checking",
    "evaluating": "Evaluating",
    "scoring": "Scoring weights",
    "pruning": "Pruning",
    "recovering": "Recovering",
    "verifying": "Verifying the files",
    "exporting": "Exporting",
}


class Uploading:
    """Byte counts of files on their way; only shown in a terminal."""

    def __init__(self, console: Console, verb: str = "Uploading") -> None:
        self._verb = verb
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            DownloadColumn(binary_units=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def reporter(self, file: Path | str) -> Reporter:
        """What a transfer reports to."""
        task = self._progress.add_task(f"{self._verb} {Path(file).name}", total=None)

        def report(done: int, total: int | None) -> None:
            self._progress.update(task, completed=done, total=total)

        return report


SILENCE = 4.0
"""Seconds after which, outside a terminal, a line says how far the job is."""


class JobDisplay:
    """Shows a job's events.

    In a terminal there is one bar over the whole job, and every warning stays above it. Elsewhere
    each phase (once), warning and state is a line of its own, and so is how far the job is, every
    few seconds in which nothing else was said.

    Args:
        console: Where.
        spec: The job's, which tells how many steps there will be.
        now: A clock.
    """

    def __init__(
        self,
        console: Console,
        spec: Mapping[str, Any] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._step = _steps(spec)
        self._live = console.is_terminal
        self._bar = Bar(now)
        self._now, self._said_at = now, now()
        self._shown = Live(
            self._bar, console=console, transient=True, refresh_per_second=4, auto_refresh=True
        )
        self._warned: set[str] = set()
        self._phases: set[str] = set()
        self._stage = ""
        self._metrics = ""
        self._unprinted = False
        self._last = ""

    def __enter__(self) -> Self:
        if self._live:
            self._shown.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._flush()
        if self._live:
            self._shown.stop()

    def say(self, text: str) -> None:
        """The live line, or a line."""
        self._bar.text = text
        if not self._live and text != self._last:
            self._print(text)
        self._last = text

    def handle(self, event: Event | OtherEvent) -> None:
        """Shows one event."""
        if not isinstance(event, MetricEvent):
            self._flush()
        if isinstance(event, StateEvent):
            self._state(event)
        elif isinstance(event, PhaseEvent):
            text = _description(event.phase)
            if self._live or event.phase not in self._phases:
                self.say(text)
            self._bar.text, self._bar.note = text, self._metrics
            self._phases.add(event.phase)
        elif isinstance(event, ProgressEvent):
            self._advance(event)
        elif isinstance(event, AliveEvent):
            self._alive(event)
        elif isinstance(event, WaitingEvent):
            self._wait(event)
        elif isinstance(event, MetricEvent):
            self._metric(event)
        elif isinstance(event, WarningEvent):
            self._warn(event)

    def _state(self, event: StateEvent) -> None:
        if event.state == "queued":
            # The second time, an attempt was lost.
            self._bar.restart()
            self._bar.note = ""
            self.say("Waiting for a worker" if event.attempt < 1 else "Waiting to be resumed")
        elif event.state == "running" and event.attempt > 1:
            self.say(f"Attempt {event.attempt}")

    def _metric(self, event: MetricEvent) -> None:
        if event.stage != self._stage:
            self._flush()
            self._stage, self._metrics = event.stage, f"{self._counted(event.stage)}:"
        comma = "" if self._metrics.endswith(":") else ","
        self._metrics += f"{comma} {event.name} {_value(event.name, event.value)}"
        self._metrics += " (calibration)" if event.name == "loss" else " (evaluation)"
        self._unprinted = True
        self._bar.note = self._metrics

    def _flush(self) -> None:
        """Outside a terminal, the numbers of one stage stand in one line."""
        if self._unprinted and not self._live:
            self._print(f"  {self._metrics}")
        self._unprinted = False

    def _advance(self, event: ProgressEvent) -> None:
        self._hear(event)
        message = self._counted(event.message)
        known = bool(message) and self._metrics.startswith(message)
        self._bar.note = "; ".join(filter(None, ["" if known else message, self._metrics]))
        self._speak_up()

    def _alive(self, event: AliveEvent) -> None:
        self._hear(event, news=False)
        self._speak_up()

    def _wait(self, event: WaitingEvent) -> None:
        if event.put_off is not None and event.retry_seconds is not None:
            again = f"tried again in {clock(event.retry_seconds)}"
            self._bar.note = f"put off, {again}"
            self._speak_up(f"Put off, {again}: {event.put_off.get('message', 'no reason given')}")
            return
        busy = f"{several(event.ahead, 'job')} ahead, {event.running} running"
        self._bar.note = busy
        self._speak_up(f"Waiting for a worker: {busy}, {clock(event.waited_seconds)} so far")

    def _hear(self, event: ProgressEvent | AliveEvent, *, news: bool = True) -> None:
        self._bar.hear(event.fraction, event.elapsed_seconds, event.eta_seconds, news=news)

    def tick(self) -> None:
        """Outside a terminal, says how far the job is, if nothing was said for a while."""
        self._speak_up()

    def _speak_up(self, text: str = "") -> None:
        """Outside a terminal, a line after some silence."""
        if self._live or self._now() - self._said_at < SILENCE:
            return
        if text or self._bar.fraction is not None:
            self._print(f"  {text or self._bar.words}")

    def _print(self, text: str) -> None:
        self._said_at = self._now()
        self._console.print(Text(text), soft_wrap=True)

    def _counted(self, label: str) -> str:
        """The job counts in rounds, whatever the schedule calls them."""
        return re.sub(r"\bround (\d+)", self._step, label)

    def _warn(self, event: WarningEvent) -> None:
        text = f"{event.where}: {event.message}" if event.where else event.message
        if text not in self._warned:
            self._warned.add(text)
            shown = Text.assemble(("warning ", "yellow"), text)
            self._console.print(shown, soft_wrap=not self._live)


def _description(phase: str) -> str:
    return _DESCRIPTIONS.get(phase, phase.capitalize())


def _steps(spec: Mapping[str, Any] | None) -> str:
    """What `round N` is replaced by, as a template of `re`."""
    try:
        schedule = None if spec is None else parse_spec(dict(spec)).schedule_in_full
    except SecateurError:  # of a newer service
        schedule = None
    if isinstance(schedule, OneShot):
        return rf"step \1 of {schedule.recomputations}"
    if isinstance(schedule, Rounds):
        return rf"round \1 of {schedule.rounds}"
    return r"round \1"


def _value(name: str, value: float) -> str:
    return metric(name.rpartition(".")[2], value)
