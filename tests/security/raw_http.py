"""A server with small limits, and clients that write bytes and read bytes."""

import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.app import create_app
from store.migrate import upgrade
from store.settings import Settings
from tests.api.conftest import Caller, Service, serving

WAIT = 20.0
"""Seconds after which a test gives up on an answer."""


@dataclass(frozen=True)
class Answer:
    """What came back until the connection ended or was silent."""

    data: bytes
    closed: bool

    @property
    def statuses(self) -> list[int]:
        """Status of every response in it, in order."""
        return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", self.data)]

    def header(self, name: str) -> str | None:
        """A header of the first response."""
        for line in self.data.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]:
            field, _, value = line.partition(b":")
            if field.decode().lower() == name:
                return value.strip().decode()
        return None


class Client:
    """A socket."""

    def __init__(self, port: int, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(WAIT)
        self.socket.connect(("127.0.0.1", port))

    def send(self, data: bytes) -> bool:
        """Whether the bytes could be sent."""
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def answer(self, until: bytes | None = None, silent: float | None = None) -> Answer:
        """Reads to the end of the connection.

        Args:
            until: Reads no further than these bytes.
            silent: Reads no further once nothing came for so many seconds.
        """
        self.socket.settimeout(WAIT if silent is None else silent)
        data = b""
        while until is None or until not in data:
            try:
                more = self.socket.recv(1 << 16)
            except TimeoutError:
                return Answer(data, closed=False)
            except OSError:
                return Answer(data, closed=True)
            if not more:
                return Answer(data, closed=True)
            data += more
        return Answer(data, closed=False)

    def cut_within(self, seconds: float) -> float:
        """Seconds until the server ends the connection, which it must within `seconds`."""
        begin = time.monotonic()
        self.socket.settimeout(seconds)
        try:
            while self.socket.recv(1 << 16):
                pass
        except TimeoutError:
            raise AssertionError(f"still open after {seconds} s") from None
        except OSError:
            pass
        return time.monotonic() - begin

    def close(self) -> None:
        """Closes it."""
        self.socket.close()


@dataclass
class Server:
    """Where it listens, and a project with a key."""

    service: Service
    secret: str
    project_id: str

    @property
    def port(self) -> int:
        """Its port."""
        return int(self.service.url.rpartition(":")[2])

    @contextmanager
    def caller(self) -> Iterator[Caller]:
        """A project of its own, over an HTTP client."""
        project_id, secret = self.service.project()
        with self.service.client(secret) as http:
            yield Caller(self.service, project_id, secret, http)

    @contextmanager
    def client(self, **options: Any) -> Iterator[Client]:
        """A connection to it."""
        client = Client(self.port, **options)
        try:
            yield client
        finally:
            client.close()

    def exchange(self, data: bytes, silent: float | None = None) -> Answer:
        """Sends bytes on a new connection and reads what comes."""
        with self.client() as client:
            client.send(data)
            return client.answer(silent=silent)

    def head(self, line: str = "GET /v1/limits", *fields: str, key: bool = True) -> bytes:
        """A request's head."""
        own = [f"Authorization: Bearer {self.secret}"] if key else []
        lines = [f"{line} HTTP/1.1", "Host: here", *own, *fields, "", ""]
        return "\r\n".join(lines).encode()


@contextmanager
def serve(folder: Path, **limits: Any) -> Iterator[Server]:
    """A server on a store of its own."""
    settings = Settings(data_dir=folder, **limits)
    settings.blob_dir.mkdir(parents=True, exist_ok=True)
    upgrade(settings)
    app = create_app(settings)
    parts = app.state.service
    with serving(app) as url:
        service = Service(app, settings, parts.database, parts.blobs, url)
        project_id, secret = service.project("raw")
        yield Server(service, secret, project_id)
