"""Writes that share a transaction, on both databases."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session

from api.writing import GroupWriter
from pruning.errors import SecateurError
from store.queries import jobs, keys
from store.tables import ApiKey, Job
from tests.store.conftest import World


@pytest.fixture
def writer(world: World) -> Iterator[GroupWriter]:
    made = GroupWriter(world.database)
    yield made
    made.close()


@pytest.fixture
def commits(world: World) -> list[int]:
    """Grows with each commit."""
    seen: list[int] = []
    event.listen(world.database.engine, "commit", lambda _connection: seen.append(1))
    return seen


def key(world: World, name: str) -> Callable[[Session], str]:
    return lambda session: keys.create_key(session, world.project, name, limit=10_000)[0].name


def refuse(session: Session) -> str:
    raise SecateurError("conflict", "Not this one.")


def all_of(writer: GroupWriter, *writes: Callable[[Session], Any]) -> list[Any]:
    async def go() -> list[Any]:
        return await asyncio.gather(*(writer.write(w) for w in writes), return_exceptions=True)

    return asyncio.run(go())


def test_what_is_written_at_once_is_committed_together(
    world: World, writer: GroupWriter, commits: list[int]
) -> None:
    answers = all_of(writer, *(key(world, f"k{i}") for i in range(100)))
    assert answers == [f"k{i}" for i in range(100)]
    assert len(world.rows(ApiKey)) == 100
    if world.database.engine.dialect.name == "sqlite":
        assert len(commits) < 50


def test_what_one_refuses_takes_back_its_own_writes_alone(
    world: World, writer: GroupWriter
) -> None:
    def half(session: Session) -> None:
        keys.create_key(session, world.project, "half", limit=100)
        refuse(session)

    answers = all_of(writer, key(world, "a"), half, key(world, "b"), refuse)
    assert [getattr(a, "code", a) for a in answers] == ["a", "conflict", "b", "conflict"]
    assert {row.name for row in world.rows(ApiKey)} == {"a", "b"}


def test_an_error_of_our_own_fails_the_one_that_made_it(world: World, writer: GroupWriter) -> None:
    def broken(session: Session) -> None:
        keys.create_key(session, world.project, "broken", limit=100)
        raise KeyError("a bug")

    answers = all_of(writer, key(world, "a"), broken, key(world, "b"))
    assert answers[0] == "a"
    assert answers[2] == "b"
    assert isinstance(answers[1], KeyError)
    assert {row.name for row in world.rows(ApiKey)} == {"a", "b"}


def test_each_sees_what_those_before_it_wrote(world: World, writer: GroupWriter) -> None:
    job = world.submit()

    def cancel(session: Session) -> str:
        return jobs.request_cancel(session, world.project, job).state

    def state(session: Session) -> str:
        return session.get_one(Job, job).state

    def gone(session: Session) -> None:
        jobs.delete(session, world.project, job)

    async def in_order() -> list[Any]:
        first = asyncio.create_task(writer.write(cancel))
        await first
        return [first.result(), await writer.write(state), await writer.write(gone)]

    assert asyncio.run(in_order()) == ["cancelled", "cancelled", None]
    answers = all_of(writer, cancel, state)
    assert answers[0].code == "not_found"


def test_a_database_that_stays_locked_fails_all_who_wait_once(world: World) -> None:
    if world.database.engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL has no lock on the whole database")
    settings = world.settings.model_copy(update={"database_wait_seconds": 0.3})
    waiting = type(world.database)(settings)
    writer = GroupWriter(waiting)
    let_go, holds = threading.Event(), threading.Event()

    def hold() -> None:
        with world.database.write() as session:
            session.execute(sa.text("SELECT 1"))
            holds.set()
            let_go.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    holds.wait(10)
    begin = time.monotonic()
    answers = all_of(writer, *(key(world, f"k{i}") for i in range(50)))
    took = time.monotonic() - begin
    let_go.set()
    holder.join()
    assert {type(a).__name__ for a in answers} == {"OperationalError"}
    assert took < 3, "one wait for all of them, not one each"
    assert all_of(writer, key(world, "later")) == ["later"]
    writer.close()
    waiting.dispose()


def test_one_that_nobody_waits_for_any_more_harms_none(world: World, writer: GroupWriter) -> None:
    async def go() -> str:
        gone = asyncio.create_task(writer.write(key(world, "gone")))
        await asyncio.sleep(0)
        gone.cancel()
        return await writer.write(key(world, "here"))

    assert asyncio.run(go()) == "here"
