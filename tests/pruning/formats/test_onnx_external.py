"""ONNX models that keep weights in files beside them: read, priced, pruned and written back so."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from pruning.errors import SecateurError
from pruning.formats.bundle import pack
from pruning.formats.limits import Limits
from pruning.formats.onnx import read_onnx
from pruning.formats.registry import read_model
from pruning.formats.sparse import pack as pack_sparse
from pruning.formats.sparse import unpack as unpack_sparse
from pruning.request import FileRef, RunRequest
from pruning.run import run
from pruning.spec import default_spec
from tests.pruning.formats.onnx_cases import Net, mlp, run_onnx

torch.set_num_threads(1)


def outside(tensor: TensorProto, file: Path, location: str, align: int = 1, **more: str) -> None:
    """Moves a tensor's numbers to the end of a file."""
    raw = numpy_helper.to_array(tensor).tobytes()
    start = -(-(file.stat().st_size if file.exists() else 0) // align) * align
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as sink:
        sink.truncate(start)
        sink.write(raw)
    for name in ("raw_data", "float_data", "int64_data"):
        tensor.ClearField(name)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": str(start), "length": str(len(raw)),
                       **more}.items():  # fmt: skip
        tensor.external_data.add(key=key, value=value)


def folder(root: Path, *, nested: bool = False) -> Path:
    """A perceptron whose weights lie in two files, with gaps, beside a file of another kind."""
    root.mkdir(parents=True)
    model = mlp()
    for i, tensor in enumerate(model.graph.initializer):
        location = "weights/b.bin" if nested and i % 2 else "net.onnx.data"
        outside(tensor, root / location, location, align=64)
    constants = [n for n in model.graph.node if n.op_type == "Constant"]
    outside(constants[0].attribute[0].t, root / "net.onnx.data", "net.onnx.data", align=4096)
    onnx.save(model, root / "net.onnx")
    (root / "NOTES.txt").write_text("kept")
    return root


def uploaded(kind: str, source: Path, folder: Path) -> Path:
    members = {p.relative_to(source).as_posix(): p for p in source.rglob("*") if p.is_file()}
    if kind == "folder":
        return source
    folder.mkdir(parents=True, exist_ok=True)
    return pack(kind, folder / f"net.{kind}", members, "top/")[0]


def halved(imported) -> None:
    with torch.no_grad():
        for parameter in imported.module.parameters():
            if parameter.ndim == 2:
                parameter.mul_(parameter.abs() > parameter.abs().median())


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_a_model_with_its_files_is_read_and_comes_back_as_it_came(kind, nested, tmp_path):
    source = folder(tmp_path / "up", nested=nested)
    path = uploaded(kind, source, tmp_path / "packed")
    imported = read_model(path, Limits())
    alone = read_onnx(mlp().SerializeToString())
    assert imported.facts.layers == alone.facts.layers
    for name, array in alone.tensors().items():
        np.testing.assert_array_equal(imported.tensors()[name], array)

    halved(imported)
    for out in ("a", "b"):
        (tmp_path / out).mkdir()
        written = imported.write(tmp_path / out, "net")
    first = [(tmp_path / "a" / p.relative_to(tmp_path / "b")).read_bytes() for p in written]
    assert first == [p.read_bytes() for p in written]

    result = tmp_path / "b" if kind == "folder" else written[0]
    again = read_model(result, Limits())
    assert again.skeleton() == imported.skeleton()
    for name in ("fc1.weight", "fc2.weight", "W3"):
        assert (again.tensors()[name] == 0).mean() == pytest.approx(0.5, abs=0.1)
    np.testing.assert_array_equal(again.tensors()["fc1.bias"], alone.tensors()["fc1.bias"])

    model = again.files.unpacked(tmp_path / "there")
    x = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    theirs = onnxruntime.InferenceSession(str(model)).run(None, {"x": x})[0]
    with torch.no_grad():
        np.testing.assert_allclose(again.module(torch.from_numpy(x)), theirs, atol=1e-5)


def test_what_did_not_change_is_the_same_bytes(tmp_path):
    source = folder(tmp_path / "up")
    imported = read_model(source, Limits())
    (tmp_path / "out").mkdir()
    imported.write(tmp_path / "out", "net")
    for path in source.iterdir():
        if path.suffix != ".onnx":  # protocol buffers have many forms, ours is canonical
            assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes(), path.name
    assert (tmp_path / "out" / "net.onnx").stat().st_size == (source / "net.onnx").stat().st_size


@pytest.mark.filterwarnings("ignore")
def test_what_torch_exports_today_goes_through_a_whole_job(tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 100), nn.ReLU(),
                            nn.Linear(100, 3)).eval()  # fmt: skip
    model = tmp_path / "model"
    model.mkdir()
    batch = torch.export.Dim("batch")
    torch.onnx.export(network, (torch.randn(2, 8),), model / "net.onnx", dynamo=True,
                      input_names=["x"], dynamic_shapes=({0: batch},), verbose=False)  # fmt: skip
    assert (model / "net.onnx.data").exists()
    x = np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x)
    spec = default_spec(labelled=False) | {"outputs": ["native", "masks", "sparse"]}
    request = RunRequest(
        model=FileRef(path="model", name="net", sha256="0" * 64),
        data={"calibration": FileRef(path="d.npz", name="d.npz")},
        spec=spec,
    )
    run(request, tmp_path, clean=False)
    out = tmp_path / "out"
    report = json.loads((out / "report.json").read_text())
    assert {check["status"] for check in report["checks"]} <= {"pass", "warn"}
    statuses = {check["name"]: check["status"] for check in report["checks"]}
    assert statuses["onnxruntime_outputs"] == statuses["graph_kept"] == "pass"
    assert report["sparsity"]["achieved"] == 0.5
    names = {artifact["name"] for artifact in report["artifacts"]}
    assert {"net.onnx", "net.onnx.data"} <= names
    sizes = [(place / "net.onnx.data").stat().st_size for place in (out, model)]
    assert sizes[0] == sizes[1]


def test_the_sparse_file_restores_both_files_bit_for_bit(tmp_path):
    imported = read_model(folder(tmp_path / "up", nested=True), Limits())
    halved(imported)
    (tmp_path / "out").mkdir()
    written = imported.write(tmp_path / "out", "net")
    again = read_model(tmp_path / "out", Limits())
    pack_sparse(written, again.tensors(), tmp_path / "net.sparse")
    unpack_sparse(tmp_path / "net.sparse", tmp_path / "restored")
    for path in written:
        name = path.relative_to(tmp_path / "out")
        assert (tmp_path / "restored" / name).read_bytes() == path.read_bytes()


def test_weights_in_a_subgraph_may_lie_outside_too(tmp_path):
    net = Net(3)
    body = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["z"])], "then", [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(net.random.standard_normal((4, 3)).astype(np.float32), "w")],
    )  # fmt: skip
    net.const("yes", np.array(True))
    net.nodes.append(
        helper.make_node("If", ["yes"], ["y"], "if", then_branch=body, else_branch=body)
    )
    model = net.model({"x": ["n", 4]}, ["y"])
    expected = run_onnx(model, np.ones((2, 4), np.float32))[0]
    for attribute in model.graph.node[0].attribute:
        outside(attribute.g.initializer[0], tmp_path / "up" / "w.bin", "w.bin")
    onnx.save(model, tmp_path / "up" / "m.onnx")
    imported = read_model(tmp_path / "up", Limits())
    with torch.no_grad():
        np.testing.assert_allclose(imported.module(torch.ones(2, 4)), expected, rtol=1e-5)
        next(imported.module.parameters()).zero_()
    (tmp_path / "out").mkdir()
    imported.write(tmp_path / "out", "m")
    again = read_model(tmp_path / "out", Limits())
    assert sorted(float(np.abs(a).max()) == 0 for a in again.tensors().values() if a.size == 12) \
        == [False, True]  # fmt: skip


def two_in_one_place(root: Path) -> Path:
    net = Net(5)
    net.op("MatMul", ["x", net.weight("first", 6, 6)], "a")
    net.op("Tanh", ["a"], "t")
    net.const("second", np.zeros((6, 6), np.float32))
    net.op("MatMul", ["t", "second"], "y")
    model = net.model({"x": ["n", 6]}, ["y"])
    one, other = model.graph.initializer
    outside(one, root / "m.data", "m.data")
    other.CopyFrom(one)
    other.name = "second"
    onnx.save(model, root / "m.onnx")
    return root


def test_two_tensors_in_one_place_are_one_weight(tmp_path):
    imported = read_model(two_in_one_place(tmp_path / "up"), Limits())
    assert imported.facts.ties
    assert set(imported.weight_names.values()) == {"first"}
    halved(imported)
    (tmp_path / "out").mkdir()
    imported.write(tmp_path / "out", "m")
    held = onnx.load(tmp_path / "out" / "m.onnx").graph.initializer
    first, second = map(numpy_helper.to_array, held)
    np.testing.assert_array_equal(first, second)
    assert (first == 0).sum() == 18
    assert read_model(tmp_path / "out", Limits()).skeleton() == imported.skeleton()


def test_a_checksum_is_that_of_the_written_file(tmp_path):
    (tmp_path / "up").mkdir()
    model, data = mlp(), tmp_path / "up" / "m.data"
    outside(model.graph.initializer[0], data, "m.data", checksum="0" * 40)
    onnx.save(model, tmp_path / "up" / "m.onnx")
    imported = read_model(tmp_path / "up", Limits())
    halved(imported)
    (tmp_path / "out").mkdir()
    imported.write(tmp_path / "out", "m")
    found = onnx.load(tmp_path / "out" / "m.onnx", load_external_data=False).graph.initializer[0]
    said = {entry.key: entry.value for entry in found.external_data}
    assert said["checksum"] == hashlib.sha1((tmp_path / "out" / "m.data").read_bytes()).hexdigest()


def entry(tensor: TensorProto, key: str, value: str) -> None:
    next(e for e in tensor.external_data if e.key == key).value = value


def overlap(model: onnx.ModelProto) -> None:
    entry(model.graph.initializer[1], "offset", "4")


def in_both(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].raw_data = b"\0" * 140


def text(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_type = TensorProto.STRING


def changed(key: str, value: str):
    return lambda model: entry(model.graph.initializer[0], key, value)


def added(key: str, value: str):
    return lambda model: model.graph.initializer[0].external_data.add(key=key, value=value)


REFUSED = {
    "above the upload": (changed("location", "../net.data"), "leads out of the upload"),
    "above from below": (changed("location", "a/../../net.data"), "leads out of the upload"),
    "absolute": (changed("location", "/etc/passwd"), "leads out of the upload"),
    "a drive": (changed("location", "C:/net.data"), "leads out of the upload"),
    "a backslash": (changed("location", "..\\net.data"), "leads out of the upload"),
    "nowhere": (changed("location", ""), "leads out of the upload"),
    "the model's own file": (changed("location", "net.onnx"), "in the model's own file"),
    "another file": (changed("location", "other.data"), "other.data, which did not come"),
    "past the end": (changed("offset", "100000"), "which has"),
    "a negative place": (changed("offset", "-4"), "'-4' for an offset"),
    "a giant place": (changed("offset", "9" * 19), "for an offset"),
    "no number": (changed("offset", "٣"), "for an offset"),
    "another length": (changed("length", "136"), "where its shape takes 140"),
    "a key twice": (added("offset", "0"), "entries other than"),
    "an unknown key": (added("basepath", "/etc"), "entries other than"),
    "a part of another's bytes": (overlap, "shares bytes"),
    "in both files": (in_both, "in the model's file too"),
    "texts": (text, "texts"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_place_that_is_not_in_the_upload_is_refused(name, tmp_path):
    change, said = REFUSED[name]
    model = mlp()
    for tensor in model.graph.initializer:
        outside(tensor, tmp_path / "up" / "net.data", "net.data")
    change(model)
    (tmp_path / "up" / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(SecateurError) as caught:
        read_model(tmp_path / "up", Limits())
    assert caught.value.code == "external_data"
    assert said in caught.value.message


def test_a_link_among_the_files_is_refused(tmp_path):
    source = folder(tmp_path / "up")
    (source / "net.onnx.data").unlink()
    (source / "net.onnx.data").symlink_to("/etc/passwd")
    with pytest.raises(SecateurError) as caught:
        read_onnx(source)
    assert caught.value.code == "model_unreadable"


def test_a_model_without_its_files_is_refused_with_what_to_send(tmp_path):
    source = folder(tmp_path / "up", nested=True)
    with pytest.raises(SecateurError) as caught:
        read_model(source / "net.onnx", Limits())
    error = caught.value
    assert error.code == "external_data"
    assert "net.onnx.data, weights/b.bin, which did not come with it" in error.message
    assert "`secateur prune` and the Python client then send them along" in error.hint
    assert "as one .tar or .zip that keeps the folders" in error.hint
    assert error.details["files"] == ["net.onnx.data", "weights/b.bin"]


@pytest.mark.parametrize("name", ["net.onnx", "model"])
def test_a_file_that_is_missing_is_named_with_the_part_to_send(name, tmp_path):
    """An upload of one file lies under a name of the service's own."""
    (folder(tmp_path / "up") / "net.onnx").rename(tmp_path / name)
    with pytest.raises(SecateurError) as caught:
        read_model(tmp_path / name, Limits())
    model = "net.onnx" if name == "net.onnx" else "model.onnx"
    assert f"-F file=@{model} -F file=@net.onnx.data" in caught.value.hint


def test_files_are_priced_before_they_are_read(tmp_path):
    source = folder(tmp_path / "up")
    for limits in (Limits(parameters=50), Limits(model_bytes=500)):
        with pytest.raises(SecateurError) as caught:
            read_onnx(source, limits)
        assert caught.value.code == "model_too_large"


def test_two_models_in_one_upload_are_refused(tmp_path):
    source = folder(tmp_path / "up")
    shutil.copy(source / "net.onnx", source / "net2.onnx")
    with pytest.raises(SecateurError) as caught:
        read_model(source, Limits())
    assert "2 ONNX files: net.onnx, net2.onnx" in caught.value.message


def test_a_model_alone_in_an_archive_is_read(tmp_path):
    onnx.save(mlp(), tmp_path / "m.onnx")
    path = pack("zip", tmp_path / "m.zip", {"m.onnx": tmp_path / "m.onnx"})[0]
    assert read_model(path, Limits()).facts.format == "onnx"
