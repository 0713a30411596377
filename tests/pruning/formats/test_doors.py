"""Outputs [n], zeros of the upload and metrics that can't tell, in every format of a file."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file, save_file
from torch import nn

from pruning.errors import SecateurError
from pruning.formats.architecture.exporting import export
from pruning.formats.intake import check_model
from pruning.formats.limits import Limits
from pruning.formats.registry import read_model
from pruning.plan import plan
from pruning.request import FileRef, RunRequest
from pruning.run import run as run_cleanly
from pruning.spec import default_spec, parse_spec
from tests.pruning.test_plan import dataset
from tests.security import samples

torch.set_num_threads(1)
run = partial(run_cleanly, clean=False)

QUIET = {
    "trust": {"checks": False, "bootstrap": 0, "ladder": False},
    "comparison": {"criteria": []},
}
TUNED = {
    "criterion": {"kind": "magnitude"},
    "objective": {"loss": "match_dense", "metrics": ["cosine"]},
    "recovery": {"kind": "fine_tune", "epochs": 1},
}
TOTAL = 6 * 8 + 8 * 8 + 8


class One(nn.Module):
    """One number a sample, as [n] or as [n, 1]."""

    def __init__(self, column: bool) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 1)
        self.column = column

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.fc3(self.fc2(self.fc1(x).relu()).relu())
        return out if self.column else out.squeeze(1)


def network(column: bool = False, zeros: float = 0.0) -> One:
    torch.manual_seed(0)
    net = One(column).eval()
    for layer in (net.fc1, net.fc2):
        flat = layer.weight.detach().abs().flatten()
        if zeros:
            small = layer.weight.abs() <= flat.kthvalue(round(zeros * len(flat))).values
            layer.weight.data[small] = 0.0
            layer.weight.data[small & (torch.arange(small.shape[1]) % 2 == 1)] = -0.0
    return net


def as_onnx(net: One, path: Path, half: bool = False) -> Path:
    kind, dtype = (TensorProto.FLOAT16, "f2") if half else (TensorProto.FLOAT, "f4")
    arrays = {k: v.numpy().astype(dtype) for k, v in net.state_dict().items()}
    nodes, at = [], "x"
    for name in ("fc1", "fc2", "fc3"):
        nodes.append(helper.make_node(
            "Gemm", [at, f"{name}.weight", f"{name}.bias"], [name], transB=1))  # fmt: skip
        at = name
        if name != "fc3":
            nodes.append(helper.make_node("Relu", [at], [f"{name}r"]))
            at = f"{name}r"
    shape: list[int | str] = ["n", 1]
    if not net.column:
        arrays["axis"], shape = np.array([1]), ["n"]
        nodes.append(helper.make_node("Squeeze", [at, "axis"], ["y"]))
        at = "y"
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("x", kind, ["n", 6])],
        [helper.make_tensor_value_info(at, kind, shape)],
        [numpy_helper.from_array(a, k) for k, a in arrays.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    return path


def as_pt2(net: One, path: Path) -> Path:
    free = {"x": {0: torch.export.Dim("n", min=2)}}
    torch.export.save(torch.export.export(net, (torch.zeros(3, 6),), dynamic_shapes=free), path)
    return path


def as_architecture(net: One, path: Path) -> Path:
    export(net, [torch.zeros(3, 6)], path)
    return path


WRITERS = {
    "net.onnx": as_onnx,
    "half.onnx": partial(as_onnx, half=True),
    "net.pt2": as_pt2,
    "net": as_architecture,
}


def done(path: Path, folder: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """The report of a whole run on 60 inputs without labels."""
    folder.mkdir()
    (name,) = [t.name for t in read_model(path, Limits()).facts.inputs]
    x = np.random.default_rng(0).standard_normal((60, 6))
    kind = np.float16 if path.name.startswith("half") else np.float32
    np.savez(folder / "data.npz", **{name: x.astype(kind)})
    request = RunRequest(
        model=FileRef(path=str(path), name=path.name, sha256="0" * 64),
        data={"calibration": FileRef(path=str(folder / "data.npz"), name="data.npz")},
        spec={**spec, **QUIET},
    )
    run(request, folder)
    found: dict[str, Any] = json.loads((folder / "out" / "report.json").read_bytes())
    return found


def zeros_of(path: Path) -> dict[str, torch.Tensor]:
    module = read_model(path, Limits()).module
    return {n: p.detach() == 0 for n, p in module.named_parameters() if p.ndim == 2}


def written(folder: Path, path: Path) -> Path:
    """The pruned model, a folder by itself again where it was one."""
    out = folder / "out"
    if not path.is_dir():
        return next(p for p in out.iterdir() if p.suffix == path.suffix)
    alone = folder.with_name("alone")
    alone.mkdir()
    for file in path.iterdir():
        shutil.copy(out / file.name, alone)
    return alone


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("spec", [default_spec(False), TUNED], ids=["default", "tuned"])
def test_outputs_without_a_second_axis_in_every_format(name, spec, tmp_path):
    flat = WRITERS[name](network(), tmp_path / name)
    report = done(flat, tmp_path / "job", spec)
    assert report["sparsity"]["removed"] == TOTAL // 2
    assert "metric_doubtful" in [w["code"] for w in report["warnings"]]
    assert not [c for c in report["checks"] if c["status"] == "fail"]
    aside = tmp_path / "column"
    aside.mkdir()
    other = done(WRITERS[name](network(column=True), aside / name), aside / "job", spec)
    for stage in ("pruned", "recovered"):
        if report["loss"][stage] is not None:
            assert report["loss"][stage] == pytest.approx(other["loss"][stage], rel=1e-3)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("spec", [default_spec(False), TUNED], ids=["default", "tuned"])
def test_zeros_of_the_upload_stay_in_every_format(name, spec, tmp_path):
    path = WRITERS[name](network(zeros=0.7), tmp_path / name)
    before = zeros_of(path)
    found = sum(int(z.sum()) for z in before.values())
    facts = check_model(path)
    assert sum(layer.zeros or 0 for layer in facts.layers) == found
    report = done(path, tmp_path / "job", spec)
    after = zeros_of(written(tmp_path / "job", path))
    assert all(bool(after[n][zero].all()) for n, zero in before.items())
    assert report["sparsity"]["found"] == found
    assert report["sparsity"]["removed"] == max(found, TOTAL // 2)
    codes = [w["code"] for w in report["warnings"]]
    assert codes.count("zeros_kept") == 1
    assert ("fewer_than_zeros" in codes) == (found > TOTAL // 2)
    assert {c["name"]: c["status"] for c in report["checks"]}["zeros_kept"] == "pass"


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("column", [False, True])
def test_agreement_of_one_number_is_refused_from_facts_in_every_format(name, column, tmp_path):
    facts = check_model(WRITERS[name](network(column), tmp_path / name))
    spec = parse_spec({**TUNED, "objective": {"loss": "match_dense", "metrics": ["agreement"]}})
    data = {"calibration": dataset(
        arrays={facts.inputs[0].name: (facts.inputs[0].dtype, [500, 6])}, target=None
    )}  # fmt: skip
    with pytest.raises(SecateurError) as caught:
        plan(spec, facts, data)
    assert caught.value.code == "metric_meaningless"


def test_zeros_of_a_hugging_face_folder_stay(tmp_path):
    folder = samples.huggingface(tmp_path / "tiny")
    file = folder / "model.safetensors"
    state = load_file(file)
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    state[name][:, ::2] = 0.0
    save_file(state, file, {"format": "pt"})
    texts = "".join(json.dumps({"text": "a b c"[: 1 + n % 5]}) + "\n" for n in range(40))
    (tmp_path / "texts.jsonl").write_text(texts)
    request = RunRequest(
        model=FileRef(path=str(folder), name="tiny", sha256="0" * 64),
        data={"calibration": FileRef(path=str(tmp_path / "texts.jsonl"), name="texts.jsonl")},
        spec={**TUNED, **QUIET, "target": {"sparsity": 0.3}},
    )
    job = tmp_path / "job"
    job.mkdir()
    run(request, job)
    report = json.loads((job / "out" / "report.json").read_bytes())
    assert report["sparsity"]["found"] == 64
    again = load_file(next((job / "out").rglob("model.safetensors")))
    assert bool((again[name][:, ::2] == 0).all())
    assert report["sparsity"]["removed"] == int(0.3 * report["sparsity"]["total"] + 0.5)


def test_facts_of_an_earlier_version_are_read(tmp_path):
    facts = check_model(as_onnx(network(zeros=0.5), tmp_path / "net.onnx"))
    assert facts.sparse_bytes is not None
    old = json.loads(facts.model_dump_json(exclude={"sparse_bytes"}))
    for layer in old["layers"]:
        del layer["zeros"]
    again = type(facts).model_validate(old)
    assert again.sparse_bytes is None
    assert [x.zeros for x in again.layers] == [None] * 3
