"""Every format over HTTP: up, pruned, back in its own form, checked by the libraries it is for."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from secateur import Client
from secateur._tar import unpack
from secateur.resources import Job
from tests.e2e.conftest import Service
from tests.security import samples

HALF = ("--sparsity", "0.5")


def zeros(weights: dict[str, torch.Tensor], names: Callable[[str, torch.Tensor], bool]) -> float:
    chosen = [w for name, w in weights.items() if names(name, w)]
    return sum(int((w == 0).sum()) for w in chosen) / sum(w.numel() for w in chosen)


def is_linear(name: str, weight: torch.Tensor) -> bool:
    return name.endswith("weight") and weight.dim() >= 2 and "embeddings" not in name


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    rng = np.random.default_rng(0)
    words = [" ".join(rng.choice(list("abc"), rng.integers(2, 9))) for _ in range(80)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in words))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return samples.huggingface(tmp_path_factory.mktemp("hf") / "tiny-bert")


def test_a_hugging_face_folder_comes_back_as_a_folder_that_transformers_loads(
    service: Service, folder: Path, texts: Path, tmp_path: Path
) -> None:
    from transformers import BertForSequenceClassification

    out = tmp_path / "out"
    done = service.run("prune", folder, "--data", texts, *HALF, "--out", out)
    assert done.returncode == 0, done.stderr
    back = out / "tiny-bert"
    assert {p.name for p in back.iterdir()} == {p.name for p in folder.iterdir()}
    for name in ("config.json", "tokenizer.json"):
        assert (back / name).read_bytes() == (folder / name).read_bytes()
    model = BertForSequenceClassification.from_pretrained(back, local_files_only=True)
    assert zeros(model.state_dict(), is_linear) == pytest.approx(0.5, abs=0.02)
    report = json.loads((out / "report.json").read_text())
    assert report["model"]["format"] == "huggingface"


def test_the_same_folder_goes_up_file_by_file_and_comes_back_so(
    service: Service, folder: Path, texts: Path, tmp_path: Path
) -> None:
    with service.client() as client, service.http() as http:
        parts = [("file", (path.name, path.read_bytes())) for path in sorted(folder.iterdir())]
        answer = http.post("/v1/models", files=parts, params={"name": "tiny"})
        assert answer.status_code == 201, answer.text
        assert [f["path"] for f in answer.json()["files"]] == sorted(
            p.name for p in folder.iterdir()
        )
        model = client.wait_ready(client.model(answer.json()["id"]))
        data = client.wait_ready(client.upload_dataset(texts))
        job = finished(client, client.submit(model, data, unlabelled()))
        written = client.download(job, tmp_path / "out")
    names = {path.name for path in written}
    assert {path.name for path in folder.iterdir()} <= names
    same = (tmp_path / "out" / "config.json").read_bytes()
    assert same == (folder / "config.json").read_bytes()


def test_an_archive_of_torch_export_comes_back_as_one(service: Service, tmp_path: Path) -> None:
    path = samples.pt2(tmp_path / "net.pt2")
    program = torch.export.load(path)
    (name,) = program.graph_signature.user_inputs
    x = np.random.default_rng(0).standard_normal((80, 1, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "x.npz", **{str(name): x})
    done = service.run(
        "prune", path, "--data", tmp_path / "x.npz", *HALF, "--out", tmp_path / "out"
    )
    assert done.returncode == 0, done.stderr
    again = torch.export.load(tmp_path / "out" / "net.pt2")
    assert zeros(again.state_dict, is_linear) == pytest.approx(0.5, abs=0.02)
    assert again.module()(torch.from_numpy(x[:4])).shape == (4, 3)


@pytest.mark.parametrize("kind", ["architecture", "state_dict"])
def test_an_architecture_with_its_weights_comes_back_as_a_tar(
    service: Service, tmp_path: Path, kind: str
) -> None:
    folder = samples.SAMPLES[kind].make(tmp_path / "net")
    archive = tmp_path / "net.tar"
    with tarfile.open(archive, "w") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name)
    declared = json.loads((folder / "architecture.json").read_text())
    x = np.random.default_rng(0).standard_normal((80, 1, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "x.npz", **{declared["inputs"][0]["name"]: x})
    done = service.run(
        "prune", archive, "--data", tmp_path / "x.npz", *HALF, "--out", tmp_path / "out"
    )
    assert done.returncode == 0, done.stderr
    unpack(tmp_path / "out" / "net.tar", tmp_path / "back")
    assert {p.name for p in (tmp_path / "back").iterdir()} == {p.name for p in folder.iterdir()}
    weights = read_weights(tmp_path / "back")
    assert zeros(weights, is_linear) == pytest.approx(0.5, abs=0.02)


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    for path in folder.iterdir():
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix == ".pt":
            state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)
            return state
    raise AssertionError("no weights")


def unlabelled() -> dict[str, object]:
    from pruning.spec import default_spec

    return default_spec(False)


def finished(client: Client, job: Job) -> Job:
    job = client.wait(job)
    assert job.state == "succeeded", job.failure
    return job
