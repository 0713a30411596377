"""1,000 uploads of 1 MB that begin at the same moment, each over a connection of its own.

/healthz is asked meanwhile, by another process. The figures: every upload is answered 201, or 503
with Retry-After, and none with 500; the API stays under 500 MB; 99 of 100 answers of /healthz
within 200 ms. Then the client library sends 100 at once, 32 at a time: all of them arrive, because
it comes back after the seconds of Retry-After.
"""

import asyncio
import multiprocessing
import os
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import psutil

from benchmarks.common import save, table
from benchmarks.http_load import Measured, repeat
from benchmarks.polling import service_with_inputs
from benchmarks.streams import api_process
from secateur import Client

UPLOADS = 1_000
SIZE = 1_000_000
BY_CLIENT = 100
MOST_BYTES = 500_000_000
LONGEST = 0.2
WATCHED_SECONDS = 15.0


async def send(url: str, key: str, body: bytes, number: int) -> tuple[int, bool, float]:
    """Status (0 where the connection ended without one), whether with Retry-After, and seconds."""
    parts = urlsplit(url)
    begin = time.perf_counter()
    try:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    except OSError:
        return 0, False, time.perf_counter() - begin
    head = (
        f"POST /v1/datasets?name=n{number}.npz HTTP/1.1\r\nhost: x\r\n"
        f"authorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n\r\n"
    )

    async def send() -> None:
        writer.write(head.encode())
        for at in range(0, len(body), 65536):
            writer.write(body[at : at + 65536])
            await writer.drain()

    sending = asyncio.create_task(send())
    try:
        answer = await reader.readuntil(b"\r\n\r\n")
        status = int(answer[9:12])
        return status, b"retry-after" in answer.lower(), time.perf_counter() - begin
    except (OSError, asyncio.IncompleteReadError):
        return 0, False, time.perf_counter() - begin
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.close()


async def _at_once(url: str, key: str, process: psutil.Process) -> dict[str, Any]:
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, process.memory_info().rss)
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    # In a process of its own: this one is busy with sending.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
        health = asyncio.wrap_future(other.submit(_health, url, WATCHED_SECONDS))
        await asyncio.sleep(3)
        found = await _all(url, key)
        healthy = await health
    watching.cancel()
    return {
        **found,
        "most_bytes": most,
        "healthz_answers": len(healthy.latencies),
        "healthz_p99": healthy.quantile(0.99),
        "healthz_worst": max(healthy.latencies),
    }


async def _all(url: str, key: str) -> dict[str, Any]:
    # Bytes that differ from one to the next, and that begin as a ZIP does.
    common = os.urandom(SIZE - 20)
    bodies = [b"PK\x03\x04" + b"%016d" % n + common for n in range(UPLOADS)]
    begin = time.perf_counter()
    answers = await asyncio.gather(*(send(url, key, b, n) for n, b in enumerate(bodies)))
    seconds = time.perf_counter() - begin
    return {
        "seconds": seconds,
        "statuses": Counter(status for status, _, _ in answers),
        "without_retry_after": sum(s == 503 and not after for s, after, _ in answers),
        "slowest_answer": max(took for _, _, took in answers),
    }


def _health(url: str, seconds: float) -> Measured:
    return asyncio.run(repeat(url, "/healthz", connections=1, seconds=seconds, pause=0.01))


def _by_client(client: Client) -> tuple[int, float]:
    """How many of the client's uploads arrived, and in how many seconds."""
    common = os.urandom(SIZE - 20)

    def one(number: int) -> bool:
        body = b"PK\x03\x04" + b"%016d" % number + common
        return client.upload_dataset(body, f"c{number}.npz").state == "checking"

    begin = time.perf_counter()
    with ThreadPoolExecutor(32) as pool:
        arrived = sum(pool.map(one, range(BY_CLIENT)))
    return arrived, time.perf_counter() - begin


def run() -> bool:
    """Measure, print, save; whether the figures hold."""
    with service_with_inputs() as (client, url, key, _model, _data):
        found = asyncio.run(_at_once(url, key, psutil.Process(api_process(url))))
        arrived, seconds = _by_client(client)
    statuses: Counter[int] = found.pop("statuses")
    found |= {"status_" + str(k): v for k, v in sorted(statuses.items())}
    found |= {"client_arrived": arrived, "client_seconds": seconds}
    table([[name, value] for name, value in found.items()], ["", f"{UPLOADS} uploads of 1 MB"])
    held = (
        set(statuses) <= {201, 503}
        and not found["without_retry_after"]
        and found["most_bytes"] < MOST_BYTES
        and found["healthz_p99"] < LONGEST
        and arrived == BY_CLIENT
    )
    print(
        f"figures (201 or 503 with Retry-After, under {MOST_BYTES / 1e6:.0f} MB, p99 of /healthz "
        f"under {LONGEST * 1e3:.0f} ms, all of the client's arrive) {'held' if held else 'MISSED'}"
    )
    save("uploads_at_once", {**found, "held": held})
    return held
