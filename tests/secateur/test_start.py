"""What a start costs, told by what is imported; and how soon a dead service is given up."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from secateur import AsyncClient, Client, SecateurError
from secateur.cli.app import COMMANDS, app
from secateur.resources import Artifact

ROOT = Path(__file__).parents[2]
SCIENCE = {"torch", "numpy", "onnx", "onnxruntime", "sklearn"}
HEAVY = SCIENCE | {"pydantic", "httpx", "yaml", "sqlalchemy", "celery"}


def imported(code: str, *arguments: str, **environment: str) -> set[str]:
    """Modules that a fresh interpreter has imported once the code has run."""
    told = "\nfinally:\n import json, sys\n print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    body = f"try:\n {code}"
    done = subprocess.run(
        [sys.executable, "-c", body + told, *arguments],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)} | environment, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    return set(json.loads(done.stderr.splitlines()[-1]))


def command(*arguments: str, **environment: str) -> set[str]:
    return imported("from secateur.cli import main; main()", *arguments, **environment)


def test_importing_the_package_imports_nothing_of_others():
    found = imported("import secateur")
    assert not found & (HEAVY | {"rich", "typer", "importlib.metadata"})


def test_the_help_imports_what_prints_it_and_no_command():
    found = command("--help")
    assert "rich" in found
    assert not found & HEAVY
    commands = {f"secateur.cli.{place.module}" for place in COMMANDS.values()}
    assert not found & commands


def test_the_help_of_every_command_imports_as_little():
    body = (
        "import sys; from secateur.cli import main; from secateur.cli.app import COMMANDS\n"
        " groups = {'jobs': 'list', 'models': 'upload', 'datasets': 'show', 'report': 'diff'}\n"
        " for name in COMMANDS:\n"
        "  for words in [[name], [name, groups.get(name)]][: 1 + (name in groups)]:\n"
        "   sys.argv[1:] = [*words, '--help']\n"
        "   try: main()\n"
        "   except SystemExit as ended: assert ended.code == 0"
    )
    found = imported(body)
    assert {f"secateur.cli.{place.module}" for place in COMMANDS.values()} <= found
    assert not found & HEAVY


def test_the_version_imports_less_still():
    assert not command("--version") & (HEAVY | {"rich"})
    # The pydantic is typer's own, for the options of any command.
    assert not command("version") & (HEAVY - {"pydantic"} | {"rich"})


def test_completion_imports_no_command_but_that_which_is_completed():
    words = {"_SECATEUR_COMPLETE": "complete_bash", "COMP_WORDS": "secateur p", "COMP_CWORD": "1"}
    assert not command(**words) & (HEAVY - {"pydantic"} | {"rich"})
    words |= {"COMP_WORDS": "secateur jobs l", "COMP_CWORD": "2"}
    found = command(**words)
    assert "secateur.cli.jobs" in found
    assert "secateur.cli.prune" not in found
    assert not found & SCIENCE


def test_a_list_imports_no_spec_and_no_report():
    found = command("jobs", "list", SECATEUR_URL="http://127.0.0.1:9", SECATEUR_API_KEY="k")
    assert "httpx" in found
    assert not found & (SCIENCE | {"pruning.spec", "pruning.report.schema", "yaml"})


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_says_itself(name: str):
    own = COMMANDS[name].command(name).help
    assert " ".join(own.split("\n\n")[0].split()) == COMMANDS[name].help


def test_a_command_that_there_is_not_is_answered_with_the_nearest():
    done = CliRunner().invoke(app, ["prun"])
    assert done.exit_code == 2
    assert "prune" in done.stderr


@pytest.fixture
def silent() -> Iterator[str]:
    """A service whose connections are never made: what is sent to it is dropped."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        waiting = []
        for _ in range(4):  # fills its queue
            other = socket.socket()
            other.setblocking(False)
            other.connect_ex(listening.getsockname())
            waiting.append(other)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        for other in waiting:
            other.close()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr("secateur.client.time.sleep", found.append)
    return found


def test_where_nothing_listens_one_more_try_is_made(pauses: list[float]):
    with Client("http://127.0.0.1:9", "k") as client, pytest.raises(SecateurError) as caught:
        client.get("/v1/limits")
    assert caught.value.code == "connection_failed"
    assert "secateur up" in (caught.value.hint or "")
    assert sum(pauses) < 0.3


CALLS: dict[str, Callable[[Client, Path], object]] = {
    "list": lambda client, _: list(client.jobs()),
    "events": lambda client, _: list(client.events("j")),
    "events so far": lambda client, _: list(client.events("j", follow=False)),
    "wait": lambda client, _: client.wait("j"),
    "cancel": lambda client, _: client.cancel("j"),
    "upload": lambda client, _: client.upload_dataset(b"PK"),
    "fetch": lambda client, folder: client.fetch("j", REPORT, folder),
    "download": lambda client, folder: client.download("j", folder),
}
REPORT = Artifact(name="report.json", bytes=9, sha256="0" * 64, format="report.json")


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://localhost:9", "http://[::1]:9"])
def test_no_call_waits_for_a_service_that_was_never_there(
    name: str, url: str, pauses: list[float], tmp_path: Path
):
    with Client(url, "k") as client, pytest.raises(SecateurError) as caught:
        CALLS[name](client, tmp_path)
    assert caught.value.code == "connection_failed"
    assert caught.value.message == f"No answer from {url}: connection refused."
    assert sum(pauses) < 0.5


def test_a_large_file_is_not_hashed_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    large = tmp_path / "large.onnx"
    with large.open("wb") as file:
        file.truncate(1 << 30)
    monkeypatch.setattr("secateur._calls.upload_body", lambda *_: pytest.fail("hashed"))
    with Client("http://127.0.0.1:9", "k") as client, pytest.raises(SecateurError) as caught:
        client.upload_model(large)
    assert caught.value.code == "connection_failed"


def test_a_service_that_takes_no_connection_is_given_up_at_once(silent: str, pauses: list[float]):
    with Client(silent, "k") as client, pytest.raises(SecateurError) as caught:
        client.get("/v1/limits")
    assert caught.value.code == "connection_failed"
    assert "SECATEUR_CONNECT_SECONDS" in (caught.value.hint or "")
    assert pauses == []


def test_the_asynchronous_client_gives_up_as_soon(silent: str):
    async def ask() -> None:
        async with AsyncClient(silent, "k") as client:
            await client.get("/v1/limits")

    with pytest.raises(SecateurError) as caught:
        asyncio.run(asyncio.wait_for(ask(), 20))
    assert caught.value.code == "connection_failed"


def test_a_first_connection_is_waited_for_as_long_as_is_asked(monkeypatch: pytest.MonkeyPatch):
    seen: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.extensions["timeout"]["connect"])
        return httpx.Response(200, json={})

    with Client("http://there", "k", transport=httpx.MockTransport(answer)) as client:
        client.get("/v1/limits")
        client.get("/v1/limits")
    monkeypatch.setenv("SECATEUR_CONNECT_SECONDS", "7")
    with Client("http://there", "k", transport=httpx.MockTransport(answer)) as client:
        client.get("/v1/limits")
    first, known, asked = seen
    assert first < 1 < known < asked == 7
    monkeypatch.setenv("SECATEUR_CONNECT_SECONDS", "soon")
    with Client("http://there", "k") as client, pytest.raises(SecateurError) as caught:
        client.get("/v1/limits")
    assert caught.value.where == "SECATEUR_CONNECT_SECONDS"


def test_a_service_that_has_answered_is_tried_more_often(pauses: list[float]):
    answers = iter([httpx.Response(200, json={})])

    def answer(request: httpx.Request) -> httpx.Response:
        for found in answers:
            return found
        raise httpx.ConnectError("refused")

    with Client("http://there", "k", transport=httpx.MockTransport(answer)) as client:
        client.get("/v1/limits")
        with pytest.raises(SecateurError):
            client.get("/v1/limits")
    assert len(pauses) == 4
