"""One connection: bytes to exchanges, in order, and what is not HTTP to a refusal and an end."""

import asyncio
import contextlib
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Any, cast

import httptools

from api.http.exchange import HELD, Exchange, scope_of
from api.http.heads import LONGEST_HEAD, Head, accept, malformed, too_large
from api.http.refusals import log_refusal, refusal
from pruning.errors import SecateurError

if TYPE_CHECKING:
    from uvicorn import Config
    from uvicorn.server import ServerState

    from api.http.connections import Connections

CONNECTION = "secateur.connection"
"""Where the scope has the `Connection`, so that authentication can say `authenticated`."""

MOST_PIPELINED = 32
"""Requests of one connection that may wait for the one before them."""

_FREE_CHUNKS = 4096
_LEAST_CHUNK = 16
_FREE_OVERHEAD = 512 << 10
_STUCK_MS = 30_000
_UNSENT = 128 << 10


class Connection(asyncio.Protocol):
    """An HTTP/1.1 connection. `uvicorn.Server` makes one for each client.

    Args:
        config: Names the application.
        server_state: Uvicorn's list of connections and tasks, for its shutdown.
        app_state: What the application's lifespan left.
        _loop: The event loop; uvicorn's name.
        connections: Counts this one, and ends it if it is too slow.
    """

    def __init__(
        self,
        config: "Config",
        server_state: "ServerState",
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        connections: "Connections",
    ) -> None:
        if not config.loaded:
            config.load()
        self.app = config.loaded_app
        self.loop = _loop or asyncio.get_event_loop()
        self.connections = connections
        self.known = False  # a request on it came with a key
        self.overflow = False  # over the count: refused at its first byte
        self.address = ""
        self.head_since: float | None = None  # when the head that is awaited began
        self.idle_since: float | None = None
        self.drain_since: float | None = None
        self.written = 0
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.write_paused = False
        self._state = server_state
        self._app_state = app_state
        self._parser = httptools.HttpRequestParser(self)
        self._head = Head()
        self._last = b""  # byte
        self._head_bytes = 0  # fed since the head began
        self._body_bytes = 0  # fed since the body began
        self._reading: Exchange | None = None  # its body is not complete
        self._running: Exchange | None = None
        self._queue: deque[Exchange] = deque()
        self._refusal: SecateurError | None = None
        self._deaf = False  # nothing more is read as HTTP
        self._read_paused = False
        self._can_write = asyncio.Event()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        self.transport = cast(asyncio.Transport, transport)
        cast("set[Any]", self._state.connections).add(self)
        self.head_since = self.loop.time()
        self._peer = _pair(transport.get_extra_info("peername"))
        self._local = _pair(transport.get_extra_info("sockname"))
        self.address = self._peer[0] if self._peer else ""
        bound(transport.get_extra_info("socket"))
        self.connections.join(self)

    def connection_lost(self, error: Exception | None) -> None:
        """The client is gone, or was cut off."""
        self._state.connections.discard(cast(Any, self))
        self.connections.leave(self)
        self._deaf = True
        for exchange in (self._running, self._reading, *self._queue):
            if exchange is not None:
                exchange.lost()
        self._queue.clear()
        self.resume_writing()

    def pause_writing(self) -> None:
        """The client does not read as fast as the response is written."""
        self.write_paused = True
        self._can_write.clear()

    def resume_writing(self) -> None:
        """The client has caught up: what waited for that goes on."""
        self.write_paused = False
        self._can_write.set()
        if self._running is None and self._queue and not self.transport.is_closing():
            self._start(self._queue.popleft())
        self.pace()

    def data_received(self, data: bytes) -> None:
        """Bytes of the client."""
        if self._deaf:
            self.pace()
            return
        if self.overflow:
            self.refuse(self.connections.refusal())
            return
        if self._reading is None:
            if self.head_since is None:
                self.head_since = self.loop.time()
            self.idle_since = None
            if not self._head_bytes and data[:1] == b"\n" and self._last != b"\r":
                self.refuse(malformed("A line ends with CR and LF."))
                return
            self._head_bytes += len(data)
        else:
            self._body_bytes += len(data)
        self._last = data[-1:]
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Nothing is upgraded to: the request is answered as it is, and what follows it is not
            # read, since both sides must agree on what protocol that is.
            self._deaf = True
        except httptools.HttpParserError as error:
            cause = error.__context__
            self.refuse(cause if isinstance(cause, SecateurError) else malformed(f"{error}."[:200]))
        else:
            self._bound()
        self.pace()

    def _bound(self) -> None:
        """Refuses a head that does not end, and a body of framing."""
        reading = self._reading
        if reading is None:
            if self._head_bytes > LONGEST_HEAD:
                self.refuse(too_large())
        elif self._body_bytes - reading.body_bytes > _FREE_OVERHEAD + reading.body_bytes:
            self.refuse(malformed("The body is more framing than content."))

    # the parser's callbacks

    def on_message_begin(self) -> None:
        """A head begins."""
        self._head = Head()
        if self.head_since is None:
            self.head_since = self.loop.time()

    def on_url(self, piece: bytes) -> None:
        """Some of the target."""
        self._head.add_target(piece)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field, or a trailer field, which nobody here wants."""
        if self._reading is None:
            self._head.add_field(name, value)

    def on_headers_complete(self) -> None:
        """A request has begun."""
        method, version = self._parser.get_method().decode(), self._parser.get_http_version()
        request = accept(self._head, method, version)
        if len(self._queue) >= MOST_PIPELINED:
            raise SecateurError(
                "too_many_requests",
                f"More than {MOST_PIPELINED} requests wait on this connection.",
                hint="Wait for responses, or use more connections.",
            )
        scope = scope_of(
            http_version=version,
            method=method,
            scheme="http",
            path=request.path,
            raw_path=request.raw_path,
            query_string=request.query,
            root_path="",
            headers=self._head.fields,
            client=self._peer,
            server=self._local,
            state=self._app_state.copy(),
        )
        scope[CONNECTION] = self
        exchange = Exchange(
            self,
            scope,
            keep_alive=version != "1.0"
            and self._parser.should_keep_alive()
            and not self._parser.should_upgrade(),
            has_body=request.has_body,
            expects_continue=request.expects_continue,
        )
        self._reading, self.head_since, self._head_bytes, self._body_bytes = exchange, None, 0, 0
        if self._running is None and not self._queue and not self.write_paused:
            self._start(exchange)
        else:
            self._queue.append(exchange)

    def on_chunk_header(self) -> None:
        """A chunk of a body begins: many small ones are work without content."""
        exchange = self._reading
        if exchange is None:
            return
        exchange.chunks += 1
        if exchange.chunks > _FREE_CHUNKS + exchange.body_bytes // _LEAST_CHUNK:
            raise malformed("The body comes in too many too small chunks.")

    def on_body(self, data: bytes) -> None:
        """Some of a body."""
        if self._reading is not None:
            self._reading.arrived(data)

    def on_message_complete(self) -> None:
        """A request is complete."""
        exchange, self._reading = self._reading, None
        if exchange is not None:
            exchange.arrived_all()

    # exchanges

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """Headers of every response."""
        return self._state.default_headers

    @property
    def in_progress(self) -> bool:
        """Whether a request is being answered."""
        return self._running is not None

    @property
    def waiting_body(self) -> Exchange | None:
        """The exchange whose application waits for more of the body, if there is one."""
        running = self._running
        return running if running is not None and running.waiting else None

    def awaited_for(self) -> float:
        """Seconds that a head has been awaited for."""
        since = self.idle_since if self.head_since is None else self.head_since
        return 0.0 if since is None else self.loop.time() - since

    def authenticated(self) -> None:
        """A request on it came with a key that is known."""
        if not self.known:
            self.known = True
            self.connections.authenticated(self)

    def write(self, data: bytes | memoryview) -> None:
        """Sends bytes, or holds them for a client that does not read."""
        if data and not self.transport.is_closing():
            self.written += len(data)
            self.transport.write(data)

    async def writable(self) -> None:
        """Waits until the client has read most of what was written."""
        while self.write_paused:
            await self._can_write.wait()

    def completed(self, exchange: Exchange) -> None:
        """The response is complete: the next request, or an end."""
        self._state.total_requests += 1
        self._running = None
        if self.transport.is_closing():
            return
        if not exchange.body_complete or (self._deaf and not exchange.keep_alive):
            self._drain()
        elif not exchange.keep_alive:
            self.end()
        elif self._queue:
            if not self.write_paused:  # else when the client has read what it has asked for
                self._start(self._queue.popleft())
        elif self._refusal is not None:
            self._write_refusal(self._refusal)
        else:
            self._wait_for_head()
        self.pace()

    def refuse(self, error: SecateurError) -> None:
        """Reads nothing more; says why when everything before is answered."""
        self._deaf = True
        reading, self._reading = self._reading, None
        newest = self._queue[-1] if self._queue else self._running
        if reading is not None:
            log_refusal(self.address, error)
            reading.fail(error)
        elif newest is None:
            self._write_refusal(error)
        elif newest.keep_alive:
            self._refusal = error

    def head_late(self, error: SecateurError) -> None:
        """Ends a connection that brings no request; says why if some of one is there."""
        if self._head_bytes:
            self.refuse(error)
        else:
            self.end()

    def pace(self) -> None:
        """Reads the socket only as far as somebody waits for what it brings."""
        held = len(self._reading.body) if self._reading is not None else 0
        pause = held > HELD or bool(self._queue) or (self._deaf and self._running is not None)
        if pause is not self._read_paused and not self.transport.is_closing():
            self._read_paused = pause
            if pause:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def shutdown(self) -> None:
        """Uvicorn stops: the request that is being answered is the last."""
        self._deaf = True
        self._queue.clear()
        if self._running is None:
            self.end()
        else:
            self._running.keep_alive = False

    def end(self) -> None:
        """Closes when what was written has been sent."""
        if not self.transport.is_closing():
            self.transport.close()

    def cut(self) -> None:
        """Closes at once, and has the kernel drop what it holds for the client."""
        self._deaf = True
        connection = self.transport.get_extra_info("socket")
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _start(self, exchange: Exchange) -> None:
        self._running, self.idle_since = exchange, None
        self.connections.busy(self)
        task = self.loop.create_task(exchange.run(self.app))
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    def _wait_for_head(self) -> None:
        now = self.loop.time()
        if self.head_since is None:
            self.idle_since = now
        else:
            self.head_since = now
        self.connections.idle(self)

    def _write_refusal(self, error: SecateurError) -> None:
        log_refusal(self.address, error)
        self.write(refusal(error, self.default_headers))
        self._drain()

    def _drain(self) -> None:
        """Says that nothing more comes, and takes what is still on its way.

        A socket that is closed with bytes unread resets the connection, and the client may lose
        the response.
        """
        self._deaf = True
        self.head_since = self.idle_since = None
        self.drain_since = self.loop.time()
        if self.transport.can_write_eof():
            self.transport.write_eof()


def _pair(address: Any) -> tuple[str, int] | None:
    """Host and port; None for a socket of the file system."""
    return (str(address[0]), int(address[1])) if isinstance(address, tuple) else None


def bound(connection: socket.socket | None) -> None:
    """Bounds what the kernel does for a client that does not read.

    It ends a connection of which nothing is taken for some time, also one that is closed here, and
    holds little that is not yet on its way.
    """
    if connection is None:
        return
    for name, value in (("TCP_USER_TIMEOUT", _STUCK_MS), ("TCP_NOTSENT_LOWAT", _UNSENT)):
        option = getattr(socket, name, None)
        if option is not None:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, option, value)
