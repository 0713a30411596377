"""What 300 event streams cost other requests: GET of a job with and without them, in turns.

Half of the streams follow a job that runs, the others jobs that wait. The figure: with the streams
the rate is at least .8 of that without them. Memory of the process is taken with none, 300 and
1,000 streams (no more than 500 of one project, so the 1,000 are of two).
"""

import asyncio
import statistics
import time
from typing import Any
from urllib.parse import urlsplit

import psutil

from benchmarks.common import save, table
from benchmarks.http_load import Measured, repeat
from benchmarks.polling import service_with_inputs, started
from secateur import Client

ROUNDS = 6
SECONDS = 3.0
STREAMS = 300
WAITING_JOBS = 50
LEAST = 0.8


class _Streams:
    """Streams that are read as they come."""

    def __init__(self, url: str, key: str, jobs: list[str]) -> None:
        self.url, self.key, self.jobs = urlsplit(url), key, jobs
        self.bytes = 0
        self.tasks: list[asyncio.Task[None]] = []

    async def open(self, count: int) -> None:
        """Opens so many, spread over the jobs; returns when all were answered."""
        ready = [asyncio.Event() for _ in range(count)]
        for number, answered in enumerate(ready):
            job = self.jobs[number % len(self.jobs)]
            self.tasks.append(asyncio.create_task(self._follow(job, answered)))
        await asyncio.wait_for(asyncio.gather(*(one.wait() for one in ready)), 60)

    async def close(self) -> None:
        """Ends all of them."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.tasks = []

    async def _follow(self, job: str, answered: asyncio.Event) -> None:
        reader, writer = await asyncio.open_connection(self.url.hostname, self.url.port)
        writer.write(
            f"GET /v1/jobs/{job}/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {self.key}\r\n"
            "accept: text/event-stream\r\n\r\n".encode()
        )
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in head.split(b"\r\n", 1)[0]:
                raise RuntimeError(head.decode())
            answered.set()
            while chunk := await reader.read(65536):
                self.bytes += len(chunk)
        finally:
            writer.close()


async def _measure(url: str, key: str, running: str, queued: list[str], pid: int) -> dict[str, Any]:
    """Rates and quantiles without and with streams, in turns; memory of the process."""
    streams = _Streams(url, key, [job for one in queued for job in (running, one)])
    path = f"/v1/jobs/{running}"
    found: dict[str, list[Measured]] = {"none": [], "streams": []}
    process = psutil.Process(pid)
    await repeat(url, path, key, connections=8, seconds=SECONDS)
    memory = {"none": process.memory_info().rss}
    for number in range(ROUNDS):
        for name in ("none", "streams") if number % 2 else ("streams", "none"):
            if name == "streams":
                await streams.open(STREAMS)
                await asyncio.sleep(1)
            found[name].append(await repeat(url, path, key, connections=8, seconds=SECONDS))
            memory[str(STREAMS)] = max(memory.get(str(STREAMS), 0), process.memory_info().rss)
            await streams.close()
            await asyncio.sleep(1)
    return {"found": found, "memory": memory, "bytes": streams.bytes}


def api_process(url: str) -> int:
    """The process that listens on the port."""
    port = urlsplit(url).port
    for process in psutil.process_iter(["pid", "cmdline"]):
        command = process.info["cmdline"] or []
        if "api" in command and str(port) in command:
            return int(process.info["pid"])
    raise RuntimeError("the API's process was not found")


def run() -> bool:
    """Measure, print, save; whether the figure holds."""
    with service_with_inputs() as (client, url, key, model, data):
        job = started(client, model, data)
        queued = [client.submit(model, data).id for _ in range(WAITING_JOBS)]
        taken = asyncio.run(_measure(url, key, job, queued, api_process(url)))
        _end(client, [*queued, job])
    rows = [
        {
            "streams": 0 if name == "none" else STREAMS,
            "rate": statistics.median(one.rate for one in rounds),
            "median_ms": 1e3 * statistics.median(one.quantile(0.5) for one in rounds),
            "p99_ms": 1e3 * statistics.median(one.quantile(0.99) for one in rounds),
            "worst_ms": 1e3 * max(max(one.latencies) for one in rounds),
        }
        for name, rounds in taken["found"].items()
    ]
    table([list(row.values()) for row in rows], list(rows[0]))
    share = rows[1]["rate"] / rows[0]["rate"]
    added = (taken["memory"][str(STREAMS)] - taken["memory"]["none"]) / STREAMS / 1024
    held = share >= LEAST
    print(
        f"with {STREAMS} streams GET of a job has {share:.2f} of its rate; {added:.0f} KiB a "
        f"stream; figure (at least {LEAST}) {'held' if held else 'MISSED'}"
    )
    save(
        "streams",
        {"rounds": ROUNDS, "streams": STREAMS, "rows": rows, "memory": taken["memory"],
         "share": share, "held": held},
    )  # fmt: skip
    return held


def _end(client: Client, jobs: list[str]) -> None:
    for job in jobs:
        client.cancel(job)
    deadline = time.monotonic() + 30
    while client.job(jobs[-1]).state == "running" and time.monotonic() < deadline:
        time.sleep(0.2)
