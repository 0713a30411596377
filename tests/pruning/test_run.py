"""A run from files to artifacts, on a real network trained on real digits."""

import json
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from pruning.errors import SecateurError
from pruning.events import CheckpointEvent, MetricEvent, PhaseEvent, ProgressEvent
from pruning.formats import sparse
from pruning.formats.architecture.exporting import export
from pruning.formats.masks import read_masks
from pruning.report.schema import Report, results_json
from pruning.request import FileRef, RunRequest
from pruning.run import hand_over
from pruning.run import run as run_cleanly

OBS = {
    "criterion": {"kind": "obs", "damping": 0.01},
    "schedule": {"recomputations": 1, "kind": "one_shot"},
}
ROUNDS = {
    "criterion": {"kind": "obd"},
    "target": {"sparsity": 0.8},
    "schedule": {"kind": "rounds", "rounds": 2},
    "recovery": {"kind": "fine_tune", "epochs": 1},
}
QUICK = {
    "criterion": {"kind": "magnitude"},
    "trust": {"checks": False, "ladder": False, "bootstrap": 0},
}


# A process for each of these runs would cost more than the runs.
run = partial(run_cleanly, clean=False)


@pytest.fixture
def inputs(digits_files: Path) -> Path:
    return digits_files


def request(inputs: Path, spec: dict[str, Any], evaluation: bool = True, **more: Any) -> RunRequest:
    data = {"calibration": FileRef(path=str(inputs / "calibration.npz"), name="calibration.npz")}
    if evaluation:
        data["evaluation"] = FileRef(path=str(inputs / "evaluation.npz"), name="evaluation.npz")
    model = FileRef(path=str(inputs / "digits.onnx"), name="My digits.onnx", sha256="0" * 64)
    return RunRequest(**({"model": model, "data": data, "spec": spec} | more))


def report_of(folder: Path) -> Report:
    return Report.model_validate_json((folder / "out" / "report.json").read_bytes())


@pytest.mark.parametrize(
    "spec",
    [{"criterion": {"kind": "magnitude"}}, {"criterion": {"kind": "obd"}}, OBS, ROUNDS],
    ids=["magnitude", "obd", "obs", "rounds"],
)
def test_artifacts_agree_with_each_other_and_with_the_report(inputs, tmp_path, spec):
    events: list[Any] = []
    result = run(request(inputs, spec), tmp_path, events.append)
    report, out = report_of(tmp_path), tmp_path / "out"
    assert {a.name for a in result.artifacts} == {path.name for path in out.iterdir()}
    assert {a.name for a in report.artifacts} == {
        "My digits.onnx",
        "My digits.masks.safetensors",
        "My digits.sparse.safetensors",
    }

    model = onnx.load(out / "My digits.onnx")
    arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    total = 64 * 12 + 12 * 10
    removed = int(report.spec.target.sparsity * total + 0.5)
    masks = read_masks(out / "My digits.masks.safetensors")
    assert (report.sparsity.removed, report.sparsity.total) == (removed, total)
    assert sum(int((~m).sum()) for m in masks.values()) == removed
    assert not arrays["fc1.weight"][~masks["fc1.weight"]].any()
    assert not arrays["head.weight"].T[~masks["head.weight"]].any()
    assert [x.zeros for x in report.layers] == [
        int((arrays["fc1.weight"] == 0).sum()),
        int((arrays["head.weight"] == 0).sum()),
    ]
    packed = out / "My digits.sparse.safetensors"
    assert {n: a.tobytes() for n, a in sparse.read(packed).items()} == {
        n: a.tobytes() for n, a in arrays.items()
    }
    (restored,) = sparse.unpack(packed, tmp_path / "restored")
    assert restored.read_bytes() == (out / "My digits.onnx").read_bytes()

    with np.load(inputs / "evaluation.npz") as data:
        session = ort.InferenceSession(str(out / "My digits.onnx"))
        (logits,) = session.run(["logits"], {"pixels": data["pixels"]})
        accuracy = (logits.argmax(1) == data["target"]).mean()
    assert report.metrics.final["accuracy"].value == pytest.approx(accuracy, abs=1 / 400)
    assert report.metrics.dense["accuracy"].value > 0.85

    assert {c.status for c in report.checks if c.group != "trust"} == {"pass"}
    assert {c.name for c in report.checks} >= {
        "digests", "exact_zeros", "zeros_by_layer", "graph_kept", "masks_file", "sparse_file",
        "onnxruntime_outputs", "onnxruntime_accuracy",
    }  # fmt: skip
    assert report.sizes is not None
    assert report.sizes.pruned_bytes == (out / "My digits.onnx").stat().st_size
    assert result.rejected is None
    phases = [e.phase for e in events if isinstance(e, PhaseEvent)]
    assert phases[:3] == ["loading", "checking", "evaluating"]
    assert phases[-3:] == ["exporting", "verifying", "exporting"]
    assert all(a != b for a, b in pairwise(phases))
    assert {"scoring", "pruning"} <= set(phases)
    assert report.timings.keys() >= set(phases)
    assert {e.stage for e in events if isinstance(e, MetricEvent)} >= {"dense", "pruned"}
    assert result.summary["sparsity"]["removed"] == removed


def test_a_missed_gate_rejects_and_keeps_the_artifacts(inputs, tmp_path):
    spec = {
        "criterion": {"kind": "magnitude"},
        "target": {"sparsity": 0.95},
        "gates": {"max_drop": {"accuracy": 0.01}},
    }
    result = run(request(inputs, spec), tmp_path)
    assert result.rejected is not None
    assert (result.rejected.code, result.rejected.where) == (
        "gate_missed",
        "spec.gates.max_drop.accuracy",
    )
    assert (tmp_path / "out" / "My digits.onnx").exists()
    assert {a.name for a in result.artifacts} == {p.name for p in (tmp_path / "out").iterdir()}
    assert "rejected by a gate" in (tmp_path / "out" / "report.html").read_text()


def test_two_runs_differ_in_nothing_but_timings_and_environment(inputs, tmp_path):
    for name in ("a", "b"):
        run(request(inputs, OBS, evaluation=False), tmp_path / name)
    a, b = report_of(tmp_path / "a"), report_of(tmp_path / "b")
    assert a.timings != b.timings
    assert results_json(a) == results_json(b)
    assert a.data.evaluation.source == "held_out"
    assert (a.data.calibration.samples, a.data.evaluation.samples) == (720, 180)
    for path in (tmp_path / "a" / "out").glob("My digits*"):
        assert path.read_bytes() == (tmp_path / "b" / "out" / path.name).read_bytes()


def test_a_resumed_run_gives_the_bytes_of_an_undisturbed_one(inputs, tmp_path):
    run(request(inputs, ROUNDS), tmp_path / "whole")

    def die(event: Any) -> None:
        if isinstance(event, CheckpointEvent):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(request(inputs, ROUNDS), tmp_path / "cut", die)
    assert not (tmp_path / "cut" / "out").exists()
    events: list[Any] = []
    run(request(inputs, ROUNDS), tmp_path / "cut", events.append)
    saved = next(e for e in events if isinstance(e, CheckpointEvent))
    assert saved.model_dump().keys() == {"type", "name", "bytes"}
    assert str(tmp_path) not in saved.model_dump_json()
    assert results_json(report_of(tmp_path / "cut")) == results_json(report_of(tmp_path / "whole"))


def test_outputs_not_asked_for_are_not_written(inputs, tmp_path):
    spec = {"criterion": {"kind": "magnitude"}, "outputs": ["native"]}
    result = run(request(inputs, spec), tmp_path)
    assert {a.format for a in result.artifacts} == {
        "onnx",
        "report.json",
        "report.html",
        "manifest",
    }
    report = report_of(tmp_path)
    assert report.sizes is not None
    assert report.sizes.sparse_bytes is None


@pytest.mark.parametrize("phase", ["exporting", "verifying"])
def test_a_failure_on_the_way_leaves_no_out_folder(inputs, tmp_path, phase):
    def die(event: Any) -> None:
        if event == PhaseEvent(phase=phase):
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        run(request(inputs, QUICK), tmp_path, die)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]


def test_a_clean_process_gives_the_same_bytes_and_tells_the_same(inputs, tmp_path):
    said: dict[str, list[Any]] = {"clean": [], "here": []}
    spec = QUICK | {"curve": {"points": [0.3]}, "gates": {"max_bytes": {"native": 1}}}
    results = {
        name: run_cleanly(
            request(inputs, spec), tmp_path / name, events.append, clean=name == "clean"
        )
        for name, events in said.items()
    }
    clean, here = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "out").iterdir()}
        for name in said
    )
    assert clean.keys() == here.keys() == {a.name for a in results["clean"].artifacts}
    assert {n for n in clean if clean[n] != here[n]} <= {
        "report.json", "report.html", "manifest.json",
    }  # fmt: skip
    assert results_json(report_of(tmp_path / "clean")) == results_json(report_of(tmp_path / "here"))
    assert results["clean"].rejected == results["here"].rejected
    assert results["clean"].rejected is not None
    clean_told, here_told = (
        [event for event in events if not isinstance(event, ProgressEvent)]
        for events in said.values()
    )
    assert clean_told == here_told


def test_the_clean_process_imports_nothing_from_where_it_was_started(inputs, tmp_path, monkeypatch):
    """Else a file called random.py beside the model would run."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    (tmp_path / "random.py").write_text("raise SystemExit('imported')")
    (tmp_path / "onnx.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    assert run_cleanly(request(inputs, QUICK), tmp_path / "job").rejected is None


def test_a_model_with_a_file_that_the_job_would_write_is_refused_before_it_runs(tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    export(module, (torch.randn(2, 4),), tmp_path / "net", ["x"])
    weights = next(path for path in (tmp_path / "net").iterdir() if path.suffix != ".json")
    weights.rename(tmp_path / "net" / "net.masks.safetensors")
    x, y = np.zeros((40, 4), np.float32), np.arange(40) % 3
    np.savez(tmp_path / "data.npz", x=x, target=y)
    asked = RunRequest.model_validate(
        {
            "model": FileRef(path="net", name="net"),
            "data": {"calibration": FileRef(path="data.npz", name="data.npz")},
            "spec": QUICK,
        }
    )
    with pytest.raises(SecateurError) as refused:
        run(asked, tmp_path)
    assert (refused.value.code, refused.value.where) == ("unsupported_format", "model")
    assert "net.masks.safetensors" in refused.value.message
    assert not (tmp_path / "out").exists()


def test_what_the_clean_process_finds_is_raised_here(inputs, tmp_path, monkeypatch):
    def spoilt(*args: Any) -> RunRequest:
        second = hand_over(*args)
        second.outputs["My digits.onnx"].sha256 = "0" * 64
        return second

    monkeypatch.setattr("pruning.run.hand_over", spoilt)
    with pytest.raises(SecateurError) as failed:
        run_cleanly(request(inputs, QUICK), tmp_path)
    assert (failed.value.code, failed.value.where) == ("verification_failed", "digests")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]


def test_every_point_of_the_curve_is_delivered_as_a_job_of_its_own_would(inputs, tmp_path):
    run(request(inputs, QUICK | {"curve": {"points": [0.3, 0.8]}}), tmp_path / "curve")
    points = {p.source: p for p in report_of(tmp_path / "curve").curve}
    artifacts = {p.artifact for p in report_of(tmp_path / "curve").curve}
    assert artifacts == {"My digits.onnx", "My digits.at-0.2995.onnx", "My digits.at-0.7995.onnx"}
    assert points["target"].artifact == "My digits.onnx"
    run(request(inputs, QUICK | {"target": {"sparsity": 0.8}}), tmp_path / "alone")
    alone = (tmp_path / "alone" / "out" / "My digits.onnx").read_bytes()
    assert (tmp_path / "curve" / "out" / "My digits.at-0.7995.onnx").read_bytes() == alone
    kept = {"points": [0.3], "keep": False}
    result = run(request(inputs, QUICK | {"curve": kept}), tmp_path / "told")
    assert "point" not in {a.format for a in result.artifacts}
    assert len(report_of(tmp_path / "told").curve) == 2


@pytest.mark.parametrize(
    ("arrays", "code", "where"),
    [
        ({"images": (900, 64)}, "data_names", "data.calibration"),
        ({"pixels": (900, 8, 8)}, "data_shape", "data.calibration.pixels"),
    ],
)
def test_wrong_arrays_are_refused_with_their_place(inputs, tmp_path, arrays, code, where):
    np.savez(
        tmp_path / "bad.npz",
        target=np.zeros(900, int),
        **{name: np.zeros(shape, np.float32) for name, shape in arrays.items()},
    )
    bad = {"calibration": FileRef(path="bad.npz", name="bad.npz")}
    with pytest.raises(SecateurError) as refused:
        run(request(inputs, {}, data=bad), tmp_path)
    assert (refused.value.code, refused.value.where) == (code, where)


def test_damaged_data_are_refused_with_their_role(inputs, tmp_path):
    (tmp_path / "bad.npz").write_bytes((inputs / "calibration.npz").read_bytes()[:5000])
    bad = {"calibration": FileRef(path="bad.npz", name="bad.npz")}
    with pytest.raises(SecateurError) as refused:
        run(request(inputs, {}, data=bad), tmp_path)
    assert refused.value.code == "data_unreadable"
    assert (refused.value.where or "").startswith("data.calibration")


def test_checks_give_facts(inputs, tmp_path):
    ref = FileRef(path=str(inputs / "digits.onnx"), name="digits.onnx")
    facts = run(RunRequest(kind="check_model", model=ref), tmp_path).facts
    assert facts is not None
    assert [layer["name"] for layer in facts["layers"]] == ["fc1", "head"]
    ref = FileRef(path=str(inputs / "evaluation.npz"), name="x")
    facts = run(RunRequest(kind="check_dataset", data={"calibration": ref}), tmp_path).facts
    assert facts is not None
    assert (facts["samples"], facts["target"]["classes"]) == (400, 10)
    json.dumps(facts)


def test_the_held_out_share_is_kept_from_training_where_one_file_is_given_for_both(
    inputs, tmp_path
):
    file = FileRef(path=str(inputs / "calibration.npz"), name="calibration.npz")
    run(request(inputs, ROUNDS, data={"calibration": file, "training": file}), tmp_path)
    data = report_of(tmp_path).data
    assert (data.training.samples, data.training.source) == (720, "calibration")
    assert (data.evaluation.samples, data.evaluation.source) == (180, "held_out")


def test_evaluation_on_the_calibration_samples_is_warned_of(inputs, tmp_path):
    file = FileRef(path=str(inputs / "calibration.npz"), name="calibration.npz")
    asked = {"criterion": {"kind": "magnitude"}}
    for name, data in (("seen", {"calibration": file, "evaluation": file}), ("unseen", None)):
        more = {} if data is None else {"data": data}
        run(request(inputs, asked, **more), tmp_path / name)
    seen = [w.code for w in report_of(tmp_path / "seen").warnings]
    assert "evaluation_seen" in seen
    assert not report_of(tmp_path / "unseen").warnings


def test_runs_that_end_at_one_sparsity_have_a_file_each(inputs, tmp_path):
    """Rounds that stop at once deliver the dense network, whatever they were to reach."""
    stop = {"metric": "accuracy", "drop": 0.0}
    spec = QUICK | {
        "criterion": {"kind": "random"},
        "target": {"sparsity": 0.9},
        "schedule": {"kind": "rounds", "rounds": 1, "stop": stop},
        "curve": {"points": [0.8, 0.95]},
        "comparison": {"criteria": []},
    }
    run(request(inputs, spec), tmp_path)
    curve = report_of(tmp_path).curve
    assert [p.removed for p in curve] == [0, 0, 0]
    assert len({p.artifact for p in curve}) == 3
    assert all((tmp_path / "out" / str(p.artifact)).is_file() for p in curve)


def test_one_progress_rises_through_both_halves_to_one_and_is_no_result(inputs, tmp_path):
    events: list[Any] = []
    run_cleanly(request(inputs, ROUNDS), tmp_path, events.append)
    told = [e for e in events if isinstance(e, ProgressEvent)]
    known = [e.fraction for e in told if e.fraction is not None]
    assert known == sorted(known)
    assert known[-1] == 1.0
    assert told[-1].eta_seconds == 0.0
    assert max(known[:-1]) < 1.0
    first = next(n for n, e in enumerate(told) if e.fraction is not None)
    assert all(e.fraction is not None for e in told[first:]), "once known, it stays known"
    assert told[-1].phase == "exporting"
    elapsed = [e.elapsed_seconds for e in told]
    assert elapsed == sorted(elapsed)
    results = results_json(report_of(tmp_path)).decode()
    assert "eta_seconds" not in results
    assert "fraction" not in json.loads(results)
