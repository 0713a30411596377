"""One warm process that reads uploads, for all tests of hostile files."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.security import samples

MIB = 1 << 20
Intake = Callable[[str, Path], dict[str, Any]]


@pytest.fixture(scope="session")
def intake() -> Iterator[Intake]:
    """Reads an upload (`model` or `data`) as the service's child would, and says what it cost."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.security.intake_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=samples.environment(),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def ask(kind: str, path: Path) -> dict[str, Any]:
        stdin.write(json.dumps({"kind": kind, "path": str(path)}) + "\n")
        stdin.flush()
        answer = stdout.readline()
        assert answer, "the process that reads uploads died"
        said: dict[str, Any] = json.loads(answer)
        return said

    yield ask
    stdin.close()
    process.wait(30)
    stdout.close()


@pytest.fixture
def refused(intake: Intake, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Asserts that an upload ends in a clean refusal, cheaply, with nothing run."""

    def check(kind: str, path: Path, marker: Path | None = None) -> dict[str, Any]:
        said = intake(kind, path)
        assert said["crash"] is None, said["crash"]
        assert said["code"], "it was accepted"
        assert marker is None or not marker.exists(), "the upload ran code"
        assert said["seconds"] < 5, said
        assert said["grown"] < 64 * MIB, said
        return said

    return check
