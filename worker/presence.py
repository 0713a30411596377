"""A worker process tells the store that it lives, and at which level its children run."""

import logging
import threading

from sqlalchemy.exc import DBAPIError

from store import roster
from store.clock import utcnow
from worker.workplace import Workplace

log = logging.getLogger(__name__)

_END_SECONDS = 2.0


class Presence:
    """Renews the process's row from a thread of its own, until `end`.

    Args:
        place: The process's workplace.
    """

    def __init__(self, place: Workplace) -> None:
        self._place = place
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tell, name="presence", daemon=True)
        self._thread.start()

    def _tell(self) -> None:
        place = self._place
        while True:
            try:
                with place.db.write(durable=False) as session:
                    roster.seen(session, place.worker_id, place.sandbox.level, utcnow())
            except DBAPIError as error:
                log.warning("can't tell the database that this worker lives: %s", error.orig)
            if self._stop.wait(roster.SEEN_EVERY.total_seconds()):
                return

    def end(self) -> None:
        """Take the row away; where the database does not answer it runs out by itself."""
        self._stop.set()
        self._thread.join(_END_SECONDS)
        if self._thread.is_alive():
            return
        try:
            with self._place.db.write(durable=False) as session:
                roster.gone(session, self._place.worker_id)
        except DBAPIError as error:
            log.warning("can't tell the database that this worker ends: %s", error.orig)
