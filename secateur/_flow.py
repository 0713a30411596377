"""Every conversation with the service as a generator of operations, free of any I/O.

A flow yields what it wants done (`Send`, `Open`, `Read`, `Sleep`) and is sent the
outcome; `httpx.TransportError` is thrown into it. What it has for its caller on the way it yields
as `Emit`. The sync and the async client differ only in how they carry out these operations, so
retries, polling, resumption and error mapping exist once.
"""

import json
import random
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

from secateur.errors import SecateurError, connection_failed, from_problem

T = TypeVar("T")

ATTEMPTS = 5
"""Times a call is sent before its failure is the caller's."""

FIRST = 2
"""The same for a service that nothing listens for, where it has never answered this client."""

PATIENCE = 90.0
"""Seconds of pauses that following a job outlasts, as while its service restarts."""

UPLOAD_PATIENCE = 120.0
"""Seconds of pauses that an upload goes through while the service takes no more of them."""

BUSY_STATUS = frozenset({429, 502, 503, 504})
NOT_CONNECTED = (httpx.ConnectError, httpx.ConnectTimeout)
_LONGEST_PAUSE = 10.0


@dataclass(frozen=True)
class Body:
    """A request body that is streamed: chunks can be asked for again where it can be replayed."""

    size: int | None
    replayable: bool
    chunks: Callable[[], Iterator[bytes]]
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Call:
    """One HTTP request. `repeatable`: sending it twice does no more than sending it once."""

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    body: Body | None = None
    repeatable: bool = True
    read_timeout: float | None = None


@dataclass(frozen=True)
class Reply:
    """A response; `content` is empty while the body is still to be read."""

    status: int
    headers: Mapping[str, str]
    content: bytes = b""

    def json(self) -> Any:
        """The body's JSON values."""
        try:
            return json.loads(self.content)
        except ValueError:
            raise SecateurError(
                "unavailable",
                "The answer is not JSON: something other than Secateur answers at this URL.",
                hint="Check SECATEUR_URL.",
            ) from None


@dataclass(frozen=True)
class Send:
    """Send a call and read its reply: answered with a `Reply`."""

    call: Call


@dataclass(frozen=True)
class Open:
    """Send a call and leave its body to `Read`: answered with a `Reply` without content.

    Whatever was opened before is closed, and so it is when the flow ends.
    """

    call: Call


@dataclass(frozen=True)
class Read:
    """The next bytes of the opened body: answered with bytes, empty at the end."""


@dataclass(frozen=True)
class Sleep:
    """Wait."""

    seconds: float


@dataclass(frozen=True)
class Emit:
    """A value for whoever iterates."""

    value: Any


Operation = Send | Open | Read | Sleep | Emit
Flow = Generator[Operation, Any, T]


def returning(flow: Flow[T]) -> Flow[None]:
    """The flow with its return value emitted at the end."""
    yield Emit((yield from flow))


def each(flow: Flow[Iterable[Any]]) -> Flow[None]:
    """The flow's return value, element by element."""
    for value in (yield from flow):
        yield Emit(value)


def backoff(attempt: int) -> float:
    """Seconds before the next attempt: exponential, with jitter against thundering herds."""
    return float(min(0.15 * 2 ** (attempt - 1), _LONGEST_PAUSE) * random.uniform(0.7, 1.3))


def request(
    call: Call,
    url: str,
    done_before: int | None = None,
    patience: float = 0.0,
    attempts: int = ATTEMPTS,
    busy_patience: float = 0.0,
) -> Flow[Reply]:
    """Sends the call, again where that is safe, and returns the reply of status < 400.

    Args:
        call: What to send.
        url: What errors name.
        done_before: A status that is a success too, once an earlier attempt may have had its
            effect without its answer coming back.
        patience: Seconds of pauses to go through before giving up, however many attempts.
        attempts: Times that no connection may come about. One that is waited for in vain counts
            as all of them, where that is fewer than usual.
        busy_patience: The same as `patience`, where a service answers that it is busy.

    Raises:
        SecateurError: What the service says, or `connection_failed`.
    """
    attempt = 0
    waited = 0.0
    unanswered = False
    while True:
        attempt += 1
        over = attempt >= ATTEMPTS and waited >= patience
        refused = attempt >= ATTEMPTS and waited >= max(patience, busy_patience)
        try:
            reply: Reply = yield Send(call)
        except httpx.TransportError as error:
            if isinstance(error, NOT_CONNECTED) and waited >= patience:
                waited_in_vain = isinstance(error, httpx.ConnectTimeout) and attempts < ATTEMPTS
                over = waited_in_vain or attempt >= attempts
            if over or not _may_repeat_after(call, error):
                raise connection_failed(url, error) from None
            unanswered = unanswered or not isinstance(error, NOT_CONNECTED)
            pause = backoff(attempt)
            waited += pause
            yield Sleep(pause)
            continue
        if reply.status < 400 or (unanswered and reply.status == done_before):
            return reply
        if refused or reply.status not in BUSY_STATUS or not (call.repeatable and replayable(call)):
            raise from_problem(reply.status, reply.content)
        pause = max(backoff(attempt), retry_after(reply))
        waited += pause
        yield Sleep(pause)


def retry_after(reply: Reply) -> float:
    """Seconds the service asks to wait; dates and nonsense count as none.

    A little more, by chance: who was refused at the same time does not come back at the same time.
    """
    try:
        asked = min(max(float(reply.headers.get("retry-after", 0)), 0.0), _LONGEST_PAUSE)
    except ValueError:
        return 0.0
    return asked * random.uniform(1.0, 1.3)


def replayable(call: Call) -> bool:
    """Whether the body can be sent again."""
    return call.body is None or call.body.replayable


def _may_repeat_after(call: Call, error: httpx.TransportError) -> bool:
    if isinstance(error, httpx.UnsupportedProtocol):
        return False
    # Where no connection was made nothing was asked for yet, and no byte of the body was taken.
    return isinstance(error, NOT_CONNECTED) or (call.repeatable and replayable(call))
