"""Rows by key over a kept connection, on both databases."""

import gc

import pytest
import sqlalchemy as sa

from pruning.events import MetricEvent, ProgressEvent
from store import leases
from store.claims import NewArtifact
from store.lookups import Lookups
from store.queries import jobs, keys
from store.queries.jobs import VERSIONS
from tests.store.conftest import World


@pytest.fixture
def lookups(world: World):
    made = Lookups(world.database)
    yield made
    made.close()


def test_rows_are_found_by_one_key_and_by_many(world: World, lookups: Lookups):
    ids = [world.submit() for _ in range(3)]
    assert [row[:2] for row in lookups.rows(VERSIONS, ids[:1])] == [(world.project, ids[0])]
    assert {row[1] for row in lookups.rows(VERSIONS, ids)} == set(ids)
    assert lookups.rows(VERSIONS, ["job_x"]) == []
    assert lookups.rows(VERSIONS, []) == []
    assert len(lookups.rows(VERSIONS, [*ids, *(f"job_{i}" for i in range(40_000))])) == 3


@pytest.mark.parametrize("key", ["", "\x00", "a\x00b", "\ud800", "'; DROP TABLE job; --", "%s"])
def test_keys_that_no_row_can_have_are_merely_not_found(world: World, lookups: Lookups, key: str):
    assert lookups.rows(VERSIONS, [key]) == []
    assert lookups.rows(VERSIONS, [key, key + "x"]) == []


def test_intake_checks_are_no_jobs(world: World, lookups: Lookups):
    assert {job.kind for job in world.rows(jobs.Job)} == {"check_model", "check_dataset"}
    assert lookups.rows(VERSIONS, [job.id for job in world.rows(jobs.Job)]) == []


def test_each_change_that_a_job_shows_changes_its_version(world: World, lookups: Lookups):
    job = world.submit()
    seen = [lookups.rows(VERSIONS, [job])]

    def changed() -> bool:
        seen.append(lookups.rows(VERSIONS, [job]))
        return seen[-1] != seen[-2]

    claim = world.claimed(at=1)
    assert changed()
    with world.database.write() as session:
        progress = ProgressEvent(phase="scoring", done=1, total=4)
        assert leases.report(session, claim, [progress], world.at(1))
    assert changed()
    with world.database.write() as session:
        metric = MetricEvent(name="accuracy", stage="dense", value=0.5)
        assert leases.report(session, claim, [metric], world.at(1))
    assert changed()
    with world.database.write() as session:
        assert leases.release(session, claim, "drained", world.at(1))
    assert changed()
    claim = world.claimed(at=1)
    assert changed()
    with world.database.write() as session:
        jobs.request_cancel(session, world.project, job, world.at(2))
    assert changed()
    artifact = NewArtifact("net.onnx", "onnx", world.blob("smaller"))
    assert world.finish(claim, artifacts=[artifact], summary={"sparsity": 0.5}, at=2)
    assert changed()
    with world.database.write() as session:
        jobs.delete(session, world.project, job)
    assert changed()
    assert seen[-1] == []


def test_a_key_is_known_until_it_is_revoked_elsewhere(world: World, lookups: Lookups):
    with world.database.write() as session:
        key, secret = keys.create_key(session, world.project, "one")
    digest = keys.digest(secret)
    owner = keys.Principal(world.project, key.id)
    assert keys.principals(lookups, [digest, "0" * 64]) == {digest: owner}
    with world.database.write() as session:
        keys.delete(session, world.project, key.id)
    assert keys.principals(lookups, [digest]) == {}


def test_a_connection_that_was_cut_is_made_again(world: World, lookups: Lookups):
    job = world.submit()
    assert lookups.rows(VERSIONS, [job])
    if world.database.engine.dialect.name == "postgresql":
        with world.database.write() as session:
            others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> "
            session.execute(sa.text(others + "pg_backend_pid() AND datname = current_database()"))
    else:
        lookups._driver.close()
    assert lookups.rows(VERSIONS, [job])


def test_nothing_can_be_written(world: World, lookups: Lookups):
    lookups.rows(VERSIONS, ["job_x"])
    with pytest.raises(world.database.engine.dialect.loaded_dbapi.Error):
        lookups._driver.execute("DELETE FROM job")


def test_one_that_does_not_wait_finds_the_same(world: World):
    quick = Lookups(world.database, waits=False)
    job = world.submit()
    assert [row[1] for row in quick.rows(VERSIONS, [job])] == [job]
    quick.close()


def test_a_connection_that_only_reads_never_goes_back_among_those_that_write(world: World):
    for _ in range(3):
        world.submit()  # so that the pool has a connection that has written
        lost = Lookups(world.database)
        lost.rows(VERSIONS, ["job_x"])
        del lost  # without a close
        gc.collect()
        world.submit()
