"""A job run again, on the service and in a process of one's own, and its sparse file unpacked."""

import hashlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from secateur import Client
from secateur.cli.app import app
from secateur.resources import Dataset, Job, Model
from tests.e2e.conftest import Service

SPEC = {
    "criterion": {"kind": "magnitude"},
    "target": {"sparsity": 0.75},
    "recovery": {"kind": "fine_tune", "epochs": 1},
    "seed": 5,
}


@pytest.fixture(scope="module")
def job(client: Client, model: Model, dataset: Dataset) -> Job:
    done = client.wait(client.submit(model, dataset, SPEC), timeout=90)
    assert done.state == "succeeded", done.error
    return done


def test_the_manifest_is_an_artifact_with_the_digests_of_all_others(
    client: Client, job: Job, model: Model, dataset: Dataset
) -> None:
    manifest = client.manifest(job)
    assert {(o.name, o.sha256) for o in manifest.outputs} == {
        (a.name, a.sha256) for a in job.artifacts if a.name != "manifest.json"
    }
    assert [i.sha256 for i in manifest.inputs] == [model.sha256, dataset.sha256]
    assert [i.bytes for i in manifest.inputs] == [model.bytes, dataset.bytes]
    assert manifest.threads == 1


def test_a_job_is_reproduced_on_the_service_and_here(
    service: Service, client: Client, job: Job, files: Path, tmp_path: Path
) -> None:
    remote = service.run("reproduce", job.id, "--json", "--out", tmp_path / "again")
    assert remote.returncode == 0, remote.stdout + remote.stderr
    found = json.loads(remote.stdout)
    assert found["same"]
    assert client.job(found["again"]).retry_of == job.id
    same = {o["name"] for o in found["outputs"] if o["result"] == "same"}
    assert same == {"net.onnx", "net.masks.safetensors", "net.sparse.safetensors", "results"}

    manifest = tmp_path / "again" / "manifest.json"
    inputs = ["--model", str(files / "net.onnx"), "--data", str(files / "data.npz")]
    here = CliRunner().invoke(app, ["reproduce", "--local", str(manifest), *inputs])
    assert here.exit_code == 0, here.output
    assert "4 of 4 digests are the same" in here.stdout


def test_the_sparse_file_restores_the_model_that_was_delivered(
    service: Service, client: Client, job: Job, tmp_path: Path
) -> None:
    digests = {artifact.name: artifact.sha256 for artifact in job.artifacts}
    (packed,) = [a for a in job.artifacts if a.format == "sparse"]
    path = client.fetch(job, packed, tmp_path)
    done = service.run("unpack", path, tmp_path / "model")
    assert done.returncode == 0, done.stderr
    (restored,) = (tmp_path / "model").iterdir()
    assert hashlib.sha256(restored.read_bytes()).hexdigest() == digests[restored.name]
