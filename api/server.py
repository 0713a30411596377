"""`python -m api`: the only way to serve the API. Uvicorn runs the loop, `api.http` speaks HTTP.

Uvicorn's own protocols are not used: h11 takes a Content-Length beside a Transfer-Encoding, and
neither of them limits how long a client may take.
"""

import argparse
import gc
import resource
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import uvicorn
from fastapi import FastAPI

from api.http.connection import Connection
from store import logs
from store.settings import Settings, get_settings

_MOST_FILES = 65_536
_SWITCH_SECONDS = 0.001


def config(app: FastAPI, **options: Any) -> uvicorn.Config:
    """How uvicorn serves the app.

    Args:
        app: As `api.app.create_app` made it, with the settings and the count of connections.
        options: What else `uvicorn.Config` takes, such as `fd`, or another `port`.
    """
    settings: Settings = app.state.service.settings
    protocol: Any = partial(Connection, connections=app.state.connections)
    given: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "loop": "asyncio",
        "http": protocol,
        "ws": "none",
        "interface": "asgi3",
        "access_log": False,
        "server_header": False,
        # X-Forwarded-For is read by `api.http.addresses`, from SECATEUR_TRUSTED_PROXIES alone.
        "proxy_headers": False,
        "timeout_graceful_shutdown": 5,
    }
    return uvicorn.Config(app, **(given | options))


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM."""
    from api.app import create_app

    settings = get_settings()
    parser = argparse.ArgumentParser(prog="python -m api", description="Serve the HTTP API.")
    parser.add_argument("--host", default=settings.host)
    parser.add_argument("--port", type=int, default=settings.port)
    parser.add_argument(
        "--grace", type=int, default=5, help="seconds that requests have to end in at the end"
    )
    asked = parser.parse_args(arguments)
    logs.configure(settings)
    app = create_app(settings)
    prepare()
    server = uvicorn.Server(
        config(
            app,
            host=asked.host,
            port=asked.port,
            timeout_graceful_shutdown=asked.grace,
        )
    )
    server.run()
    return 0


def prepare() -> None:
    """Sets this process up to serve, once its app has been made."""
    _allow_files()
    # Threads that work for one request give way to the loop, which answers all others, sooner.
    sys.setswitchinterval(_SWITCH_SECONDS)
    # What is there now stays: the collector need not look at all of it, with the lock held.
    gc.collect()
    gc.freeze()


def _allow_files() -> None:
    """Lets this process have as many files open as connections and uploads need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
