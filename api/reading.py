"""Lookups that many requests ask for at once.

A request that is answered from one row costs more for its way to a thread and for its transaction
than for its query. In a file of SQLite a row is found in some ten microseconds, less than handing
the question over takes: that is done at once, on the event loop. PostgreSQL is asked by one thread,
and requests that arrive while it is busy are answered together by its next query, which begins
after all of them asked: each sees what was committed before.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError

from pruning.errors import SecateurError
from store.db import Database
from store.lookups import Lookups

K = TypeVar("K")
V = TypeVar("V")
Find = Callable[[Lookups, Sequence[K]], Mapping[K, V]]

MOST_WAITING = 4_000
"""Questions that may wait; more come only where the database stands still."""


@dataclass(slots=True)
class _Question:
    find: Find[Any, Any]
    key: Any
    answer: asyncio.Future[Any]


class BatchReader:
    """Answers questions by key, each with what its `find` has for the key, or None.

    Args:
        database: What is read.
    """

    def __init__(self, database: Database) -> None:
        self._lookups = Lookups(database)
        is_file = database.engine.dialect.name == "sqlite"
        self._at_once = Lookups(database, waits=False) if is_file else None
        self._asked: list[_Question] = []  # in this turn of the loop
        self._handed: queue.SimpleQueue[list[_Question] | None] = queue.SimpleQueue()
        self._waiting = 0
        self._thread: threading.Thread | None = None

    async def look_up(self, find: Find[K, V], key: K) -> V | None:
        """What `find` has for the key.

        Args:
            find: From keys to values, by a single lookup.
            key: What is asked for.

        Raises:
            SecateurError: `overloaded`, and what `find` raises.
        """
        if self._at_once is not None:
            # Whatever is wrong with the file, the thread finds out without keeping others waiting.
            with suppress(DBAPIError):
                return find(self._at_once, [key]).get(key)
        return await self.ask(find, key)

    async def ask(self, find: Find[K, V], key: K) -> V | None:
        """What `find` has for the key, however long it takes to find it.

        Args:
            find: From keys to values; runs in the reader's thread, with the keys of all who ask it
                at the same time.
            key: What is asked for.

        Raises:
            SecateurError: `overloaded`, and what `find` raises.
        """
        if self._waiting >= MOST_WAITING:
            raise SecateurError(
                "overloaded", "Too many requests wait for the database.", retry_after=1
            )
        loop = asyncio.get_running_loop()
        if not self._asked:
            # Whoever asks in the same turn of the loop comes along.
            loop.call_soon(self._hand_over)
        question = _Question(find, key, loop.create_future())
        self._asked.append(question)
        self._waiting += 1
        try:
            found: V | None = await question.answer
            return found
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Ends the thread once it has answered what was asked."""
        if self._thread is not None:
            self._handed.put(None)
            self._thread.join()
            self._thread = None
            self._lookups.close()
        if self._at_once is not None:
            self._at_once.close()

    def _hand_over(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="reader", daemon=True)
            self._thread.start()
        self._handed.put(self._asked)
        self._asked = []

    def _run(self) -> None:
        while (questions := self._handed.get()) is not None:
            more: list[_Question] | None = []
            while not self._handed.empty() and more is not None:
                more = self._handed.get()
                questions = questions + (more or [])
            self._answer(questions)
            if more is None:
                return

    def _answer(self, questions: list[_Question]) -> None:
        asked: dict[Find[Any, Any], dict[Any, None]] = {}
        for question in questions:
            asked.setdefault(question.find, {})[question.key] = None
        found: dict[Find[Any, Any], Mapping[Any, Any]] = {}
        error: Exception | None = None
        try:
            for find, keys in asked.items():
                found[find] = find(self._lookups, list(keys))
        except Exception as failure:
            error = failure
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            questions[0].answer.get_loop().call_soon_threadsafe(_resolve, questions, found, error)


def _resolve(
    questions: list[_Question],
    found: dict[Find[Any, Any], Mapping[Any, Any]],
    error: Exception | None,
) -> None:
    for question in questions:
        if question.answer.done():
            continue
        values = found.get(question.find)
        if values is not None:
            question.answer.set_result(values.get(question.key))
        elif error is not None:
            question.answer.set_exception(error)
