"""`secateur reproduce`: what it asks a service for, what it compares, how it ends."""

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pruning.manifest import Manifest
from secateur import Client, SecateurError
from secateur._files import file_sha256
from secateur.cli.app import app
from secateur.cli.reproduce_local import check_given
from tests.secateur.conftest import Script, reply

NOW = "2026-03-01T12:00:00Z"
DIGEST = {
    name: character * 64 for name, character in zip(("m", "d", "o", "r"), "abcd", strict=True)
}
MANIFEST: dict[str, Any] = {
    "schema_version": "1.0",
    "inputs": [
        {"role": "model", "name": "net.onnx", "sha256": DIGEST["m"], "bytes": 3},
        {"role": "calibration", "name": "data.npz", "sha256": DIGEST["d"], "bytes": 3},
    ],
    "spec": {"criterion": {"kind": "magnitude"}},
    "seeds": [0],
    "outputs": [
        {
            "name": "net.onnx", "bytes": 3, "sha256": DIGEST["o"], "format": "onnx",
            "reproduced": True,
        },
        {
            "name": "report.json", "bytes": 3, "sha256": DIGEST["r"], "format": "report.json",
            "reproduced": False,
        },
    ],
    "results_sha256": "e" * 64,
    "versions": {
        "secateur": "1", "python": "3.13", "torch": "2.13", "numpy": "2.3", "onnx": "1.20",
        "onnxruntime": "1.24", "platform": "Linux",
    },
    "threads": 2,
    "device": "cpu",
}  # fmt: skip


def job(id: str, state: str = "succeeded") -> dict[str, Any]:
    listed = [{"name": "manifest.json", "bytes": 3, "sha256": "f" * 64, "format": "manifest"}]
    return {
        "id": id, "state": state, "model": "mdl_1", "data": {"calibration": "ds_1"},
        "created_at": NOW, "artifacts": listed if state == "succeeded" else [],
    }  # fmt: skip


def upload(id: str, sha256: str) -> dict[str, Any]:
    return {"id": id, "name": id, "state": "ready", "bytes": 3, "sha256": sha256, "created_at": NOW}


Routes = dict[tuple[str, str], dict[str, Any]]


def routes(after: dict[str, Any] | None = None) -> Routes:
    """A service with the job `job_1` and, once it is retried, `job_2`."""
    state = {"type": "state", "state": "succeeded", "seq": 1, "at": NOW}
    return {
        ("GET", "/v1/jobs/job_1"): job("job_1"),
        ("GET", "/v1/jobs/job_2"): job("job_2"),
        ("GET", "/v1/models/mdl_1"): upload("mdl_1", DIGEST["m"]),
        ("GET", "/v1/datasets/ds_1"): upload("ds_1", DIGEST["d"]),
        ("POST", "/v1/jobs/job_1/retry"): job("job_2", "queued"),
        ("GET", "/v1/jobs/job_2/events"): {"data": [state], "ended": True},
        ("GET", "/v1/jobs/job_1/artifacts/manifest.json"): MANIFEST,
        ("GET", "/v1/jobs/job_2/artifacts/manifest.json"): MANIFEST | (after or {}),
    }


def serve(script: Script, known: Routes) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        found = known.get((handler.command, handler.path.partition("?")[0]))
        missing = {"code": "not_found", "detail": "No such thing.", "status": 404}
        reply(200 if found else 404, found or missing, content_type="application/json")(handler)

    script.answers = [answer]


@pytest.fixture
def again(script: Script, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("SECATEUR_URL", script.url)
    monkeypatch.setenv("SECATEUR_API_KEY", "sct_test")

    def invoke(*arguments: str | Path) -> Result:
        return CliRunner().invoke(app, ["reproduce", *map(str, arguments)])

    return invoke


def asked(script: Script, method: str) -> list[str]:
    return [path for verb, path, _, _ in script.requests if verb == method]


def test_the_job_is_submitted_again_and_found_to_be_the_same(
    script: Script, again: Callable[..., Result]
) -> None:
    serve(script, routes())
    done = again("job_1")
    assert done.exit_code == 0, done.output
    assert asked(script, "POST") == ["/v1/jobs/job_1/retry"]
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert lines[1] == ["net.onnx", "same", DIGEST["o"][:12], DIGEST["o"][:12]]
    assert lines[2][:2] == ["report.json", "not compared"]
    assert lines[3][:2] == ["results", "same"]
    assert "2 of 2 digests are the same" in done.stdout


def test_a_difference_ends_with_1_and_names_what_else_differs(
    script: Script, again: Callable[..., Result]
) -> None:
    versions = MANIFEST["versions"] | {"torch": "2.14"}
    after = {"results_sha256": "0" * 64, "versions": versions, "threads": 4}
    serve(script, routes(after))
    done = again("job_1")
    assert done.exit_code == 1
    assert "results\tdiffers" in done.stdout
    assert "torch: 2.13 before, 2.14 now" in done.stdout
    assert "threads: 2 before, 4 now" in done.stdout
    assert "device" not in done.stdout
    values = json.loads(again("job_1", "--json").stdout)
    assert (values["same"], values["job"], values["again"]) == (False, "job_1", "job_2")
    assert values["changed"]["threads"] == ["2", "4"]


def test_a_difference_without_a_cause_on_record_says_so(
    script: Script, again: Callable[..., Result]
) -> None:
    serve(script, routes({"results_sha256": "0" * 64}))
    done = again("job_1")
    assert done.exit_code == 1
    assert "recorded as the same" in done.stdout


@pytest.mark.parametrize("case", ["gone", "another"])
def test_inputs_that_are_gone_or_others_are_refused_before_anything_is_submitted(
    script: Script, again: Callable[..., Result], case: str
) -> None:
    known = routes()
    if case == "gone":
        del known["GET", "/v1/datasets/ds_1"]
    else:
        known["GET", "/v1/datasets/ds_1"] = upload("ds_1", "0" * 64)
    serve(script, known)
    failed = again("job_1").exception
    assert isinstance(failed, SecateurError)
    assert failed.code == {"gone": "not_found", "another": "digest_mismatch"}[case]
    assert failed.where == "calibration"
    assert failed.hint
    assert asked(script, "POST") == []


def test_a_second_run_that_fails_ends_with_1(script: Script, again: Callable[..., Result]) -> None:
    known = routes()
    failed = {"type": "state", "state": "failed", "seq": 1, "at": NOW}
    known["GET", "/v1/jobs/job_2/events"]["data"] = [failed]
    error = {"code": "wall_limit", "message": "Too long."}
    known["GET", "/v1/jobs/job_2"] = job("job_2", "failed") | {"error": error}
    serve(script, known)
    done = again("job_1")
    assert done.exit_code == 1
    assert "error wall_limit" in done.stderr


@pytest.mark.parametrize(("state", "code"), [("running", "not_ready"), ("failed", "not_found")])
def test_a_job_without_a_manifest_says_why(script: Script, state: str, code: str) -> None:
    serve(script, routes() | {("GET", "/v1/jobs/job_1"): job("job_1", state)})
    with pytest.raises(SecateurError) as caught:
        Client(script.url, "sct_test").manifest("job_1")
    assert caught.value.code == code
    assert state in caught.value.message


def test_files_of_an_earlier_result_are_not_overwritten(
    script: Script, again: Callable[..., Result], tmp_path: Path
) -> None:
    serve(script, routes())
    (tmp_path / "net.onnx").write_bytes(b"mine")
    assert again("job_1", "--out", tmp_path).exit_code == 2
    assert asked(script, "POST") == []
    assert again("job_1", "--model", tmp_path / "net.onnx").exit_code == 2


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    for name in ("net.onnx", "data.npz"):
        (tmp_path / name).write_bytes(name.encode())
    return {"model": tmp_path / "net.onnx", "calibration": tmp_path / "data.npz"}


def local(tmp_path: Path, files: dict[str, Path]) -> Path:
    """A manifest of these files."""
    inputs = [
        {"role": role, "name": path.name, "sha256": file_sha256(path)}
        for role, path in files.items()
    ]
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(MANIFEST | {"inputs": inputs}))
    return path


def test_local_refuses_other_files_than_those_of_the_manifest(
    again: Callable[..., Result], tmp_path: Path, files: dict[str, Path]
) -> None:
    manifest = local(tmp_path, files)
    model, data = files["model"], files["calibration"]
    assert again("--local", manifest, "--model", model).exit_code == 2
    assert again("--local", manifest, "--model", model, "--data", model).exit_code == 2
    more = again("--local", manifest, "--model", model, "--data", data, "--training", data)
    assert more.exit_code == 2
    assert "no training" in more.stderr
    broken = again("--local", data, "--model", model, "--data", data).exception
    assert isinstance(broken, SecateurError)
    assert broken.code == "usage"


def test_a_folder_is_known_by_its_tar_and_by_its_list_of_files(tmp_path: Path) -> None:
    import hashlib

    from secateur._tar import FolderTar

    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    tar = hashlib.sha256(b"".join(FolderTar(folder).chunks())).hexdigest()
    one = file_sha256(folder / "config.json")
    listed = f'[{{"bytes":2,"path":"config.json","sha256":"{one}"}}]'
    for digest in (tar, hashlib.sha256(listed.encode()).hexdigest()):
        inputs = [{"role": "model", "name": "bert.tar", "sha256": digest}]
        check_given(Manifest.model_validate(MANIFEST | {"inputs": inputs}), {"model": folder})
