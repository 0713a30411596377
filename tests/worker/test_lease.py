"""A holder outlasts a database that is away, and believes one that answers."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import sqlalchemy as sa
from bench import Bench
from sqlalchemy.exc import IntegrityError

from store import leases
from store.clock import elapsed, utcnow
from store.db import Database
from store.queries import keys
from worker.endings import Stale
from worker.lease import Hold


@pytest.fixture
def hold(bench: Bench) -> Iterator[Callable[..., Hold]]:
    """Makes a hold on a job whose lease is .2 s, and a database that says early that it is busy."""
    impatient = Database(bench.settings.model_copy(update={"database_wait_seconds": 0.02}))

    def make(draining: bool = False) -> Hold:
        bench.submit("succeed")
        claim = replace(bench.claim(), lease_seconds=0.2)
        return Hold(impatient, claim, 0.05, 0.05, draining=lambda: draining)

    yield make
    impatient.dispose()


@contextmanager
def locked(bench: Bench) -> Iterator[threading.Timer]:
    """The database, locked by somebody until the timer that is given here has run."""
    somebody = sqlite3.connect(bench.settings.data_dir / "secateur.db", check_same_thread=False)
    somebody.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.8, somebody.rollback)
    try:
        yield timer
    finally:
        timer.cancel()
        somebody.close()


def test_a_database_that_is_away_for_longer_than_a_lease_costs_no_attempt(bench: Bench, hold):
    held = hold()
    with locked(bench) as timer:
        timer.start()
        begun = elapsed()
        lease = held.write(lambda session: leases.renew(session, held.claim, utcnow()))
        assert elapsed() - begun > 2 * held.claim.lease_seconds
    assert lease.valid


def test_a_worker_that_stops_waits_for_a_lease_only(bench: Bench, hold):
    held = hold(draining=True)
    begun = elapsed()
    with locked(bench), pytest.raises(Stale):
        held.write(lambda session: leases.renew(session, held.claim, utcnow()))
    assert elapsed() - begun < 2


def test_what_can_not_be_written_does_not_keep_the_lease_from_being_renewed(bench: Bench, hold):
    held, begun = hold(), elapsed()
    before = bench.job(held.claim.job_id).beat

    def too_large_for_a_while(session) -> None:
        if elapsed() - begun < 5 * held.claim.lease_seconds:
            session.execute(sa.text("SELECT * FROM a_disk_that_is_full"))

    held.write(too_large_for_a_while)
    assert bench.job(held.claim.job_id).beat >= before + 2


def test_what_the_database_refuses_is_not_asked_again(bench: Bench, hold):
    held, asked = hold(), []

    def twice_the_same(session) -> None:
        asked.append(1)
        project = keys.create_project(session, "p")
        session.execute(type(project).__table__.insert().values(id=project.id, name="again"))

    with pytest.raises(IntegrityError):
        held.write(twice_the_same)
    assert len(asked) == 1
