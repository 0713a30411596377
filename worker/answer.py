"""Answering a doorbell: claim jobs of a class and attend to them until none is left."""

import logging

from sqlalchemy.exc import DBAPIError

from store import leases
from store.clock import utcnow
from worker.supervisor import Attempt
from worker.workplace import Workplace

log = logging.getLogger(__name__)


def answer(place: Workplace, klass: str) -> int:
    """Run the eligible jobs of a class, one after another.

    Returns:
        How many attempts were made. None is the common case: bells ring more often than needed.
    """
    attempts = 0
    while not place.draining:
        try:
            with place.db.write() as session:
                claim = leases.claim(
                    session,
                    klass,
                    place.worker_id,
                    utcnow(),
                    lease_seconds=place.settings.lease_seconds,
                    sandbox=place.sandbox.level,
                )
        except DBAPIError as error:
            # Whoever waits is rung for again.
            log.warning("no job can be claimed: %s", error.orig)
            break
        if claim is None:
            break
        Attempt(place, claim).run()
        attempts += 1
        place.prepare()
    return attempts
