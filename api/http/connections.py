"""All connections of a process: how many there may be, and which have been too slow.

One timer looks at all of them every second. Timers of their own would cost every request two calls
of the event loop.
"""

import asyncio
import fcntl
import socket
import struct
import termios
from typing import TYPE_CHECKING

from api.http.addresses import group, trusted
from pruning.errors import SecateurError
from store.settings import Settings

if TYPE_CHECKING:
    from api.http.connection import Connection
    from api.http.exchange import Exchange

DRAIN_SECONDS = 3.0
"""How long the rest of a request that has been answered is still taken."""

ENDS = ("head", "idle", "body", "reading", "draining", "room", "overflow")
"""Why connections are ended: what was too slow, or that there was no room."""

_EVICTABLE_SECONDS = 1.0
"""A head that is awaited for longer makes room for a new connection."""

_OVERFLOW = 500
"""Connections over the limit that are told so; more are dropped."""


class Connections:
    """Counts connections, makes room for new ones, and ends slow ones.

    A connection on which no request has come with a key is anonymous. Those that wait for a head
    give way to newer ones, oldest first: a client that sends its request at once always finds room.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.interval = min(1.0, settings.head_seconds / 4, settings.slow_seconds / 4)
        self._all: dict[Connection, Pace] = {}
        self._by_address: dict[str, int] = {}
        self._anonymous = 0
        # Anonymous connections that wait for a head, oldest first.
        self._waiting: dict[Connection, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._ticked = 0.0
        self.ended = dict.fromkeys(ENDS, 0)

    def counts(self) -> dict[str, int]:
        """Connections of each kind."""
        known = sum(connection.known for connection in self._all)
        over = sum(connection.overflow for connection in self._all)
        return {"known": known, "anonymous": len(self._all) - known - over, "overflow": over}

    def __len__(self) -> int:
        return len(self._all)

    def join(self, connection: "Connection") -> None:
        """Counts a new connection; it is marked `overflow` if there is no room for it."""
        settings = self.settings
        self._all[connection] = Pace(settings)
        if trusted(connection.address, settings.trusted_proxies):
            # It carries many clients, and sees to the slow ones itself.
            connection.known = True
        else:
            self._anonymous += 1
            key = group(connection.address)
            self._by_address[key] = self._by_address.get(key, 0) + 1
            connection.overflow = self._by_address[key] > settings.address_connections_limit or (
                self._anonymous > settings.anonymous_connections_limit and not self._evict()
            )
        if len(self._all) > settings.connections_limit and not connection.overflow:
            connection.overflow = not self._evict()
        if len(self._all) > settings.connections_limit + _OVERFLOW:
            self.ended["overflow"] += 1
            connection.cut()
        elif not connection.known and not connection.overflow:
            self._waiting[connection] = None
        if self._timer is None:
            self._ticked = connection.loop.time()
            self._timer = connection.loop.call_later(self.interval, self._tick, connection.loop)

    def leave(self, connection: "Connection") -> None:
        """A connection is gone."""
        if self._all.pop(connection, None) is None:
            return
        self._waiting.pop(connection, None)
        if trusted(connection.address, self.settings.trusted_proxies):
            return
        self._anonymous -= not connection.known
        key = group(connection.address)
        self._by_address[key] -= 1
        if not self._by_address[key]:
            del self._by_address[key]

    def authenticated(self, connection: "Connection") -> None:
        """A connection is anonymous no longer."""
        self._anonymous -= 1
        self._waiting.pop(connection, None)

    def busy(self, connection: "Connection") -> None:
        """A request has begun on it."""
        self._waiting.pop(connection, None)

    def idle(self, connection: "Connection") -> None:
        """It waits for a request again."""
        if not connection.known:
            self._waiting[connection] = None

    def refusal(self) -> SecateurError:
        """The 503 for a connection that there is no room for."""
        return SecateurError(
            "overloaded",
            "There are as many connections as the service takes.",
            hint="Try again shortly, and use one connection for many requests.",
            retry_after=2,
        )

    def _evict(self) -> bool:
        oldest = next(iter(self._waiting), None)
        if oldest is None or oldest.awaited_for() < _EVICTABLE_SECONDS:
            return False
        del self._waiting[oldest]
        self.ended["room"] += 1
        oldest.cut()
        return True

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        since, self._ticked = now - self._ticked, now
        for connection, pace in list(self._all.items()):
            if reason := pace.check(connection, now, since):
                self.ended[reason] += 1
        self._timer = loop.call_later(self.interval, self._tick, loop) if self._all else None


class Pace:
    """How fast one connection moves, and what is done if that is too slow."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.least = settings.slow_seconds * settings.slow_bytes_per_second
        self._exchange: Exchange | None = None
        self._waited = 0.0
        self._body_bytes = 0
        self._write_since: float | None = None
        self._taken = 0
        self._pending = 0

    def check(self, connection: "Connection", now: float, since: float) -> str | None:
        """Ends the connection, or fails its request, if it is too slow.

        Args:
            connection: Whose pace this is.
            now: The loop's clock.
            since: Seconds since the last check.

        Returns:
            What was too slow, one of `ENDS`.
        """
        if self._reads_too_slowly(connection, now):
            connection.cut()
            return "reading"
        if connection.drain_since is not None:
            if now - connection.drain_since > DRAIN_SECONDS:
                connection.end()
                return "draining"
        elif connection.in_progress:
            if self._sends_too_slowly(connection, since):
                connection.refuse(_timeout("The body comes too slowly."))
                return "body"
        elif connection.idle_since is not None:
            if now - connection.idle_since > self.settings.keep_alive_seconds:
                connection.end()
                return "idle"
        elif connection.head_since is not None:
            seconds = self.settings.head_seconds
            if now - connection.head_since > seconds:
                connection.head_late(_timeout(f"The head did not come within {seconds:g} s."))
                return "head"
        return None

    def _sends_too_slowly(self, connection: "Connection", since: float) -> bool:
        """Only time in which the application waits counts: its own slowness is not the client's."""
        exchange = connection.waiting_body
        if exchange is None:
            return False
        if exchange is not self._exchange:
            self._exchange, self._waited, self._body_bytes = exchange, 0.0, exchange.body_bytes
        self._waited += since
        if self._waited < self.settings.slow_seconds:
            return False
        moved = exchange.body_bytes - self._body_bytes
        self._waited, self._body_bytes = 0.0, exchange.body_bytes
        return moved < self.least

    def _reads_too_slowly(self, connection: "Connection", now: float) -> bool:
        """What is pending when a window begins is taken by its end, or the least rate is."""
        if connection.written == self._taken and self._write_since is None:
            return False
        pending = unread(connection.transport)
        taken = connection.written - pending
        if self._write_since is None:
            if pending:
                self._write_since = now
                self._pending = pending
            self._taken = taken
            return False
        moved = taken - self._taken
        if moved < self._pending and now - self._write_since < self.settings.slow_seconds:
            return False
        too_slow = moved < min(self.least, self._pending)
        self._write_since, self._taken, self._pending = (now if pending else None), taken, pending
        return too_slow


def unread(transport: asyncio.Transport) -> int:
    """Bytes that were written and that the client's machine has not taken."""
    held = transport.get_write_buffer_size()
    connection: socket.socket | None = transport.get_extra_info("socket")
    if connection is None or connection.fileno() < 0:
        return held
    try:
        answer = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    except OSError:
        return held
    (queued,) = struct.unpack("i", answer)
    return held + int(queued)


def _timeout(message: str) -> SecateurError:
    return SecateurError("request_timeout", message, hint="Send the request again.")
