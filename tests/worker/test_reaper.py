"""The reaper's turn, on a real store."""

import time

import pytest
import sqlalchemy as sa
from bench import Bench, until

from store import leaders
from store.blobs import put
from store.clock import utcnow
from worker.reaper import Reaper


def test_a_sweep_that_meets_a_broken_disk_does_not_end_the_reaping(bench: Bench):
    bench.db.dispose()
    (bench.settings.blob_dir / "00").write_text("not a folder")
    settings = bench.settings.model_copy(update={"lease_seconds": 0.0, "reaper_seconds": 0.0})
    job = bench.submit("succeed")
    bench.settings = settings
    bench.claim()
    reaper = Reaper(bench.db, bench.blobs, settings)

    def reaped() -> bool:
        reaper.turn()
        return bench.job(job).state == "queued"

    assert until(reaped, 5)


def test_while_nothing_can_be_written_no_worker_counts_as_silent(bench: Bench):
    """As on a full disk: what is there can be read, and a worker can show no sign."""
    settings = bench.settings.model_copy(update={"lease_seconds": 0.4, "reaper_seconds": 0.0})
    reaper = Reaper(bench.db, bench.blobs, settings)
    job = bench.submit("succeed")
    bench.settings = settings
    bench.claim()
    with bench.db.write() as session:
        leaders.lead(session, "control", "test", utcnow())
    tables = ("job", "leader")
    with bench.db.write() as session:
        for table in tables:
            refuse = f"BEFORE UPDATE ON {table} BEGIN SELECT RAISE(ABORT, 'full'); END"
            session.execute(sa.text(f"CREATE TRIGGER full_{table} {refuse}"))
    began = time.monotonic()
    while time.monotonic() < began + 1.0:
        with pytest.raises(sa.exc.DBAPIError):
            reaper.turn()
    with bench.db.write() as session:
        for table in tables:
            session.execute(sa.text(f"DROP TRIGGER full_{table}"))
    reaper.turn()
    assert bench.job(job).state == "running"

    def reaped() -> bool:
        reaper.turn()
        return bench.job(job).state == "queued"

    assert until(reaped, 5)


def test_what_was_just_written_is_not_swept_as_the_clock_is_set(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    """In none of the orders in which clock and file can change."""
    settings = bench.settings.model_copy(update={"sweep_seconds": 0.0, "blob_grace_seconds": 600.0})
    reaper = Reaper(bench.db, bench.blobs, settings)
    clock, ahead = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: clock() + ahead[0])
    monkeypatch.setattr(time, "time_ns", lambda: int((clock() + ahead[0]) * 1e9))
    kept = []
    for step in (0, 3600, -120, -3600, 0):
        kept.append(put(bench.blobs, [f"before {step}".encode()]).sha256)
        ahead[0] = step
        reaper.turn()
        kept.append(put(bench.blobs, [f"after {step}".encode()]).sha256)
        reaper.turn()
    assert all(bench.blobs.exists(digest) for digest in kept)
