import threading
from datetime import datetime

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, StatementError

from pruning.errors import SecateurError
from pruning.events import MetricEvent
from store.db import Database, engine_for
from store.queries import events, jobs, keys
from store.settings import Settings
from store.tables import JobEvent, Project


def test_a_write_that_fails_leaves_nothing(empty) -> None:
    def half_way() -> None:
        with empty.database.write() as session:
            keys.create_project(session, "half")
            raise KeyError

    with pytest.raises(KeyError):
        half_way()
    assert empty.rows(Project) == []


def test_a_read_transaction_can_not_write(empty) -> None:
    with pytest.raises(DBAPIError), empty.database.read() as session:
        keys.create_project(session, "sneaked in")
    with empty.database.write() as session:
        keys.create_project(session, "allowed")
    assert [p.name for p in empty.rows(Project)] == ["allowed"]


def test_a_read_transaction_sees_one_moment(empty) -> None:
    with empty.database.read() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Project)) == 0
        with empty.database.write() as writing:
            keys.create_project(writing, "meanwhile")
        assert session.scalar(sa.select(sa.func.count()).select_from(Project)) == 0


def test_two_writers_that_read_first_wait_for_each_other(empty) -> None:
    """With a deferred BEGIN on SQLite the second upgrade of a read lock fails at once."""
    with empty.database.write() as session:
        project = keys.create_project(session, "0").id
    gate = threading.Barrier(4)
    failures: list[BaseException] = []

    def count_up() -> None:
        gate.wait()
        try:
            for _ in range(10):
                with empty.database.write() as session:
                    row = session.get_one(Project, project, with_for_update=True)
                    row.name = str(int(row.name) + 1)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=count_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [p.name for p in empty.rows(Project)] == ["40"]


def test_sqlite_is_set_up_for_several_processes(migrated_sqlite) -> None:
    engine = engine_for(Settings(data_dir=migrated_sqlite.parent))
    with engine.connect() as connection:
        values = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "busy_timeout", "foreign_keys", "synchronous")
        }
    engine.dispose()
    assert values == {
        "journal_mode": "wal",
        "busy_timeout": 10_000,
        "foreign_keys": 1,
        "synchronous": 2,
    }


def test_a_commit_is_synced_unless_it_may_be_lost_with_a_power_cut(migrated_sqlite) -> None:
    database = Database(Settings(data_dir=migrated_sqlite.parent))

    def synchronous(durable: bool) -> int:
        with database.write(durable=durable) as session:
            return session.scalar(sa.text("PRAGMA synchronous"))

    # On one pooled connection, to and fro.
    assert [synchronous(durable) for durable in (True, False, True, True)] == [2, 1, 2, 2]
    with database.write() as session:
        assert session.scalar(sa.text("PRAGMA synchronous")) == 2
    database.dispose()


def test_a_write_takes_the_lock_at_its_first_statement(migrated_sqlite) -> None:
    database = Database(Settings(data_dir=migrated_sqlite.parent))
    impatient = Database(Settings(data_dir=migrated_sqlite.parent))
    sa.event.listen(impatient.engine, "connect", lambda c, _: c.execute("PRAGMA busy_timeout = 0"))
    with database.write() as session:
        session.execute(sa.select(Project))
        with pytest.raises(DBAPIError, match="locked"), impatient.write() as second:
            second.execute(sa.select(Project))
        with impatient.read() as reader:
            reader.execute(sa.select(Project))
    database.dispose()
    impatient.dispose()


def test_foreign_keys_are_enforced(empty) -> None:
    with pytest.raises(DBAPIError), empty.database.write() as session:
        keys.create_key(session, "prj_nobody", "k")


def test_a_database_in_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="file"):
        engine_for(Settings(database_url="sqlite://"))


def test_a_time_without_a_zone_is_refused(empty) -> None:
    with pytest.raises(StatementError, match="timezone"), empty.database.write() as session:
        keys.create_project(session, "p", datetime(2030, 1, 1))


def test_what_no_database_stores_is_replaced_on_both(world) -> None:
    job_id = world.submit(name="a\x00b\ud800", spec={"k\x00": ["\udfff", float("nan"), 1.5]})
    with world.database.write() as session:
        said = [MetricEvent(name="loss\x00", stage="dense", value=float("inf"))]
        events.append(session, job_id, said)
    with world.database.read() as session:
        job = jobs.get(session, world.project, job_id)
    assert job.name == "a\ufffdb\ufffd"
    assert job.spec == {"k\ufffd": ["\ufffd", None, 1.5]}
    assert world.rows(JobEvent, job_id=job_id)[-1].body["name"] == "loss\ufffd"


@pytest.mark.parametrize("job_id", ["", "job_\x00", "x" * 5000, "job_\ud800", "' OR 1=1 --"])
def test_an_id_that_is_no_id_is_not_found(world, job_id) -> None:
    with pytest.raises(SecateurError) as refused, world.database.read() as session:
        jobs.get(session, world.project, job_id)
    assert refused.value.code == "not_found"
