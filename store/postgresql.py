"""Connections to PostgreSQL that do not wait for ever for a server that says nothing.

A server that is stopped, or whose machine is gone without a word, keeps its connections open: the
kernel takes what is sent, and the driver would wait for an answer until it comes.
"""

import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import psycopg

Result = TypeVar("Result")


def connecting(answer_seconds: float) -> Callable[..., "psycopg.Connection[Any]"]:
    """What opens a connection, each answer of which comes in time or ends it.

    Args:
        answer_seconds: Longest wait for the answer to one statement.
    """

    class Answering(psycopg.Connection[Any]):
        def wait(self, gen: Any, *arguments: Any, **options: Any) -> Any:
            return super().wait(_in_time(gen, answer_seconds, self), *arguments, **options)

    return Answering.connect


def _in_time(
    steps: Generator[Any, Any, Result], seconds: float, connection: "psycopg.Connection[Any]"
) -> Generator[Any, Any, Result]:
    """The driver's own steps; it comes back to them ten times a second, also without news."""
    deadline = time.monotonic() + seconds
    try:
        wanted = next(steps)
        while True:
            ready = yield wanted
            if time.monotonic() > deadline:
                steps.close()
                # What was asked may be done all the same: nothing can be known of it any more.
                connection.pgconn.finish()
                raise psycopg.OperationalError(f"the server gave no answer for {seconds:g} s")
            wanted = steps.send(ready)
    except StopIteration as end:
        result: Result = end.value
        return result
