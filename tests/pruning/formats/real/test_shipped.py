"""Two models that packages ship, on real content: uploaded files in, verified files out."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pruning.formats.onnx import read_onnx
from pruning.request import FileRef, RunRequest
from pruning.run import run
from pruning.spec import default_spec
from tests.pruning.formats.real import shipped
from tests.pruning.formats.real.pipeline import run_onnx, tensors

torch.set_num_threads(1)

MODELS = {
    "magika": ("magika", shipped.MAGIKA, "bytes"),
    "text_direction": ("rapidocr_onnxruntime", shipped.CLASSIFIER, "x"),
}


def content(name: str, count: int) -> np.ndarray:
    if name == "magika":
        return shipped.file_tokens(shipped.contents(count))
    return shipped.text_lines(count)


def uploaded(name: str) -> Path:
    package, path, _ = MODELS[name]
    found = shipped.packaged(package, path)
    if found is None:
        pytest.skip(f"{package} is not installed")
    return found


def check(name: str, count: int, folder: Path) -> float:
    """Runs a job and counts on the file that it delivers; how alike the largest outputs are."""
    model, (_, _, source) = uploaded(name), MODELS[name]
    shutil.copy(model, folder / "model.onnx")
    samples = content(name, count + 24)
    np.savez(folder / "calibration.npz", **{source: samples[:count]})
    ref = FileRef(path="calibration.npz", name="calibration.npz")
    spec = default_spec(labelled=False) | {"target": {"sparsity": 0.6}}
    request = RunRequest(
        model=FileRef(path="model.onnx", name=model.name, sha256="0" * 64),
        data={"calibration": ref},
        spec=spec,
    )
    run(request, folder, clean=False)

    report = json.loads((folder / "out" / "report.json").read_text())
    statuses = {check["name"]: check["status"] for check in report["checks"]}
    assert set(statuses.values()) == {"pass"}
    assert {"exact_zeros", "zeros_by_layer", "graph_kept", "onnxruntime_outputs"} <= statuses.keys()
    (apart,) = (c["value"] for c in report["checks"] if c["name"] == "onnxruntime_outputs")
    assert apart <= 1e-4

    total = report["sparsity"]["total"]
    assert report["sparsity"]["removed"] == int(0.6 * total + 0.5)
    imported = read_onnx(folder / "out" / model.name)
    assert total >= 0.9 * sum(p.numel() for p in imported.module.parameters())
    arrays, before = tensors(imported.proto), tensors(read_onnx(model).proto)
    names = {imported.weight_names[f"{layer['name']}.weight"] for layer in report["layers"]}
    zeros = sum(int((arrays[n] == 0).sum()) - int((before[n] == 0).sum()) for n in names)
    assert zeros == report["sparsity"]["removed"]

    unseen = {source: samples[count:]}
    outputs = [run_onnx(file, unseen)[0] for file in (model, folder / "out" / model.name)]
    return float(np.mean(outputs[0].argmax(1) == outputs[1].argmax(1)))


@pytest.mark.parametrize("name", MODELS)
def test_a_shipped_model_comes_back_with_six_of_ten_weights_gone(name, tmp_path):
    assert check(name, 24, tmp_path) >= 0.6


@pytest.mark.wide
@pytest.mark.parametrize("name", MODELS)
def test_a_shipped_model_pruned_on_more_content_decides_as_before(name, tmp_path):
    assert check(name, 96, tmp_path) >= 0.75


@pytest.mark.wide
def test_a_shipped_text_detector_passes_its_own_checks_where_it_finds_nothing(tmp_path):
    model = shipped.packaged("rapidocr_onnxruntime", shipped.DETECTOR)
    if model is None:
        pytest.skip("rapidocr_onnxruntime is not installed")
    shutil.copy(model, tmp_path / "model.onnx")
    noise = np.random.default_rng(0).standard_normal((12, 3, 64, 64)).astype(np.float32)
    np.savez(tmp_path / "calibration.npz", x=noise)
    request = RunRequest(
        model=FileRef(path="model.onnx", name=model.name, sha256="0" * 64),
        data={"calibration": FileRef(path="calibration.npz", name="calibration.npz")},
        spec=default_spec(labelled=False) | {"target": {"sparsity": 0.6}},
    )
    run(request, tmp_path, clean=False)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    statuses = {check["name"]: check["status"] for check in report["checks"]}
    assert statuses["onnxruntime_outputs"] == statuses["onnxruntime_cosine"] == "pass"
    assert report["sparsity"]["achieved"] == pytest.approx(0.6, abs=1e-4)
