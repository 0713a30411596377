"""What the command line shows while a job runs: one bar over all of it, and no line cut."""

import io
import re

import pytest
from rich.console import Console

from pruning.events import (
    AliveEvent,
    MetricEvent,
    PhaseEvent,
    ProgressEvent,
    StateEvent,
    WaitingEvent,
)
from secateur.cli.bar import Bar, clock, told
from secateur.cli.follow import SILENCE, JobDisplay


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def drawn(bar: Bar, width: int) -> list[str]:
    text = io.StringIO()
    Console(file=text, width=width, force_terminal=True, color_system=None).print(bar)
    return [line.rstrip() for line in text.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("fraction", "says"),
    [(0.0, "0 %"), (0.29, "29 %"), (0.996, "99 %"), (0.99999, "99 %"), (1.0, "100 %")],
)
def test_the_share_is_never_told_before_it_is_reached(fraction: float, says: str) -> None:
    bar = Bar(Clock())
    bar.hear(fraction, 1.0, None, news=True)
    assert f": {says}," in bar.words
    assert re.search(rf"(?<!\d){says}", drawn(bar, 100)[0])


@pytest.mark.parametrize("width", [60, 100])
def test_phase_share_and_times_fit_one_line_and_the_rest_is_wrapped_below(width: int) -> None:
    bar = Bar(Clock())
    bar.text = "Verifying the files"
    bar.note = "round 10 of 20 recovered: " + ", ".join(f"metric-{i} 12.34 %" for i in range(9))
    bar.hear(0.42, 3725.0, 5400.0, news=True)
    first, *below = drawn(bar, width)
    assert max(map(len, (first, *below))) <= width
    assert "Verifying the files" in first
    assert " 42 %" in first
    assert "1:02:05" in first
    assert first.endswith("1:30:00 left")
    assert "…" not in "".join((first, *below))
    assert " ".join(" ".join(below).split()) == bar.note


def test_it_moves_on_between_events_and_never_goes_back() -> None:
    now = Clock()
    bar = Bar(now)
    assert bar.fraction is None
    bar.hear(0.2, 10.0, 40.0, news=True)
    seen = []
    for _ in range(20):
        now.now += 1.0
        seen.append(bar.fraction)
    assert seen == sorted(set(seen))
    assert bar.elapsed == 30.0
    assert bar.eta == 20.0
    high = bar.fraction
    bar.hear(0.3, 30.0, 60.0, news=True)
    assert bar.fraction == high
    bar.hear(0.9, 31.0, None, news=False)
    assert bar.fraction == 0.9
    bar.restart()
    assert bar.fraction is None


def test_outside_a_terminal_a_line_tells_how_far_the_job_is_every_few_seconds() -> None:
    now, text = Clock(), io.StringIO()
    whole = {"fraction": 0.25, "elapsed_seconds": 8.0, "eta_seconds": 24.0}
    with JobDisplay(Console(file=text, width=100), now=now) as display:
        display.handle(StateEvent(state="queued"))
        for _ in range(30):
            now.now += 1.0
            display.handle(WaitingEvent(ahead=2, running=1, waited_seconds=now.now))
        display.handle(PhaseEvent(phase="scoring"))
        for step in range(30):
            now.now += 1.0
            display.handle(ProgressEvent(phase="scoring", done=step, total=30, **whole))
        for _ in range(10):
            now.now += 1.0
            display.handle(AliveEvent(phase="scoring", quiet_seconds=9.0, **whole))
    lines = text.getvalue().splitlines()
    waits = [line for line in lines if "2 jobs ahead, 1 running" in line]
    assert len(waits) == 30 // SILENCE
    told_of = [line for line in lines if re.search(r"Scoring weights: \d+ %, .* gone", line)]
    assert len(told_of) == 40 // SILENCE
    assert max(map(len, lines)) <= 60
    shares = [int(found.group(1)) for line in lines if (found := re.search(r"(\d+) %", line))]
    assert shares == sorted(shares)


def test_nothing_left_is_never_said_while_it_waits() -> None:
    now = Clock()
    bar = Bar(now)
    bar.hear(0.6, 10.0, 5.0, news=True)
    now.now = 20.0
    assert bar.eta == 6.0
    bar.hear(0.7, 31.0, 12.0, news=False)
    assert (bar.elapsed, bar.eta) == (31.0, 12.0)
    assert bar.fraction is not None
    assert 0.7 <= bar.fraction < 0.85


def test_outside_a_terminal_a_long_silence_is_broken() -> None:
    now, text = Clock(), io.StringIO()
    with JobDisplay(Console(file=text, width=100), now=now) as display:
        display.handle(PhaseEvent(phase="scoring"))
        display.handle(
            ProgressEvent(phase="scoring", done=0, total=1, fraction=0.2, eta_seconds=40.0)
        )
        for _ in range(20):
            now.now += 1.0
            display.tick()
    assert len([line for line in text.getvalue().splitlines() if "left" in line]) == 20 // SILENCE


def test_numbers_stay_below_the_bar_until_others_come() -> None:
    text = io.StringIO()
    console = Console(file=text, width=60, force_terminal=True, color_system=None)
    with JobDisplay(console) as display:
        display.handle(PhaseEvent(phase="evaluating"))
        display.handle(MetricEvent(name="accuracy", stage="dense", value=0.5))
        display.handle(PhaseEvent(phase="scoring"))
        assert display._bar.note == "dense: accuracy 50.0 % (evaluation)"
        assert display._bar.text == "Scoring weights"


def test_times_are_read_as_on_a_clock() -> None:
    assert [clock(s) for s in (0.2, 59.6, 65, 3700)] == ["0:00", "1:00", "1:05", "1:01:40"]
    assert told(0.5, 61.0, None) == "50 %, 1:01 gone"


def test_a_job_that_was_put_off_says_why_and_for_how_long() -> None:
    now, text = Clock(), io.StringIO()
    with JobDisplay(Console(file=text, width=120), now=now) as display:
        now.now += SILENCE + 1
        full = {"code": "storage_full", "message": "The disk is full."}
        event = WaitingEvent(ahead=0, running=0, waited_seconds=3.0, put_off=full)
        event.retry_seconds = 7.0
        display.handle(event)
    assert "Put off, tried again in 0:07: The disk is full." in text.getvalue()
