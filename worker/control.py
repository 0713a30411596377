"""The control process: relay, reaper and scrub, one active at a time. `python -m worker.control`.

Any number may run; the one that leads works, the others wait for it to fall silent.
"""

import logging
import os
import secrets
import signal
import socket
import threading
from types import FrameType

from sqlalchemy.exc import DBAPIError

from store import leaders, logs
from store.blobs import LocalBlobs
from store.clock import elapsed, utcnow
from store.db import Database
from store.settings import Settings, get_settings
from worker.app import app
from worker.failure_detector import FailureDetector
from worker.reaper import Reaper
from worker.relay import Relay
from worker.scrubber import Scrubber

log = logging.getLogger(__name__)

NAME = "control"


class Leadership:
    """This process's claim to be the one that works.

    Args:
        db: The database.
        seconds: How long a lead holds without a beat.
    """

    def __init__(self, db: Database, seconds: float) -> None:
        self._db = db
        self._seconds = seconds
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._until = self._asked = float("-inf")
        self._others: FailureDetector[str] = FailureDetector(seconds / 3)
        self._silent: leaders.Lead | None = None

    def holds(self) -> bool:
        """True while the lead surely holds, by this process's own clock."""
        return elapsed() < self._until

    def ask(self) -> bool:
        """Beat as the leader, or look after the leader; say whether this process leads.

        A leader beats three times, a follower looks six times while a lead lasts.
        """
        now = elapsed()
        led = self.holds()
        if now - self._asked < self._seconds / (3 if led else 6):
            return led
        self._asked = now
        with self._db.write(durable=False) as session:
            found = leaders.lead(session, NAME, self._holder, utcnow(), over=self._silent)
        leads = found.holder == self._holder
        # Counted from before the question, so that it ends here before anybody takes over.
        self._until = now + self._seconds if leads else float("-inf")
        silence = self._others.look({} if leads else {found.holder: found.beat})
        overdue = not leads and silence[found.holder] >= self._seconds
        self._silent = found if overdue else None
        if leads != led:
            log.info("%s leading", "now" if leads else "no longer")
        return leads

    def resign(self) -> None:
        """Let another one lead at once."""
        if self.holds():
            self._until = float("-inf")
            with self._db.write(durable=False) as session:
                leaders.resign(session, NAME, self._holder)


def serve(settings: Settings, stop: threading.Event) -> None:
    """Relay and reap while leading, until `stop` is set."""
    db = Database(settings)
    leadership = Leadership(db, settings.leader_seconds)
    relay = Relay(db, app, settings, leadership.holds)
    blobs = LocalBlobs(settings.blob_dir)
    reaper = Reaper(db, blobs, settings)
    scrubber = Scrubber(db, blobs, settings, leadership.holds)
    quiet = False
    try:
        while not stop.is_set():
            try:
                leads = leadership.ask()
                if leads:
                    relay.turn()
                reaper.turn(leads=leads)
                quiet = False
            except DBAPIError as error:
                if not quiet:
                    log.warning("the database does not answer: %s", error.orig)
                quiet = True
            stop.wait(settings.relay_seconds)
        leadership.resign()
    finally:
        scrubber.end()
        relay.close()
        db.dispose()


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    settings = get_settings()
    logs.configure(settings)
    stop = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    serve(settings, stop)


if __name__ == "__main__":
    main()
