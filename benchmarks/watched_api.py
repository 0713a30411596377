"""`python -m benchmarks.watched_api`: the API, which also tells how long its event loop was held.

A task in the loop asks for its turn every millisecond. How much processor time the process has
used when the turn comes is how long the loop was held, by a request in the loop or by a thread that
kept the interpreter's lock. Time of the processor, not of a clock: what else runs on the machine
does not count.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from api.app import create_app
from api.server import config, prepare
from store.migrate import upgrade
from store.queries import keys
from store.settings import get_settings

WATCH_PATH = "/v1/limits/watch"


@dataclass
class Watch:
    """The longest that the loop was held since it was last asked."""

    held: float = 0.0

    async def run(self) -> None:
        """Watches until it is cancelled."""
        while True:
            before = time.process_time()
            await asyncio.sleep(0.001)
            self.held = max(self.held, time.process_time() - before)

    async def tell(self, request: Request) -> Response:
        """What was longest, and begins again."""
        held, self.held = self.held, 0.0
        # Not ru_maxrss: that begins with what the process which started this one had.
        status = Path("/proc/self/status").read_text()
        peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
        return JSONResponse({"held": held, "peak_bytes": peak})


def watched(app: FastAPI) -> FastAPI:
    """The app, with a watch."""
    watch = Watch()
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(of: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(watch.run())
        async with inner(of):
            yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    app.router.lifespan_context = lifespan
    app.add_route(WATCH_PATH, watch.tell)
    return app


def main() -> None:
    """Serves on a port of its own; prints the port and a key."""
    settings = get_settings()
    settings.blob_dir.mkdir(parents=True, exist_ok=True)
    upgrade(settings)
    app = create_app(settings)
    with app.state.service.database.write() as session:
        project = keys.project_named(session, "benchmark")
        _, secret = keys.create_key(session, project.id, "benchmark")
    prepare()

    class Server(uvicorn.Server):
        async def startup(self, sockets: object = None) -> None:
            await super().startup()
            print(self.servers[0].sockets[0].getsockname()[1], secret, project.id, flush=True)

    Server(config(watched(app), port=0, log_level="warning")).run()


if __name__ == "__main__":
    sys.exit(main())
