import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from secateur import Client, SecateurError
from tests.e2e.conftest import Sent, Service

FAST = ("--criterion", "magnitude", "--sparsity", "0.5")


@pytest.fixture(scope="module")
def pruned(
    service: Service, sent: Sent, files: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder that `secateur prune` wrote."""
    out = tmp_path_factory.mktemp("out") / "result"
    done = service.run(
        "prune", files / "net.onnx", "--data", files / "data.npz", *FAST, "--out", out
    )
    assert done.returncode == 0, done.stderr
    assert "88 of 176" in done.stdout
    assert "Traceback" not in done.stderr
    return out


def _zeros(path: Path) -> int:
    proto = ModelProto()
    proto.ParseFromString(path.read_bytes())
    tensors = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    return sum(int((a == 0).sum()) for name, a in tensors.items() if name.endswith("weight"))


def test_prune_delivers_the_model_under_its_name_with_reports(pruned: Path) -> None:
    names = {path.name for path in pruned.iterdir()}
    assert {"net.onnx", "report.json", "report.html", "net.sparse.safetensors"} <= names
    assert not [name for name in names if name.startswith(".")]
    assert _zeros(pruned / "net.onnx") == 88


def test_prune_never_overwrites_without_force(service: Service, files: Path, pruned: Path) -> None:
    again = service.run(
        "prune", files / "net.onnx", "--data", files / "data.npz", *FAST, "--out", pruned
    )
    assert again.returncode == 2
    assert "--force" in re.sub(r"[\s│]+", " ", again.stderr)
    onto_itself = service.run(
        "prune", files / "net.onnx", "--data", files / "data.npz", "--out", files, "--force"
    )
    assert onto_itself.returncode == 2


def test_a_missed_gate_exits_with_3_and_local_writes_the_same_files(
    service: Service, files: Path, tmp_path: Path
) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "criterion: {kind: magnitude}\ntarget: {sparsity: 0.95}\n"
        "gates: {max_drop: {accuracy: 0.0}}\n"
    )
    # The labels are what the network itself says, so that every change is a drop.
    command = ["prune", files / "net.onnx", "--data", files / "data.npz", "--spec", spec, "--out"]
    remote = service.run(*command, tmp_path / "remote")
    local = service.run(*command, tmp_path / "local", "--local", SECATEUR_URL="http://127.0.0.1:9")
    for done in (remote, local):
        assert done.returncode == 3, done.stderr
        assert "error gate_missed" in done.stderr
        assert (done.stdout + done.stderr).count("a drop of") == 1
    written = {path.name for path in (tmp_path / "remote").iterdir()}
    assert {path.name for path in (tmp_path / "local").iterdir()} == written
    for name in ("net.onnx", "net.masks.safetensors", "net.sparse.safetensors"):
        assert (tmp_path / "local" / name).read_bytes() == (tmp_path / "remote" / name).read_bytes()


def test_a_failing_job_exits_with_1_says_why_and_leaves_no_artifact(
    service: Service, client: Client, files: Path, tmp_path: Path
) -> None:
    spec = tmp_path / "spec.json"
    recovery = {"kind": "fine_tune", "optimizer": {"kind": "sgd", "lr": 1e30}}
    spec.write_text(json.dumps({"criterion": {"kind": "magnitude"}, "recovery": recovery}))
    command = ["prune", files / "net.onnx", "--data", files / "data.npz", "--spec", spec]
    done = service.run(*command, "--out", tmp_path)
    assert done.returncode == 1
    assert "error loss_non_finite" in done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"spec.json"}
    job = client.job(re.findall(r"Job (\S+)", done.stderr)[0])
    assert (job.state, job.artifacts) == ("failed", [])
    assert job.failure is not None
    assert job.failure.hint
    with pytest.raises(SecateurError) as caught:
        client.report(job)
    assert caught.value.status in (404, 409)


def test_unlabelled_data_alone_prune_half_of_the_weights_layer_by_layer(
    service: Service, files: Path, tmp_path: Path
) -> None:
    command = ["prune", files / "net.onnx", "--data", files / "unlabelled.npz", "--out"]
    remote = service.run(*command, tmp_path / "remote")
    local = service.run(*command, tmp_path / "local", "--local", SECATEUR_URL="http://127.0.0.1:9")
    for done in (remote, local):
        assert done.returncode == 0, done.stderr
        assert "88 of 176" in done.stdout
    report = json.loads((tmp_path / "remote" / "report.json").read_text())
    assert report["spec"]["compensation"]["kind"] == "layerwise"
    assert report["sparsity"]["removed"] == 88
    assert [o["layer"] for o in report["layer_outputs"]] == ["fc1.weight", "fc2.weight"]
    errors = [layer["output_error"] for layer in report["layers"]]
    assert all(0 < error < 1 for error in errors)
    assert report["metrics"]["dense"]["cosine"]["value"] == pytest.approx(1.0)
    assert 0.5 < report["metrics"]["pruned"]["cosine"]["value"] < 1.0
    assert "Layer by layer" in (tmp_path / "remote" / "report.html").read_text()
    for folder in ("remote", "local"):
        assert _zeros(tmp_path / folder / "net.onnx") == 88
    assert (tmp_path / "local" / "net.onnx").read_bytes() == (
        tmp_path / "remote" / "net.onnx"
    ).read_bytes()


def test_the_same_model_under_another_name_is_written_under_that_name(
    service: Service, files: Path, pruned: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes((files / "net.onnx").read_bytes())
    (tmp_path / "out").mkdir()
    kept = tmp_path / "out" / "net.onnx"
    kept.write_bytes(b"mine")
    command = ["prune", other, "--data", files / "data.npz", *FAST, "--out", tmp_path / "out"]
    assert service.run(*command).returncode == 0
    assert kept.read_bytes() == b"mine"
    assert (tmp_path / "out" / "other.onnx").exists()


@pytest.mark.parametrize("local", [False, True])
def test_interrupts_end_with_130(
    service: Service, files: Path, tmp_path: Path, local: bool
) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "criterion: {kind: magnitude}\nschedule: {kind: rounds, rounds: 100}\n"
        "recovery: {kind: fine_tune, epochs: 1000}\n"
    )
    command = ["prune", str(files / "net.onnx"), "--data", str(files / "data.npz")]
    process = subprocess.Popen(
        [sys.executable, "-m", "secateur", *command, "--spec", str(spec), "--out", str(tmp_path)]
        + (["--local"] if local else []),
        env=service.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith(("Recovering", "Cancelling")):
            process.send_signal(signal.SIGINT)
    assert process.wait(40) == 130
    assert not any("Traceback" in line for line in said)
    assert local == ("Interrupted.\n" in said)
    assert [path.name for path in tmp_path.iterdir()] == ["spec.yaml"]
    if not local:  # the service was asked before the second Ctrl-C could be heard
        job = next(line.split()[1] for line in said if line.startswith("Job "))
        assert json.loads(service.run("jobs", "wait", job, "--json").stdout)["state"] == "cancelled"


def test_interrupting_prune_cancels_the_job(service: Service, files: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "criterion: {kind: magnitude}\nschedule: {kind: rounds, rounds: 100}\n"
        "recovery: {kind: fine_tune, epochs: 1000}\n"
    )
    command = ["prune", str(files / "net.onnx"), "--data", str(files / "data.npz")]
    process = subprocess.Popen(
        [sys.executable, "-m", "secateur", *command, "--spec", str(spec), "--out", str(tmp_path)],
        env=service.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    job = ""
    for line in process.stderr:
        if line.startswith("Job "):
            job = line.split()[1]
        if line.startswith("Recovering"):
            process.send_signal(signal.SIGINT)
            break
    process.stderr.read()
    assert process.wait(40) == 130
    shown = json.loads(service.run("jobs", "show", job, "--json").stdout)
    assert shown["state"] == "cancelled"


def test_jobs_can_be_listed_shown_and_downloaded(service: Service, pruned: Path) -> None:
    listed = json.loads(service.run("jobs", "list", "--state", "succeeded", "--json").stdout)
    job = listed[-1]["id"]
    assert service.run("jobs", "wait", job).returncode == 0
    assert "achieved" in service.run("jobs", "report", job, "--json").stdout
    lines = service.run("jobs", "events", job, "--json").stdout.splitlines()
    assert json.loads(lines[-1])["state"] == "succeeded"
    folder = pruned.parent / "again"
    assert service.run("jobs", "download", job, "--out", folder).returncode == 0
    assert (folder / "report.html").exists()
    plain = service.run("jobs", "list")
    assert plain.stdout.splitlines()[0].split("\t")[0] == "id"
    assert "\x1b" not in plain.stdout


def test_what_was_deleted_is_said(service: Service, files: Path, tmp_path: Path) -> None:
    (tmp_path / "own.npz").write_bytes((files / "unlabelled.npz").read_bytes())
    sent = json.loads(service.run("datasets", "upload", tmp_path / "own.npz", "--json").stdout)
    done = service.run("datasets", "delete", sent["id"])
    assert done.stdout == f"Deleted dataset {sent['id']}.\n"


def test_unpack_restores_the_weights_of_the_pruned_file(
    service: Service, pruned: Path, tmp_path: Path
) -> None:
    packed = pruned / "net.sparse.safetensors"
    assert service.run("unpack", packed, tmp_path / "w.npz").returncode == 0
    restored = np.load(tmp_path / "w.npz")
    proto = ModelProto()
    proto.ParseFromString((pruned / "net.onnx").read_bytes())
    for tensor in proto.graph.initializer:
        np.testing.assert_array_equal(restored[tensor.name], numpy_helper.to_array(tensor))
    assert service.run("unpack", packed, tmp_path / "w.npz").returncode == 2


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["prune"], 2),
        (["prune", "missing.onnx", "--data", "missing.npz"], 2),
        (["jobs", "show", "job_unknown"], 1),
        (["nonsense"], 2),
        (["version"], 0),
    ],
)
def test_exit_codes_of_small_things(service: Service, arguments: list[str], code: int) -> None:
    done = service.run(*arguments)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
