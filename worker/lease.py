"""Holding on to a job: renewing the lease, asking for cancel, writing under the fencing token.

A database that does not answer is asked again for some leases: nobody can take the job over
meanwhile unless the database answers others, and then the next write, which is fenced, says so. So
holding on for too long costs work at most, and giving up too early costs an attempt. All times are
taken on a clock that nobody sets.
"""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.orm import Session

from store import leases
from store.claims import Claim
from store.clock import elapsed, utcnow
from store.db import Database
from store.tables import Job
from worker.endings import Cancelled, Stale

log = logging.getLogger(__name__)
T = TypeVar("T")

_RETRY_SECONDS = 0.25
_PATIENCE = 10
"""For how many leases a database that does not answer is asked again."""

_PERMANENT = (IntegrityError, DataError, ProgrammingError)
"""What a database answers that works: asking again gives the same."""


class Hold:
    """One claim, kept alive.

    Args:
        db: The database.
        claim: What is held, since just now.
        heartbeat_seconds: How often the lease is renewed.
        poll_seconds: How often the cancel flag is read.
        draining: Whether the worker is to stop: then it waits for one lease at most.
    """

    def __init__(
        self,
        db: Database,
        claim: Claim,
        heartbeat_seconds: float,
        poll_seconds: float,
        draining: Callable[[], bool] = lambda: False,
    ) -> None:
        self.claim = claim
        self._db = db
        self._heartbeat = heartbeat_seconds
        self._poll = poll_seconds
        self._draining = draining
        self._renewed = self._polled = elapsed()

    def write(self, act: Callable[[Session], T], *, durable: bool = True) -> T:
        """Run `act` in a write transaction.

        Args:
            act: What to write.
            durable: As for `Database.write`.

        Raises:
            Stale: The database did not answer for too long.
        """
        since = self._renewed
        while True:
            try:
                with self._db.write(durable=durable) as session:
                    return act(session)
            except _PERMANENT:
                raise
            except DBAPIError as error:
                leases_waited = 1 if self._draining() else _PATIENCE
                if elapsed() - since > leases_waited * self.claim.lease_seconds:
                    raise Stale("the database did not answer in time") from error
                log.warning("job %s: %s; trying again", self.claim.job_id, error.orig)
                time.sleep(_RETRY_SECONDS)
                self._hold_on()

    def _hold_on(self) -> None:
        """Renew the lease while something else can't be written.

        A disk that is nearly full takes the few bytes of a renewal and not those of events.
        """
        now = elapsed()
        if now - self._renewed < self._heartbeat:
            return
        try:
            with self._db.write(durable=False) as session:
                lease = leases.renew(session, self.claim, utcnow())
        except DBAPIError:
            return
        if not lease.valid:
            raise Stale("another worker has the job")
        self._renewed = now

    def beat(self) -> None:
        """Renew the lease and look for a cancel, each when its time has come.

        Raises:
            Stale: The claim no longer holds.
            Cancelled: The user wants the job to end.
        """
        now = elapsed()
        if now - self._renewed >= self._heartbeat:
            self._renew(now)
        elif now - self._polled >= self._poll:
            self._polled = now
            self._look()

    def _renew(self, now: float) -> None:
        lease = self.write(
            lambda session: leases.renew(session, self.claim, utcnow()), durable=False
        )
        if not lease.valid:
            raise Stale("another worker has the job")
        self._renewed = self._polled = now
        if lease.cancel_requested:
            raise Cancelled

    def _look(self) -> None:
        question = sa.select(Job.cancel_requested, Job.token).where(Job.id == self.claim.job_id)
        try:
            with self._db.read() as session:
                found = session.execute(question).first()
        except DBAPIError as error:
            log.warning("job %s: can't read the cancel flag: %s", self.claim.job_id, error.orig)
            return
        if found is None or found.token != self.claim.token:
            raise Stale("another worker has the job")
        if found.cancel_requested:
            raise Cancelled
