"""Every format over HTTP: up, pruned, back in its own form, checked by the libraries it is for."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
import torch

from secateur import Client, SecateurError
from secateur._tar import unpack
from secateur.resources import Job
from tests.e2e.conftest import Service
from tests.e2e.files import network
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


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX model that keeps its weights in a second file, with data for it."""
    folder = tmp_path_factory.mktemp("onnx")
    onnx.save_model(
        onnx.load_from_string(network()), folder / "net.onnx", save_as_external_data=True,
        location="net.onnx.data", size_threshold=0,
    )  # fmt: skip
    np.savez(folder / "x.npz", x=np.random.default_rng(0).standard_normal((80, 8)).astype("f"))
    return folder / "net.onnx"


def check_beside(folder: Path, model: Path) -> None:
    bare = onnx.load(folder / "net.onnx", load_external_data=False)
    assert bare == onnx.load(model, load_external_data=False)
    loaded = onnx.load(folder / "net.onnx").graph.initializer
    weights = {t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy()) for t in loaded}
    assert zeros(weights, is_linear) == pytest.approx(0.5, abs=0.02)


def test_an_onnx_model_with_a_file_of_weights_goes_up_and_comes_back_with_it(
    service: Service, beside: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = service.run("prune", beside, "--data", beside.with_name("x.npz"), *HALF, "--out", out)
    assert done.returncode == 0, done.stderr
    check_beside(out, beside)
    assert "net.onnx.data" in done.stdout + done.stderr


def test_the_two_files_go_up_one_by_one_and_come_back_so(
    service: Service, beside: Path, tmp_path: Path
) -> None:
    with service.client() as client, service.http() as http:
        names = ("net.onnx", "net.onnx.data")
        parts = [("file", (name, (beside.parent / name).read_bytes())) for name in names]
        answer = http.post("/v1/models", files=parts, params={"name": "net"})
        assert answer.status_code == 201, answer.text
        model = client.wait_ready(client.model(answer.json()["id"]))
        data = client.wait_ready(client.upload_dataset(beside.with_name("x.npz")))
        job = finished(client, client.submit(model, data, unlabelled()))
        written = client.download(job, tmp_path / "out")
        assert {"net.onnx", "net.onnx.data"} <= {path.name for path in written}
        check_beside(tmp_path / "out", beside)

        alone = http.post("/v1/models", files=parts[:1])
        with pytest.raises(SecateurError) as caught:
            client.wait_ready(client.model(alone.json()["id"]))
    assert caught.value.code == "external_data"
    assert caught.value.hint is not None
    assert "-F file=@net.onnx.data" in caught.value.hint


def test_the_client_finds_the_weights_beside_the_model(service: Service, beside: Path) -> None:
    with service.client() as client:
        model = client.wait_ready(client.upload_model(beside))
    assert model.format == "onnx"


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
