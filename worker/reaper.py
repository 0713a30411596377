"""The reaper: takes back jobs whose worker fell silent, and sweeps blobs nobody refers to."""

import logging
from datetime import timedelta

from store import leaders, leases
from store.blobs import Blobs
from store.clock import EarliestTime, elapsed, utcnow
from store.db import Database
from store.settings import Settings
from store.sweep import sweep
from worker.failure_detector import FailureDetector

log = logging.getLogger(__name__)


class Reaper:
    """Reaps every `reaper_seconds` and sweeps every `sweep_seconds`.

    A job is taken back once this process has seen the same beat of it for as long as its lease. So
    one that has just begun to look takes nobody's job before that, whatever was before.

    Args:
        db: The database.
        blobs: The blobs.
        settings: Intervals and limits.
    """

    def __init__(self, db: Database, blobs: Blobs, settings: Settings) -> None:
        self._db = db
        self._blobs = blobs
        self._settings = settings
        self._looked = self._swept = float("-inf")
        self._time = EarliestTime()
        self._beats: FailureDetector[str] = FailureDetector(2 * settings.reaper_seconds + 1.0)

    def turn(self, *, leads: bool = True) -> None:
        """Do what is due.

        Args:
            leads: Whether to act. Who only follows looks all the same: having taken over, it knows
                already who is silent.
        """
        self._time.now()
        now = elapsed()
        if now - self._looked >= self._settings.reaper_seconds:
            self._looked = now
            self._reap(leads)
        if leads and now - self._swept >= self._settings.sweep_seconds:
            self._swept = now
            self._sweep()

    def _reap(self, leads: bool) -> None:
        # Something is written: while nobody can write, no worker can show that it lives.
        with self._db.write(durable=False) as session:
            leaders.rewrite(session)
            held = leases.held(session)
        silence = self._beats.look({job.job_id: job.sign for job in held})
        if not leads:
            return
        for job in held:
            if silence[job.job_id] < (job.lease_seconds or self._settings.lease_seconds):
                continue
            # A transaction each: no two jobs' rows are ever locked together.
            with self._db.write() as session:
                reaped = leases.reap(session, job, utcnow(), self._settings.max_attempts)
            if reaped is not None:
                log.warning(
                    "job %s: %s let the lease of attempt %d run out; now %s",
                    reaped.job_id, reaped.worker_id, reaped.attempt, reaped.state,
                )  # fmt: skip

    def _sweep(self) -> None:
        now = self._time.now()
        grace = timedelta(seconds=self._settings.blob_grace_seconds)
        kept_aside = timedelta(days=self._settings.quarantine_days)
        try:
            swept = sweep(self._db, self._blobs, now - grace, quarantined_before=now - kept_aside)
        except OSError as error:
            # A disk in trouble must not end the process that rings for jobs.
            log.warning("the sweep of blobs stopped: %s", error)
            return
        if swept.files or swept.leftovers or swept.quarantined:
            log.info(
                "swept %d blobs, %d unfinished files and %d damaged ones",
                swept.files, swept.leftovers, swept.quarantined,
            )  # fmt: skip
