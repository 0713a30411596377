"""Writes of many requests, committed together.

SQLite has one writer at a time, and each commit waits for the disk. Threads that compete for it
sleep and try again, unfairly, and some of them for too long. Here one thread of a process writes
for all of its requests: those that arrive during a commit share the next one. PostgreSQL commits
side by side and groups by itself, so there each write is a transaction of its own.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from sqlalchemy.orm import Session

from pruning.errors import SecateurError
from store import failures
from store.db import Database

T = TypeVar("T")

LONGEST_SECONDS = 0.05
"""After so long a transaction takes in no more writes: workers wait for it too."""

_SIDE_BY_SIDE = 8


@dataclass(slots=True, eq=False)
class _Write:
    do: Callable[[Session], Any]
    answer: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None

    def settle(self) -> None:
        if self.answer.done():
            return
        if self.error is None:
            self.answer.set_result(self.result)
        else:
            self.answer.set_exception(self.error)


class GroupWriter:
    """Does writes in transactions that they may share.

    Args:
        database: What is written.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._shares = database.engine.dialect.name == "sqlite"
        self._alone = anyio.CapacityLimiter(_SIDE_BY_SIDE)
        self._waiting: deque[_Write] = deque()
        self._arrived = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    async def write(self, do: Callable[[Session], T]) -> T:
        """What `do` returns, once it is committed.

        Args:
            do: Writes through the session and nowhere else, and returns nothing that belongs to the
                session: it may be done again if the transaction it was part of fails. Where it
                raises, what it wrote is taken back, and nothing else.

        Raises:
            Exception: What `do` raises, or why the transaction failed.
        """
        if not self._shares:
            return await anyio.to_thread.run_sync(self._do_alone, do, limiter=self._alone)
        write = _Write(do, asyncio.get_running_loop().create_future())
        with self._arrived:
            self._waiting.append(write)
            self._arrived.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
                self._thread.start()
        done: T = await write.answer
        return done

    def close(self) -> None:
        """Ends the thread once it has written what was asked for."""
        with self._arrived:
            self._closed = True
            self._arrived.notify()
        if self._thread is not None:
            self._thread.join()

    def _do_alone(self, do: Callable[[Session], T]) -> T:
        with self._database.write() as session:
            return do(session)

    def _run(self) -> None:
        while True:
            with self._arrived:
                while not self._waiting and not self._closed:
                    self._arrived.wait()
                if not self._waiting:
                    return
            settled = self._together()
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                settled[0].answer.get_loop().call_soon_threadsafe(_settle, settled)

    def _together(self) -> list[_Write]:
        """One transaction for those that wait; all that are settled by it."""
        group: list[_Write] = []
        try:
            with self._database.write() as session:
                session.connection()  # begins, which waits for the lock
                until = time.monotonic() + LONGEST_SECONDS
                while self._waiting and (not group or time.monotonic() < until):
                    write = self._waiting.popleft()
                    group.append(write)
                    self._part(session, write)
        except Exception as error:
            if not group:  # it did not even begin: so it would be for all who wait
                group = [self._waiting.popleft() for _ in range(len(self._waiting))]
                return _failed(group, error)
            return _failed(group, error) if len(group) == 1 else self._one_by_one(group)
        return group

    def _one_by_one(self, group: list[_Write]) -> list[_Write]:
        """What failed together, each on its own, until it is no fault of theirs."""
        for number, write in enumerate(group):
            write.result = write.error = None
            try:
                write.result = self._do_alone(write.do)
            except Exception as error:
                write.error = error
                if failures.told(error) is not None:
                    _failed(group[number:], error)
                    break
        return group

    def _part(self, session: Session, write: _Write) -> None:
        """One write of a transaction. What it refuses is its own; any other failure is of all."""
        try:
            with session.begin_nested():
                write.result = write.do(session)
        except SecateurError as error:
            write.error = error
        # The next one sees rows as they are, not as they were loaded for this one.
        session.expunge_all()


def _failed(group: list[_Write], error: Exception) -> list[_Write]:
    for write in group:
        write.result, write.error = None, error
    return group


def _settle(group: list[_Write]) -> None:
    for write in group:
        write.settle()
