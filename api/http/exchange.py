"""One request and its response, as the ASGI application sees them."""

import asyncio
import http
import logging
import re
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Message, Scope

from pruning.errors import SecateurError

if TYPE_CHECKING:
    from api.http.connection import Connection

HELD = 64 << 10
"""Bytes of a body that are held for the application; with more, the socket is not read."""

PIECE = 64 << 10
"""Bytes of a response that are handed to the transport at once."""

log = logging.getLogger("secateur.api.http")
_UNSAFE = re.compile(rb"[\x00\r\n]")
_STATUS = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode()
    for status in http.HTTPStatus
}
_WITHOUT_BODY = frozenset({204, 304})


class Exchange:
    """Takes the body from the connection and gives it the response.

    Args:
        connection: The client's connection, which brings the request and takes the response.
        scope: The ASGI scope.
        keep_alive: Whether the client wants to send more requests.
        has_body: Whether a body follows the head.
        expects_continue: Whether the client waits for 100 before it sends it.
    """

    def __init__(
        self,
        connection: "Connection",
        scope: Scope,
        *,
        keep_alive: bool,
        has_body: bool,
        expects_continue: bool,
    ) -> None:
        self.connection = connection
        self.scope = scope
        self.keep_alive = keep_alive
        self.body = bytearray()
        self.body_complete = not has_body
        self.body_bytes = 0
        self.chunks = 0
        self.waiting = False  # the application waits for more of the body
        self.gone = False  # nobody reads the response
        self.started = False
        self.complete = False
        self._expects_continue = expects_continue
        self._error: SecateurError | None = None
        self._change = asyncio.Event()
        self._delivered = False  # all of the body, to the application
        self._head = b""
        self._empty = False
        self._chunked = False
        self._left: int | None = None  # bytes that Content-Length still promises

    async def run(self, app: ASGIApp) -> None:
        """Calls the application; whatever it does, the exchange ends."""
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            self.connection.end()
            raise
        except Exception:
            log.exception("the application raised")
        if self.complete or self.gone:
            return
        if self.started:
            # What was promised can't be kept; only an early end tells the client.
            self.connection.end()
            return
        self.keep_alive = False
        headers = [(b"content-length", b"0")]
        await self.send({"type": "http.response.start", "status": 500, "headers": headers})
        await self.send({"type": "http.response.body"})

    def arrived(self, data: bytes) -> None:
        """Some of the body."""
        self.body_bytes += len(data)
        if self.complete or self.gone:
            return
        self.body += data
        self._change.set()

    def arrived_all(self) -> None:
        """The body is complete."""
        self.body_complete = True
        self._change.set()

    def lost(self) -> None:
        """The client is gone, or shall be taken to be."""
        self.gone = True
        self._change.set()

    def fail(self, error: SecateurError) -> None:
        """The body can't be had whole: the application is told by `error` when it next asks."""
        self.keep_alive = False
        if self.started:
            self.connection.end()
        else:
            self._error = error
            self._change.set()

    async def receive(self) -> Message:
        """The next message for the application.

        Raises:
            SecateurError: What `fail` was told.
        """
        if self._expects_continue and not self.body_bytes and not self.body_complete:
            self.connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._expects_continue = False
        while not (self.gone or self.complete):
            if self._error is not None:
                raise self._error
            if self.body or (self.body_complete and not self._delivered):
                body, self.body = bytes(self.body), bytearray()
                self._delivered = self.body_complete
                return {"type": "http.request", "body": body, "more_body": not self.body_complete}
            self._change.clear()
            self.waiting = not self.body_complete
            self.connection.pace()
            try:
                await self._change.wait()
            finally:
                self.waiting = False
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Takes a message of the response; waits while the client does not read."""
        if self.connection.write_paused and not self.gone:
            await self.connection.writable()
        if self.gone or self.connection.transport.is_closing():
            return
        if not self.started:
            self._start(message)
        elif self.complete:
            raise RuntimeError("the response is complete already")
        else:
            await self._continue(message)

    def _start(self, message: Message) -> None:
        if message["type"] != "http.response.start":
            raise RuntimeError(f"a response does not begin with {message['type']}")
        self.started = True
        status: int = message["status"]
        lines = [_STATUS.get(status) or b"HTTP/1.1 %d \r\n" % status]
        # The rest of the body will not be read: whoever sends it is told.
        if not self.body_complete:
            self.keep_alive = False
        said_close = False
        for name, value in [*self.connection.default_headers, *message.get("headers", ())]:
            if _UNSAFE.search(name) or _UNSAFE.search(value):
                raise RuntimeError("a response's header holds a line break")
            name = name.lower()
            if name == b"content-length":
                self._left = int(value)
            elif name == b"connection" and b"close" in value.lower():
                self.keep_alive, said_close = False, True
            elif name == b"transfer-encoding":
                continue
            lines += [name, b": ", value, b"\r\n"]
        if self.scope["method"] == "HEAD" or status in _WITHOUT_BODY:
            self._empty = True
        elif self._left is None:
            self._chunked = self.scope["http_version"] != "1.0"
            if self._chunked:
                lines.append(b"transfer-encoding: chunked\r\n")
            else:
                self.keep_alive = False
        if not self.keep_alive and not said_close:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        self._head = b"".join(lines)
        # Head and a body that is there go out together; a stream's head goes out at once.
        self.connection.loop.call_soon(self._send_head)

    def _send_head(self) -> None:
        head, self._head = self._head, b""
        if head and not self.gone:
            self.connection.write(head)

    async def _continue(self, message: Message) -> None:
        if message["type"] != "http.response.body":
            raise RuntimeError(f"a response does not go on with {message['type']}")
        body: bytes = message.get("body", b"")
        more: bool = message.get("more_body", False)
        if self._empty:
            body = b""
        elif self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the response is not as long as its Content-Length")
        elif self._chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more:
                body += b"0\r\n\r\n"
        head, self._head = self._head, b""
        if len(body) <= PIECE:
            if head or body:
                self.connection.write(head + body)
        else:
            # Whoever does not read holds one piece, not all of it.
            self.connection.write(head)
            whole = memoryview(body)
            for start in range(0, len(body), PIECE):
                if self.connection.write_paused:
                    await self.connection.writable()
                self.connection.write(whole[start : start + PIECE])
        if not more and not self.gone:
            self.complete = True
            self._change.set()
            self.connection.completed(self)


def scope_of(**fields: Any) -> Scope:
    """An ASGI scope of HTTP with these fields."""
    return {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, **fields}
