"""Requests over kept connections as fast as they are answered, and how long each took.

A protocol that knows just enough of HTTP/1.1: on two cores a full client would be what is measured.
"""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Measured:
    """What came back: seconds of each request, statuses, and how long all took together."""

    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    def quantile(self, q: float) -> float:
        """Seconds that a share `q` of the requests took at most."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


class _Repeat(asyncio.Protocol):
    """Sends the request again whenever its answer is complete, until the deadline."""

    def __init__(self, request: bytes, measured: Measured, until: float, pause: float) -> None:
        self.request, self.measured, self.until, self.pause = request, measured, until, pause
        self.done = asyncio.get_running_loop().create_future()
        self.held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._send()

    def _send(self) -> None:
        self.sent = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.held += data
        head, mark, body = self.held.partition(b"\r\n\r\n")
        if not mark or len(body) < _length(head):
            return
        self.held = b""
        now = time.perf_counter()
        self.measured.latencies.append(now - self.sent)
        self.measured.statuses[int(head[9:12])] += 1
        if now >= self.until:
            self.transport.close()
        elif self.pause:
            asyncio.get_running_loop().call_later(self.pause, self._send)
        else:
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


def _length(head: bytes) -> int:
    lower = head.lower()
    begin = lower.find(b"content-length:")
    return int(lower[begin + 15 :].split(b"\r\n", 1)[0]) if begin >= 0 else 0


async def repeat(
    url: str,
    path: str,
    key: str | None = None,
    *,
    connections: int = 1,
    seconds: float = 1.0,
    pause: float = 0.0,
    headers: str = "",
) -> Measured:
    """GETs the path over so many connections, each asking again as soon as it was answered.

    Args:
        url: The service.
        path: With its query.
        key: The API key.
        connections: How many ask at the same time.
        seconds: How long.
        pause: Seconds that each waits before it asks again.
        headers: Further header lines, each with its CRLF.
    """
    host, port = urlsplit(url).hostname, urlsplit(url).port
    own = f"authorization: Bearer {key}\r\n" if key else ""
    request = f"GET {path} HTTP/1.1\r\nhost: {host}\r\n{own}{headers}\r\n".encode()
    measured = Measured()
    begin = time.perf_counter()
    loop = asyncio.get_running_loop()
    protocols = [
        (
            await loop.create_connection(
                lambda: _Repeat(request, measured, begin + seconds, pause), host, port
            )
        )[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(protocol.done for protocol in protocols))
    measured.seconds = time.perf_counter() - begin
    return measured
