import multiprocessing
import os
import subprocess
import sys
from datetime import timedelta

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.command import downgrade
from alembic.command import upgrade as upgrade_to
from alembic.migration import MigrationContext

from store import leases
from store.clock import utcnow
from store.db import Database
from store.migrate import config, is_current, upgrade
from store.queries import keys
from store.settings import Settings
from store.tables import Base, JobEvent, Project


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request, tmp_path) -> Settings:
    """A database that nothing has touched yet."""
    if request.param == "sqlite":
        return Settings(data_dir=tmp_path)
    return Settings(data_dir=tmp_path, database_url=request.getfixturevalue("postgres_url")())


@pytest.fixture
def database(settings):
    database = Database(settings)
    yield database
    database.dispose()


def test_the_migrations_make_the_tables(settings, database) -> None:
    upgrade(settings)
    with database.engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_the_comparison_sees_what_the_migrations_lack(settings, database) -> None:
    """Were `compare_metadata` blind here, the test above could not fail."""
    upgrade(settings)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE job DROP COLUMN phase")
        connection.exec_driver_sql("DROP INDEX ix_job_queue")
        context = MigrationContext.configure(connection)
        kinds = {str(d[0]) for d in compare_metadata(context, Base.metadata)}
    assert kinds == {"add_column", "add_index"}


def test_partial_indexes_and_cascades_are_in_the_migrations(settings, database) -> None:
    upgrade(settings)
    inspector = sa.inspect(database.engine)
    for table in ("model", "dataset"):
        [index] = [i for i in inspector.get_indexes(table) if i["unique"]]
        assert index["column_names"] == ["project_id", "sha256", "name"]
        where = index["dialect_options"]
        assert "rejected" in str(where.get("sqlite_where", where.get("postgresql_where")))
    for name, table in Base.metadata.tables.items():
        declared = {(fk.column.table.name, fk.ondelete) for fk in table.foreign_keys}
        found = {
            (fk["referred_table"], fk["options"].get("ondelete"))
            for fk in inspector.get_foreign_keys(name)
        }
        assert found == declared, name


def test_every_table_but_the_internal_ones_names_its_project() -> None:
    internal = {"project", "blob", "outbox", "leader", "worker", "virtual_time"}
    owned = {name for name, t in Base.metadata.tables.items() if "project_id" in t.columns}
    assert owned == Base.metadata.tables.keys() - internal


def test_upgrading_again_changes_nothing(settings, database) -> None:
    assert not is_current(database)
    upgrade(settings)
    with database.write() as session:
        keys.create_project(session, "kept")
    upgrade(settings)
    assert is_current(database)
    with database.read() as session:
        assert keys.first_project(session).name == "kept"


def test_paths_in_stored_checkpoint_events_are_removed(settings, database) -> None:
    told = {"type": "checkpoint", "name": "round-1", "path": "/srv/slot/round-1", "bytes": 3}
    kept = {"type": "metric", "name": "loss", "stage": "dense", "value": 1.0}
    job = {"id": "job_1", "project_id": "p", "kind": "prune", "klass": "cpu", "name": "n"}
    job |= {"spec": {}, "state": "queued", "priority": 0, "cancel_requested": False}
    counts = ("attempt", "attempts_without_checkpoint", "token", "last_seq")
    at = utcnow()
    times = dict.fromkeys(("created_at", "updated_at", "queued_at"), at)
    with database.engine.begin() as connection:
        alembic = config()
        alembic.attributes["connection"] = connection
        upgrade_to(alembic, "0001")
        connection.execute(sa.insert(Project).values(id="p", name="p", created_at=at))
        # As the table was then: today's has columns that were not there.
        jobs = sa.Table("job", sa.MetaData(), autoload_with=connection)
        connection.execute(jobs.insert().values(**job, **times, **dict.fromkeys(counts, 0)))
        for seq, body in enumerate((told, kept), 1):
            event = {"job_id": "job_1", "seq": seq, "project_id": "p", "at": at, "body": body}
            connection.execute(sa.insert(JobEvent).values(**event))
    upgrade(settings)
    with database.read() as session:
        bodies = session.scalars(sa.select(JobEvent.body).order_by(JobEvent.seq)).all()
    assert bodies == [{"type": "checkpoint", "name": "round-1", "bytes": 3}, kept]


def test_jobs_that_were_there_get_in_line_by_priority_and_age(settings, database) -> None:
    job = {"project_id": "p", "kind": "prune", "klass": "cpu", "name": "n", "spec": {}}
    job |= {"state": "queued", "cancel_requested": False}
    counts = ("attempt", "attempts_without_checkpoint", "token", "last_seq")
    at = utcnow()
    with database.engine.begin() as connection:
        alembic = config()
        alembic.attributes["connection"] = connection
        upgrade_to(alembic, "0007")
        connection.execute(sa.insert(Project).values(id="p", name="p", created_at=at))
        jobs = sa.Table("job", sa.MetaData(), autoload_with=connection)
        for number, priority in enumerate((0, 5, 5, 9)):
            created = at + timedelta(seconds=number)
            times = dict.fromkeys(("created_at", "updated_at", "queued_at"), created)
            row = job | times | dict.fromkeys(counts, 0)
            connection.execute(jobs.insert().values(id=f"job_{number}", priority=priority, **row))
    upgrade(settings)
    with database.write() as session:
        taken = [leases.claim(session, "cpu", "w", at, lease_seconds=9) for _ in range(4)]
    assert [claim.job_id for claim in taken if claim] == ["job_3", "job_1", "job_2", "job_0"]


def test_down_to_nothing_and_up_again(settings, database) -> None:
    upgrade(settings)
    with database.engine.begin() as connection:
        alembic = config()
        alembic.attributes["connection"] = connection
        downgrade(alembic, "base")
    assert sa.inspect(database.engine).get_table_names() == ["alembic_version"]
    upgrade(settings)
    assert is_current(database)


def test_processes_that_upgrade_at_once_all_succeed(settings) -> None:
    fork = multiprocessing.get_context("fork")
    gate = fork.Barrier(4)

    def start() -> None:
        gate.wait()
        upgrade(settings)

    processes = [fork.Process(target=start) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [p.exitcode for p in processes] == [0, 0, 0, 0]
    database = Database(settings)
    assert is_current(database)
    database.dispose()


def test_the_command_upgrades_the_database_of_the_environment(settings) -> None:
    environment = os.environ | {
        "SECATEUR_DATA_DIR": str(settings.data_dir),
        "SECATEUR_DATABASE_URL": settings.database_url,
    }
    subprocess.run([sys.executable, "-m", "store.migrate"], env=environment, check=True)
    database = Database(settings)
    assert is_current(database)
    database.dispose()
