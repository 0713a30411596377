"""The generators of clients, installed once into build/generators; skipped by name without them."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BUILD = Path(__file__).parents[3] / "build" / "generators"
_SECONDS = 90


def python_generator() -> dict[str, str]:
    """The environment in which `python -m openapi_python_client` is the pinned generator."""
    wanted = HERE / "requirements.txt"
    place = BUILD / "python"
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "install"]
    command += ["--no-deps", "--target", str(place), "-r", str(wanted)]
    _installed(place, [wanted], command, "openapi-python-client")
    return os.environ | {"PYTHONPATH": str(place)}


def node_tools() -> Path:
    """The folder of openapi-typescript and tsc."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not on this machine")
    wanted = [HERE / "package.json", HERE / "package-lock.json"]
    place = BUILD / "node"
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
    _installed(place, wanted, command, "openapi-typescript")
    return place / "node_modules" / ".bin"


def _installed(place: Path, wanted: list[Path], command: list[str], name: str) -> None:
    """Runs the command in the folder, unless what is there was made for the same files."""
    BUILD.mkdir(parents=True, exist_ok=True)
    pinned = "".join(file.read_text() for file in wanted)
    done = place / ".done"
    with (BUILD / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.is_file() and done.read_text() == pinned:
            return
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        for file in wanted:
            shutil.copy(file, place)
        try:
            run = subprocess.run(
                command, cwd=place, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"{name} could not be installed within {_SECONDS} s")
        if run.returncode:
            pytest.skip(f"{name} could not be installed: {run.stderr[-200:]}")
        done.write_text(pinned)
