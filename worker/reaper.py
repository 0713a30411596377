"""The reaper: takes back jobs whose worker fell silent, and sweeps blobs nobody refers to."""

import logging
import time
from datetime import timedelta

from store import leases
from store.blobs import Blobs
from store.clock import utcnow
from store.db import Database
from store.settings import Settings
from store.sweep import sweep

log = logging.getLogger(__name__)


class Reaper:
    """Reaps every `reaper_seconds` and sweeps every `sweep_seconds`.

    Args:
        db: The database.
        blobs: The blobs.
        settings: Intervals and limits.
    """

    def __init__(self, db: Database, blobs: Blobs, settings: Settings) -> None:
        self._db = db
        self._blobs = blobs
        self._settings = settings
        self._reaped = self._swept = float("-inf")

    def turn(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        if now - self._reaped >= self._settings.reaper_seconds:
            self._reaped = now
            self._reap()
        if now - self._swept >= self._settings.sweep_seconds:
            self._swept = now
            self._sweep()

    def _reap(self) -> None:
        with self._db.write() as session:
            reaped = leases.reap(session, utcnow(), self._settings)
        for r in reaped:
            log.warning(
                "job %s: %s let the lease of attempt %d run out; now %s",
                r.job_id, r.worker_id, r.attempt, r.state,
            )  # fmt: skip

    def _sweep(self) -> None:
        grace = timedelta(seconds=self._settings.blob_grace_seconds)
        try:
            swept = sweep(self._db, self._blobs, utcnow() - grace)
        except OSError as error:
            # A disk in trouble must not end the process that rings for jobs.
            log.warning("the sweep of blobs stopped: %s", error)
            return
        if swept.files or swept.leftovers:
            log.info("swept %d blobs and %d unfinished files", swept.files, swept.leftovers)
