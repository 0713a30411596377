"""The API under requests made to be work, and beside clients that are slow in every phase.

Figures: no single request holds the event loop for more than 50 ms of the processor, which is what
/healthz would wait for; 200 clients at a byte a second, in any phase, are all cut within 30 s, and
neither /healthz nor a GET is slower beside them than 1.5 times what it is alone and a millisecond.
"""

import os
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.common import save, table
from benchmarks.request_kinds import FILE, Kind, Stored, fill, kinds
from benchmarks.watched_api import WATCH_PATH
from store.db import Database
from store.settings import Settings

LONGEST_HELD = 0.05
CLIENTS = 200
LATEST_CUT = 30.0
PROBES_PER_SECOND = 40


@dataclass
class Api:
    """A running API."""

    port: int
    secret: str
    stored: Stored
    process: psutil.Process

    def head(self, line: str, *fields: str) -> bytes:
        """A request's head."""
        lines = [f"{line} HTTP/1.1", "Host: here", f"Authorization: Bearer {self.secret}", *fields]
        return "\r\n".join([*lines, "", ""]).encode()


@contextmanager
def running(folder: Path, *, rows: int, layers: int) -> Iterator[Api]:
    """The API on a store of its own that has something in it."""
    environment = os.environ | {"SECATEUR_DATA_DIR": str(folder)}
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.watched_api"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        port, secret, project = process.stdout.readline().split()
        database = Database(Settings(data_dir=folder))
        stored = fill(database, project, rows=rows, layers=layers)
        database.dispose()
        yield Api(int(port), secret, stored, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait(30)


def held_by(api: Api, http: httpx.Client, kind: Kind) -> dict[str, Any]:
    """What one request of a kind costs: the longest that it held the loop, and its answer."""
    http.get(WATCH_PATH)
    began = time.perf_counter()
    response = http.request(kind.method, kind.path, headers=kind.headers, content=kind.body)
    seconds = time.perf_counter() - began
    said = http.get(WATCH_PATH).json()
    return {
        "kind": kind.name,
        "status": response.status_code,
        "bytes": len(response.content),
        "seconds": seconds,
        "held": said["held"],
        "peak_bytes": said["peak_bytes"],
    }


def client_of(api: Api) -> httpx.Client:
    """An HTTP client with the key."""
    return httpx.Client(
        base_url=f"http://127.0.0.1:{api.port}",
        headers={"authorization": f"Bearer {api.secret}"},
        timeout=120,
    )


# Slow clients: what each sends at once, and what it does each second after that.
Step = Callable[[socket.socket], object]


def _byte(client: socket.socket) -> None:
    client.send(b"x")


def _sip(client: socket.socket) -> None:
    client.recv(1)


def _nothing(client: socket.socket) -> None:
    pass


def phases(api: Api) -> dict[str, tuple[bytes, Step]]:
    """Every phase of a connection in which a client may be slow."""
    form = "Content-Type: multipart/form-data; boundary=b"
    events = f"GET /v1/jobs/{api.stored.job}/events"
    return {
        "head": (b"GET /", _byte),
        "body of JSON": (api.head("POST /v1/plans", "Content-Length: 9999"), _byte),
        "body of an upload": (api.head("POST /v1/models", "Content-Length: 9999"), _byte),
        "form of an upload": (
            api.head("POST /v1/models", form, "Content-Length: 9999") + FILE,
            _byte,
        ),
        "reading a response": (api.head(f"GET /v1/models/{api.stored.model}") * 4, _sip),
        "reading a stream": (api.head(events, "Accept: text/event-stream"), _sip),
        "idle": (api.head("GET /v1/limits"), _nothing),
    }


def cut_after(api: Api, begin: bytes, step: Step) -> list[float]:
    """Seconds until each of the slow clients is cut; infinite for one that never is."""
    poller, opened = select.poll(), {}
    for _ in range(CLIENTS):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", api.port))
        client.setblocking(False)
        client.send(begin)
        poller.register(client, select.POLLRDHUP)
        opened[client.fileno()] = client
    began = time.monotonic()
    stepped, cut = began, []
    while opened and time.monotonic() - began < 2 * LATEST_CUT:
        for number, _ in poller.poll(50):
            poller.unregister(number)
            opened.pop(number).close()
            cut.append(time.monotonic() - began)
        if time.monotonic() - stepped >= 1:
            stepped += 1
            for client in opened.values():
                try:
                    step(client)
                except OSError:
                    continue
    for client in opened.values():
        client.close()
    return sorted(cut + [float("inf")] * len(opened))


class Probe(threading.Thread):
    """Asks for two paths in turn, at a fixed rate, on one connection each."""

    def __init__(self, api: Api) -> None:
        super().__init__(daemon=True)
        self.requests = {
            "healthz": api.head("GET /healthz"),
            "get": api.head(f"GET /v1/jobs/{api.stored.job}"),
        }
        self.port = api.port
        self.seconds: dict[str, list[float]] = {name: [] for name in self.requests}
        self.over = threading.Event()

    def run(self) -> None:
        """Until `over` is set."""
        connections = {
            name: socket.create_connection(("127.0.0.1", self.port)) for name in self.requests
        }
        while not self.over.wait(1 / PROBES_PER_SECOND):
            for name, request in self.requests.items():
                began = time.perf_counter()
                connections[name].sendall(request)
                data = b""
                while b"\r\n\r\n" not in data or not data.rstrip().endswith(b"}"):
                    data += connections[name].recv(1 << 16)
                self.seconds[name].append(time.perf_counter() - began)
        for connection in connections.values():
            connection.close()

    def summary(self) -> dict[str, float]:
        """Median and 99th percentile of each, in milliseconds."""
        self.over.set()
        self.join()
        found = {}
        for name, seconds in self.seconds.items():
            found[f"{name}_p50"] = statistics.median(seconds) * 1e3
            found[f"{name}_p99"] = statistics.quantiles(seconds, n=100)[-1] * 1e3
        return found


def beside(api: Api, act: Callable[[], list[float]]) -> tuple[list[float], dict[str, float]]:
    """What `act` returns, and how other requests fared meanwhile."""
    probe = Probe(api)
    used = sum(api.process.cpu_times()[:2])
    probe.start()
    found = act()
    summary = probe.summary()
    return found, summary | {"cpu_seconds": sum(api.process.cpu_times()[:2]) - used}


def _alone() -> list[float]:
    time.sleep(15)
    return []


def run() -> bool:
    """Measure, print, save; whether the figures were met."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder), rows=200, layers=300) as api,
    ):
        with client_of(api) as http:
            held = [held_by(api, http, kind) for kind in kinds(api.stored)]
        held.sort(key=lambda row: -row["held"])
        table(
            [
                [r["kind"], r["status"], r["bytes"], r["held"] * 1e3, r["seconds"] * 1e3]
                for r in held
            ],
            ["request", "status", "bytes", "loop held ms", "took ms"],
        )
        _, alone = beside(api, _alone)
        rows = [{"phase": "none", **alone}]
        for phase, (begin, step) in phases(api).items():
            cut, summary = beside(api, lambda begin=begin, step=step: cut_after(api, begin, step))
            rows.append({"phase": phase, "first": cut[0], "last": cut[-1], **summary})
        columns = ["phase", "first", "last", *alone]
        table([[row.get(name, "") for name in columns] for row in rows], columns)
    met = held[0]["held"] <= LONGEST_HELD and all(
        row["last"] <= LATEST_CUT
        and all(row[f"{n}_p99"] <= 1.5 * alone[f"{n}_p99"] + 1 for n in ("healthz", "get"))
        for row in rows[1:]
    )
    save("http_door", {"requests": held, "slow_clients": rows, "clients": CLIENTS, "met": met})
    return met
