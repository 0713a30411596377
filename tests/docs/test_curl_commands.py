"""What the pages have users type shows why it failed."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.api.conftest import Service, service  # noqa: F401 - a fixture

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = [
    (page.name, command)
    for page in PAGES
    for command in re.findall(r"^curl .*?[^\\]$", page.read_text(), re.MULTILINE | re.DOTALL)
]


def test_there_are_commands() -> None:
    assert len([command for page, command in COMMANDS if page == "README.md"]) >= 6


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_a_command_shows_the_body_of_an_error(page: str, command: str) -> None:
    assert "--fail-with-body" in command, page
    assert re.search(r"-sSN? ", command), page


def test_an_error_is_seen(service: Service, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "model.onnx").write_bytes(b"anything")
    first = next(command for page, command in COMMANDS if page == "README.md")
    ran = subprocess.run(
        ["bash", "-c", first],
        env={
            "URL": service.url,
            "AUTH": "Authorization: Bearer sct_wrong",
            "PATH": "/usr/bin:/bin",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ran.returncode == 22, ran.stderr
    assert '"code": "unauthenticated"' in ran.stdout
