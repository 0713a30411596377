"""Clients that others generate from /openapi.json do the job of the README, fully typed."""

import importlib
import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from tests.e2e.clients.tools import HERE, node_tools, python_generator
from tests.e2e.conftest import Service

PACKAGE = "generated_secateur"


@pytest.fixture(scope="module")
def document(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("document") / "openapi.json"
    path.write_bytes(httpx.get(f"{service.url}/openapi.json", trust_env=False).content)
    return path


@pytest.fixture(scope="module")
def generated(document: Path) -> Iterator[ModuleType]:
    """The package that openapi-python-client makes, imported."""
    environment = python_generator()
    folder = document.parent / PACKAGE
    settings = document.parent / "settings.yaml"
    settings.write_text("post_hooks: []\n")
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--path", str(document)]
    command += ["--output-path", str(folder), "--meta", "none", "--config", str(settings)]
    made = subprocess.run(
        [*command, "--fail-on-warning"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    assert "WARNING" not in made.stdout + made.stderr
    sys.path.insert(0, str(document.parent))
    try:
        yield importlib.import_module(PACKAGE)
    finally:
        sys.path.remove(str(document.parent))


def operation(name: str) -> Any:
    return importlib.import_module(f"{PACKAGE}.api.{name}")


def ready(client: Any, kind: str, file: Path, form: bool) -> Any:
    """Uploads, and waits for intake."""
    models, types = (importlib.import_module(f"{PACKAGE}.{part}") for part in ("models", "types"))
    payload = types.File(payload=io.BytesIO(file.read_bytes()), file_name=file.name)
    create, get = operation(f"{kind}s.create_{kind}"), operation(f"{kind}s.get_{kind}")
    body: Any = payload
    if form:
        body = getattr(models, f"Create{kind.title()}FilesBody")(file=payload)
    upload = create.sync(client=client, body=body, name=file.name)
    assert isinstance(upload, getattr(models, kind.title())), upload
    until = time.monotonic() + 60
    while upload.state == "checking" and time.monotonic() < until:
        time.sleep(0.1)
        upload = get.sync(upload.id, client=client)
    assert upload.state == "ready", upload
    return upload


def test_the_generated_python_client_does_the_readme_job(
    service: Service, generated: ModuleType, files: Path
) -> None:
    models = importlib.import_module(f"{PACKAGE}.models")
    with generated.AuthenticatedClient(
        base_url=service.url, token=service.api_key, httpx_args={"trust_env": False}
    ) as client:
        model = ready(client, "model", files / "net.onnx", form=False)
        data = ready(client, "dataset", files / "data.npz", form=True)
        spec = models.Spec(criterion=models.OBS(kind="obs"), target=models.Target(sparsity=0.8))
        request = models.JobRequest(model.id, models.JobData(data.id), spec=spec)
        job = operation("jobs.create_job").sync(client=client, body=request)
        assert isinstance(job, models.Job), job
        until = time.monotonic() + 90
        while job.state in ("queued", "running") and time.monotonic() < until:
            time.sleep(0.1)
            job = operation("jobs.get_job").sync(job.id, client=client)
        assert job.state == models.JobState.SUCCEEDED, job
        assert isinstance(job.spec, models.Spec)
        assert isinstance(job.spec.criterion, models.OBS)
        assert isinstance(job.summary, models.Summary)
        events = operation("jobs.get_events").sync(job.id, client=client).data
        assert isinstance(events[-1], models.StateEvent)
        assert {type(event).__name__ for event in events} >= {"PhaseEvent", "ProgressEvent"}
        artifact = operation("artifacts.get_artifact").sync(job.id, "net.onnx", client=client)
        assert len(artifact.payload.read()) > 100
        page = operation("jobs.list_jobs").sync(client=client, limit=1)
        assert page.data[0].id == job.id
        problem = operation("jobs.get_job").sync("job_none", client=client)
        assert isinstance(problem, models.Problem)


@pytest.fixture(scope="module")
def typescript(document: Path) -> Path:
    """A folder with the programs, the types that openapi-typescript makes, and what tsc makes."""
    tools = node_tools()
    folder = document.parent / "typescript"
    folder.mkdir()
    for source in HERE.glob("*.ts"):
        (folder / source.name).write_text(source.read_text())
    types = [str(tools / "openapi-typescript"), str(document), "-o", str(folder / "secateur.ts")]
    assert not subprocess.run(types, capture_output=True, timeout=60, check=False).returncode
    (folder / "package.json").write_text('{"type": "commonjs"}')
    command = [str(tools / "tsc"), "--strict", "--noUncheckedIndexedAccess", "--skipLibCheck"]
    command += ["--target", "es2022", "--lib", "es2022,dom", "--module", "commonjs"]
    command += ["--outDir", str(folder), str(folder / "job.ts"), str(folder / "wrong.ts")]
    compiled = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert not compiled.returncode, compiled.stdout
    return folder


def test_a_program_of_generated_typescript_types_does_the_readme_job(
    service: Service, typescript: Path, files: Path
) -> None:
    arguments = [service.url, service.api_key, files / "net.onnx", files / "data.npz"]
    ran = subprocess.run(
        ["node", typescript / "job.js", *arguments],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert not ran.returncode, ran.stderr
    found = json.loads(ran.stdout)
    assert found["state"] == found["last"] == "succeeded"
    assert (found["priority"], found["inverse"]) == (5, "auto")
    assert found["removed"] > 0
    assert "report.json" in found["artifacts"]
