"""A service of its own for a benchmark, started as users start it, and commands that talk to it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx


@contextmanager
def running(folder: Path) -> Iterator[dict[str, str]]:
    """`secateur up` on a free port with its data below `folder`.

    Yields:
        The environment in which the command line and the client find it; this process has it too.

    Raises:
        RuntimeError: It did not start.
    """
    environment = {
        k: v for k, v in os.environ.items() if k not in ("SECATEUR_URL", "SECATEUR_API_KEY")
    }
    environment["SECATEUR_CONFIG_DIR"] = str(folder / "config")
    service = subprocess.Popen(
        [sys.executable, "-m", "secateur", "up", "--port", "0", "--data-dir", str(folder / "data")],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert service.stdout is not None
        if not any("is ready" in line for line in service.stdout):
            raise RuntimeError("the service did not start")
        os.environ["SECATEUR_CONFIG_DIR"] = environment["SECATEUR_CONFIG_DIR"]
        yield environment
    finally:
        service.terminate()
        service.wait(30)


def variant(source: Path, number: int) -> Path:
    """The ONNX file beside itself in other bytes, which no service has seen: another doc string."""
    proto = onnx.ModelProto.FromString(source.read_bytes())
    proto.doc_string = f"repetition {number}"
    path = source.with_stem(f"{source.stem}-{number}")
    path.write_bytes(proto.SerializeToString(deterministic=True))
    return path


def seconds(arguments: list[str], environment: dict[str, str]) -> float:
    """What a command of the command line takes, its start included."""
    begin = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "secateur", *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - begin
