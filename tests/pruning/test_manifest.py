"""The manifest: digests of what went in and came out, and what two of them have in common."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pruning.manifest import NAME, Manifest, compare, make_manifest, manifest_json
from pruning.report.schema import Report, results_json
from pruning.request import FileRef, RunRequest
from pruning.run import run
from tests.e2e.files import network, npz, samples

SPEC: dict[str, Any] = {
    "criterion": {"kind": "magnitude"},
    "target": {"sparsity": 0.75},
    "seed": 3,
    "comparison": {"criteria": []},
    "trust": {"checks": False},
}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def job(folder: Path, spec: dict[str, Any]) -> tuple[RunRequest, Path]:
    """A job in a folder, run to its end, and where its files are."""
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "model").write_bytes(network())
    (folder / "in" / "data").write_bytes(npz(samples(60)))

    def reference(name: str, shown: str) -> FileRef:
        path = Path("in") / name
        return FileRef(path=str(path), name=shown, sha256=sha256((folder / path).read_bytes()))

    request = RunRequest(
        model=reference("model", "net.onnx"),
        data={"calibration": reference("data", "data.npz")},
        spec=spec,
    )
    run(request, folder, clean=False)
    return request, folder / "out"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunRequest, Path]:
    return job(tmp_path_factory.mktemp("job"), SPEC)


@pytest.fixture(scope="module")
def manifest(done: tuple[RunRequest, Path]) -> Manifest:
    return Manifest.model_validate_json((done[1] / NAME).read_bytes())


def test_it_names_every_input_and_output_with_its_digest(
    done: tuple[RunRequest, Path], manifest: Manifest
) -> None:
    out = done[1]
    assert [(i.role, i.name, i.sha256, i.bytes) for i in manifest.inputs] == [
        ("model", "net.onnx", sha256(network()), len(network())),
        ("calibration", "data.npz", sha256(npz(samples(60))), len(npz(samples(60)))),
    ]
    written = {path.name: path.read_bytes() for path in out.iterdir() if path.name != NAME}
    assert {o.name: (o.bytes, o.sha256) for o in manifest.outputs} == {
        name: (len(data), sha256(data)) for name, data in written.items()
    }
    assert {o.name for o in manifest.outputs if not o.reproduced} == {"report.json", "report.html"}


def test_it_says_what_the_job_ran_on_and_with(
    done: tuple[RunRequest, Path], manifest: Manifest
) -> None:
    report = Report.model_validate_json((done[1] / "report.json").read_bytes())
    assert manifest.results_sha256 == sha256(results_json(report))
    assert manifest.spec == report.spec.model_dump(mode="json")
    assert manifest.seeds == [3]
    assert manifest.versions.numpy == np.__version__
    assert manifest.versions.onnx
    assert manifest.versions.onnxruntime
    assert (manifest.threads, manifest.device) == (1, "cpu")


def test_an_earlier_checkpoint_and_every_seed_of_a_comparison_are_named(
    done: tuple[RunRequest, Path],
) -> None:
    request, out = done
    report = Report.model_validate_json((out / "report.json").read_bytes())
    compared = {"criteria": [{"kind": "magnitude"}], "seeds": 3}
    report.spec = type(report.spec).model_validate(
        report.spec.model_dump(mode="json") | {"comparison": compared}
    )
    earlier = FileRef(path="in/model", name="early.onnx", sha256="0" * 64)
    request = request.model_copy(update={"rewind_to": earlier})
    made = make_manifest(report, request, report.artifacts)
    assert made.seeds == [3, 4, 5]
    found = made.input("rewind_to")
    assert found is not None
    assert (found.name, found.sha256, found.bytes) == ("early.onnx", "0" * 64, None)
    assert Manifest.model_validate_json(manifest_json(made)) == made


def test_the_same_job_gives_the_same_digests_again(
    done: tuple[RunRequest, Path], manifest: Manifest, tmp_path: Path
) -> None:
    _, out = job(tmp_path, manifest.spec)
    found = compare(manifest, Manifest.model_validate_json((out / NAME).read_bytes()))
    assert found.same
    assert found.changed == {}
    assert {o.name: o.result for o in found.outputs} == {
        "net.onnx": "same",
        "net.masks.safetensors": "same",
        "net.sparse.safetensors": "same",
        "report.json": "not compared",
        "report.html": "not compared",
        "results": "same",
    }


def changed(manifest: Manifest, **fields: Any) -> Manifest:
    return Manifest.model_validate(manifest.model_dump() | fields)


def test_what_differs_is_named_with_what_else_is_not_the_same(manifest: Manifest) -> None:
    values = manifest.model_dump()
    for output in values["outputs"]:
        if output["name"] == "net.onnx":
            output["sha256"] = "0" * 64
    values["outputs"] = [o for o in values["outputs"] if "masks" not in o["name"]]
    values["versions"] |= {"torch": "9.9"}
    values["inputs"][1] |= {"sha256": "1" * 64}
    after = Manifest.model_validate(values | {"threads": 7, "results_sha256": "2" * 64})
    found = compare(manifest, after)
    assert not found.same
    results = {o.name: o.result for o in found.outputs}
    assert results["net.onnx"] == results["results"] == "differs"
    assert results["net.masks.safetensors"] == "missing"
    assert results["net.sparse.safetensors"] == "same"
    assert found.changed == {
        "torch": (manifest.versions.torch, "9.9"),
        "threads": ("1", "7"),
        "input calibration": (manifest.inputs[1].sha256, "1" * 64),
    }


@pytest.mark.parametrize("name", ["net.onnx", "net.masks.safetensors"])
def test_one_output_that_differs_is_enough(manifest: Manifest, name: str) -> None:
    outputs = [
        o.model_dump() | ({"sha256": "0" * 64} if o.name == name else {}) for o in manifest.outputs
    ]
    assert not compare(manifest, changed(manifest, outputs=outputs)).same


def test_other_results_are_a_difference_and_other_versions_alone_are_not(
    manifest: Manifest,
) -> None:
    assert not compare(manifest, changed(manifest, results_sha256="0" * 64)).same
    elsewhere = compare(manifest, changed(manifest, device="cuda (any)"))
    assert elsewhere.same
    assert elsewhere.changed == {"device": ("cpu", "cuda (any)")}


def test_fields_of_a_later_version_are_passed_over(manifest: Manifest) -> None:
    values = json.loads(manifest_json(manifest))
    values |= {"schema_version": "1.9", "new": 1}
    values["versions"]["jax"] = "1"
    assert Manifest.model_validate(values).outputs == manifest.outputs
