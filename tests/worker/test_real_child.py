"""The child that the service runs: torch, the library, and a supervisor that trusts neither."""

import io
import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from bench import ROOT, Bench
from onnx import TensorProto, helper, numpy_helper

from pruning.errors import SecateurError
from pruning.events import FailedEvent, MetricEvent, PhaseEvent, ProgressEvent
from pruning.report.schema import VOLATILE
from pruning.request import FileRef, RunRequest
from pruning.run import run
from store import leases
from store.claims import Outcome
from store.clock import utcnow
from store.queries import datasets, models
from store.tables import Artifact, Dataset, Model
from worker.answer import answer
from worker.child import Voice, failure, told
from worker.levels import choose, means
from worker.process import Child
from worker.workplace import PROGRAM

SPEC = {"criterion": {"kind": "magnitude"}, "compensation": {"kind": "none"}}
QUICK = SPEC | {
    "schedule": {"kind": "rounds", "rounds": 2},
    "trust": {"checks": False, "ladder": False, "bootstrap": 0},
}


def network(seed: int = 0) -> bytes:
    rng = np.random.default_rng(seed)
    weights = [
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in (("fc1.weight", (8, 6)), ("fc2.weight", (3, 8)))
    ]
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "fc1.weight"], ["a"], transB=1),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Gemm", ["b", "fc2.weight"], ["y"], transB=1),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        weights,
    )
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()


def samples() -> bytes:
    rng = np.random.default_rng(1)
    file = io.BytesIO()
    x = rng.normal(size=(60, 6)).astype(np.float32)
    np.savez(file, x=x, target=np.arange(60) % 3)
    return file.getvalue()


@pytest.mark.parametrize("bubblewrap", [True, False])
def test_uploads_are_checked_and_a_model_is_pruned(bench: Bench, bubblewrap: bool):
    place = bench.place(program=PROGRAM, warm_children=True)
    if not bubblewrap:
        if place.sandbox.level != "bubblewrap":
            pytest.skip("no bubblewrap here, so that the other case ran without it")
        place.sandbox = choose("best", has=replace(means(), bubblewrap=None))
    place.prepare()
    model = bench.upload(models, "small.onnx", network())
    bad = bench.upload(models, "bad.onnx", b"\x08\x08not a model")
    bench.dataset = bench.upload(datasets, "small.npz", samples())
    assert answer(place, "check") == 3
    assert bench.rows(Model, id=model)[0].facts["prunable_parameters"] == 72
    (rejected,) = bench.rows(Model, id=bad)
    assert rejected.state == "rejected"
    assert rejected.error["code"] in ("model_unreadable", "unsupported_format", "model_truncated")
    (data,) = bench.rows(Dataset, id=bench.dataset)
    assert (data.state, data.error) == ("ready", None)

    bench.model = model
    job = bench.submit_spec(SPEC)
    assert answer(place, "cpu") == 1
    assert bench.job(job).state == "succeeded", bench.job(job).error
    artifacts = {a.name: a for a in bench.rows(Artifact, job_id=job)}
    assert {"small.onnx", "report.json", "report.html"} <= set(artifacts)
    report = json.loads(bench.blobs.open(artifacts["report.json"].sha256).read())
    pruned = onnx.load_model_from_string(bench.blobs.open(artifacts["small.onnx"].sha256).read())
    zeros = sum(int((numpy_helper.to_array(t) == 0).sum()) for t in pruned.graph.initializer)
    assert zeros == report["sparsity"]["removed"] == 36
    for entry in report["artifacts"]:
        assert artifacts[entry["name"]].sha256 == entry["sha256"]


def test_a_kill_of_the_verifying_child_resumes_to_the_bytes_of_a_local_run(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    place = bench.place(program=PROGRAM)
    bench.model = bench.upload(models, "small.onnx", network())
    bench.dataset = bench.upload(datasets, "small.npz", samples())
    for _ in range(2):  # checked by nobody; the job's own child reads them
        claim = bench.claim("check")
        with bench.db.write() as session:
            passed = Outcome("succeeded", summary={"facts": {"format": "onnx"}})
            assert leases.finish(session, claim, passed, utcnow())
    for name, content in (("small.onnx", network()), ("small.npz", samples())):
        (tmp_path / name).write_bytes(content)
    job = bench.submit_spec(QUICK)
    real, started = place.child, []

    def child(threads: int, *, second: bool) -> Child:
        started.append(real(threads, second=second))
        if len(started) == 2:
            os.kill(started[1].pid, signal.SIGKILL)
        return started[-1]

    monkeypatch.setattr(place, "child", child)
    assert answer(place, "cpu") == 2
    assert bench.attempts(job) == ["lost", "succeeded"]
    saved = [e["name"] for e in bench.events(job) if e["type"] == "checkpoint"]
    assert len(saved) == len(set(saved)) > 0

    request = RunRequest(
        model=FileRef(path="small.onnx", name="small.onnx"),
        data={"calibration": FileRef(path="small.npz", name="small.npz")},
        spec=QUICK,
    )
    run(request, tmp_path, clean=False)
    stored = {a.name: a for a in bench.rows(Artifact, job_id=job)}
    local = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert stored.keys() == local.keys()
    for name in ("small.onnx", "small.masks.safetensors", "small.sparse.safetensors"):
        assert bench.blobs.open(stored[name].sha256).read() == local[name]
    service = json.loads(bench.blobs.open(stored["report.json"].sha256).read())
    here = json.loads(local["report.json"])
    for report in (service, here):
        for volatile in VOLATILE:
            del report[volatile]
        for named in (report["model"], *report["data"].values()):
            named["sha256"] = None
    assert service == here


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out_of_memory"),
        (SecateurError("scope_empty", "Nothing."), "scope_empty"),
        (ValueError("no"), "internal_error"),
        (RuntimeError("no"), "internal_error"),
    ],
)
def test_an_exception_becomes_what_a_user_is_told(error: Exception, code: str):
    assert failure(error).code == code


@pytest.fixture
def voice():
    reader, writer = os.pipe()

    def heard() -> list[dict]:
        data = b""
        while select.select([reader], [], [], 0)[0]:
            data += os.read(reader, 1 << 16)
        return [json.loads(line) for line in data.splitlines()]

    yield Voice(writer), heard
    os.close(reader)
    os.close(writer)


def test_progress_is_said_once_a_second_and_the_last_of_a_phase_is_not_lost(voice):
    say, heard = voice[0].say, voice[1]
    began = time.monotonic()
    for i in range(1000):
        say(ProgressEvent(phase="scoring", done=i, total=1000))
    assert time.monotonic() - began < 1.0
    assert [e["done"] for e in heard()] == [0]
    say(PhaseEvent(phase="pruning"))
    say(ProgressEvent(phase="pruning", done=5, total=9))
    assert [(e["type"], e.get("done")) for e in heard()] == [
        ("progress", 999),
        ("phase", None),
        ("progress", 5),
    ]


def test_a_metric_that_is_not_finite_is_a_warning(voice):
    voice[0].say(MetricEvent(name="loss", stage="pruned", value=math.nan))
    (event,) = voice[1]()
    assert (event["type"], event["code"]) == ("warning", "loss_non_finite")


AHEAD = """
import sys
from worker import child
child.import_ahead(child.AHEAD[sys.argv[1]])
heavy = {"torch", "torch._dynamo", "onnxruntime", "jinja2", "pruning.prune_files"}
print(*sorted(heavy & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("work", "job", "imported"),
    [
        ("prune", False, "pruning.prune_files torch torch._dynamo"),
        ("verify", False, "jinja2 onnxruntime torch"),
        ("checks", False, "torch"),
        ("prune", True, ""),
    ],
)
def test_a_child_imports_ahead_until_its_job_comes(work: str, job: bool, imported: str):
    command = [sys.executable, "-c", AHEAD, work]
    child = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    if job:
        child.stdin.write("job.json\n")
        child.stdin.flush()
    assert child.stdout.read().strip() == imported
    child.stdin.close()
    assert child.wait(10) == 0


def test_an_error_of_any_length_fits_an_event(voice):
    error = SecateurError("operator_unsupported", "x" * (2 << 20), where="w" * 5000, why=["y"] * 9)
    voice[0].say(FailedEvent(error=told(error)))
    (event,) = voice[1]()
    assert event["error"]["code"] == "operator_unsupported"
    assert len(event["error"]["message"]) == len(event["error"]["where"]) == 2000
    short = SecateurError("scope_empty", "Nothing.", hint="h", layers=["a"])
    assert told(short) == short.as_dict()
