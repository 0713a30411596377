"""A service of its own for a benchmark, started as users start it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
