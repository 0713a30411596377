"""Wall clocks are set while jobs run: nobody loses a job or the lead by that."""

import os
import signal
import time
from pathlib import Path

import pytest
from bench import Bench, until

from store.tables import Leader
from tests.faults.stepped import set_clock

LONG = os.environ.get("SECATEUR_FAULTS") == "long"
STEPS = (120, -120, 3600, -3600) if LONG else (3600, -3600)


@pytest.fixture
def clock(service: Bench) -> Path:
    return service.folder / "clock"


def stepped(service: Bench, clock: Path) -> None:
    """Control and worker, on a clock that the test sets."""
    service.start("tests.faults.stepped", str(clock), "worker.control")
    options = "--pool prefork --concurrency 1 --loglevel INFO --without-mingle --without-gossip"
    service.start(
        "tests.faults.stepped", str(clock), "celery", "-A", "bench_app", "worker",
        *options.split(), "-Q", "secateur.check,secateur.cpu",
    )  # fmt: skip


def beats(service: Bench, job: str, more: int) -> None:
    """Waits until the job's holder has shown so many times that it lives."""
    first = service.job(job).beat
    until(lambda: service.job(job).beat >= first + more, 20, "beats")


def test_clocks_that_are_set_cost_no_attempt_and_delay_nothing(service: Bench, clock: Path):
    stepped(service, clock)
    go = service.folder / "go"
    job = service.submit("wait_for_file", path=str(go))
    until(lambda: service.progress(job), 60)
    lead = until(lambda: service.rows(Leader), 5)[0].holder
    for seconds in STEPS:
        set_clock(clock, seconds)
        # Longer than a lease and a lead, in which both had to be renewed.
        beats(service, job, 8)
    behind = service.submit("succeed")
    set_clock(clock, 0)
    begun = time.monotonic()
    go.touch()
    until(service.state(job, "succeeded", "failed"), 30)
    until(service.state(behind, "succeeded", "failed"), 30)
    assert time.monotonic() - begun < 20
    assert service.attempts(job) == ["succeeded"]
    assert service.attempts(behind) == ["succeeded"]
    assert [row.holder for row in service.rows(Leader)] == [lead]


@pytest.mark.parametrize("seconds", STEPS[-2:] if LONG else STEPS[-1:])
def test_a_worker_that_dies_as_the_clock_is_set_is_noticed_as_soon_as_ever(
    service: Bench, clock: Path, seconds: int
):
    stepped(service, clock)
    job = service.submit("stand_once")
    until(lambda: service.progress(job), 60)
    os.killpg(service.processes[-1].pid, signal.SIGKILL)
    set_clock(clock, seconds)
    begun = time.monotonic()
    until(service.state(job, "queued"), 20, "the end of the lease")
    assert time.monotonic() - begun > service.settings.lease_seconds - 1
    service.worker()
    until(service.state(job, "succeeded", "failed"), 60)
    assert service.attempts(job) == ["lost", "succeeded"]
