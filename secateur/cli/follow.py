"""How far uploads, downloads and jobs are, on stderr: bars in a terminal, plain lines elsewhere."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column
from rich.text import Text

from pruning.events import (
    Event,
    MetricEvent,
    PhaseEvent,
    ProgressEvent,
    StateEvent,
    WarningEvent,
)
from pruning.report.numbers import metric
from pruning.spec import OneShot, Rounds, parse_spec
from secateur._files import Reporter
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


class JobDisplay:
    """Shows a job's events.

    In a terminal there is one live line, the running phase, and every warning stays above it.
    Elsewhere each phase (once), warning and state is a line of its own.

    Args:
        console: Where.
        spec: The job's, which tells how many steps there will be.
    """

    def __init__(self, console: Console, spec: Mapping[str, Any] | None = None) -> None:
        self._console = console
        self._step = _steps(spec)
        self._live = console.is_terminal
        self._progress = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description:<20}"),
            BarColumn(bar_width=12),
            TimeElapsedColumn(),
            # What is too long for the line is cut here, and not from the phase and the bar.
            TextColumn(
                "{task.fields[note]}",
                style="dim",
                table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
            ),
            expand=True,
            console=console,
            transient=True,
            disable=not self._live,
        )
        self._task: TaskID | None = None
        self._warned: set[str] = set()
        self._phases: set[str] = set()
        self._stage = ""
        self._metrics = ""
        self._unprinted = False
        self._last = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._flush()
        self._progress.stop()

    def say(self, text: str) -> None:
        """The live line, or a line."""
        if self._live:
            self._show(text, note="")
        elif text != self._last:
            self._console.print(Text(text), soft_wrap=True)
        self._last = text

    def handle(self, event: Event | OtherEvent) -> None:
        """Shows one event."""
        if not isinstance(event, MetricEvent):
            self._flush()
        if isinstance(event, StateEvent):
            self._state(event)
        elif isinstance(event, PhaseEvent):
            if self._live or event.phase not in self._phases:
                self.say(_DESCRIPTIONS.get(event.phase, event.phase.capitalize()))
            self._phases.add(event.phase)
        elif isinstance(event, ProgressEvent):
            self._advance(event)
        elif isinstance(event, MetricEvent):
            self._metric(event)
        elif isinstance(event, WarningEvent):
            self._warn(event)

    def _state(self, event: StateEvent) -> None:
        if event.state == "queued":
            # The second time, an attempt was lost.
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
        if self._live and self._task is not None:
            self._progress.update(self._task, note=self._metrics)

    def _flush(self) -> None:
        """Outside a terminal, the numbers of one stage stand in one line."""
        if self._unprinted and not self._live:
            self._console.print(Text(f"  {self._metrics}"), soft_wrap=True)
        self._unprinted = False

    def _advance(self, event: ProgressEvent) -> None:
        if self._task is None or not self._live:
            return
        total = event.total if event.total > 0 else None
        message = self._counted(event.message)
        known = bool(message) and self._metrics.startswith(message)
        note = "; ".join(filter(None, ["" if known else message, self._metrics]))
        self._progress.update(self._task, completed=event.done, total=total, note=note)

    def _counted(self, label: str) -> str:
        """The job counts in rounds, whatever the schedule calls them."""
        return re.sub(r"\bround (\d+)", self._step, label)

    def _warn(self, event: WarningEvent) -> None:
        text = f"{event.where}: {event.message}" if event.where else event.message
        if text not in self._warned:
            self._warned.add(text)
            shown = Text.assemble(("warning ", "yellow"), text)
            self._console.print(shown, soft_wrap=not self._live)

    def _show(self, text: str, note: str) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(text, total=None, note=note or self._metrics)


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
