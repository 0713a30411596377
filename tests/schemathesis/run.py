"""Runs Schemathesis against a service that is up."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def run(url: str, key: str, seconds: int, folder: Path, *options: str) -> tuple[int, str]:
    """Every check on every operation, for that long.

    Args:
        url: The service.
        key: An API key of a project that may be filled with rubbish.
        seconds: How long fuzzing goes on.
        folder: Where it may leave files.
        options: Further options of `st run`.

    Returns:
        Its exit status and what it printed.
    """
    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
    command += ["--config-file", str(HERE / "schemathesis.toml"), "run", f"{url}/openapi.json"]
    command += ["-H", f"Authorization: Bearer {key}", "--checks", "all", "--max-time", str(seconds)]
    command += ["--generation-database", "none", "--request-timeout", "30", "--no-color", *options]
    environment = os.environ | {
        "SCHEMATHESIS_HOOKS": "tests.schemathesis.checks",
        "PYTHONPATH": str(HERE.parents[1]),
        "NO_PROXY": "*",
    }
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds * 2 + 120,
        check=False,
    )
    return done.returncode, done.stdout
