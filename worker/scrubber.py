"""The scrub in the control process: a thread of its own, since a slow disk must not delay bells."""

import logging
import threading
from collections.abc import Callable

from sqlalchemy.exc import DBAPIError

from store.blobs import Blobs
from store.clock import utcnow
from store.db import Database
from store.scrub import Progress, Scrub, progress_file
from store.settings import Settings

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_FAILED_SECONDS = 60.0
_END_SECONDS = 5.0


class Scrubber:
    """Goes through the stored files while this process leads, until `end`.

    Args:
        db: The database.
        blobs: The blobs.
        settings: How often and how fast.
        leads: Whether this process is the one that works.
    """

    def __init__(
        self, db: Database, blobs: Blobs, settings: Settings, leads: Callable[[], bool]
    ) -> None:
        self._settings, self._leads = settings, leads
        self._file = progress_file(settings)
        self._stop = threading.Event()
        rate = settings.scrub_bytes_per_second
        self._scrub = Scrub(db, blobs, rate, self._wait)
        self._thread = threading.Thread(target=self._work, name="scrub", daemon=True)
        if rate:
            self._thread.start()

    def _wait(self, seconds: float) -> bool:
        return (self._stop.wait(seconds) if seconds else self._stop.is_set()) or not self._leads()

    def _work(self) -> None:
        while not self._stop.is_set():
            pause = _LOOK_SECONDS
            try:
                if self._leads():
                    self._turn()
            except (OSError, DBAPIError) as error:
                log.warning("the scrub of stored files stopped: %s", error)
                pause = _FAILED_SECONDS
            self._stop.wait(pause)

    def _turn(self) -> None:
        progress = Progress.read(self._file)
        if progress.due(utcnow(), self._settings.scrub_days):
            self._pass(progress)

    def _pass(self, progress: Progress) -> None:
        before = dict(progress.files)
        try:
            finished = self._scrub.go_on(progress)
        finally:
            progress.write(self._file)
        if finished:
            found = {result: n - before[result] for result, n in progress.files.items()}
            log.info("all stored files were read: %s", found)

    def end(self) -> None:
        """Stop; where the disk does not answer the thread dies with the process."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_END_SECONDS)
