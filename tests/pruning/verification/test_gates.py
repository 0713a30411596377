"""Each gate is held against what was measured; a job that misses any is rejected."""

from typing import Any

import pytest
import torch
from torch import nn

import pruning
from pruning.errors import SecateurError
from pruning.report import verdict
from pruning.report.schema import LayerReport, Report, Sizes
from pruning.report.study import Latency, Times
from pruning.spec import Spec, parse_spec
from pruning.verification import gates
from tests.pruning.verification.conftest import Prunes

QUIET = {"checks": False, "ladder": False, "bootstrap": 0}


def spec_of(**asked: Any) -> Spec:
    return parse_spec({"criterion": {"kind": "magnitude"}, "gates": asked})


def layer(name: str, sparsity: float, in_scope: bool = True) -> LayerReport:
    return LayerReport(
        name=name, kind="Linear", shape=[10, 10], parameters=100,
        zeros=int(100 * sparsity), sparsity=sparsity, in_scope=in_scope,
    )  # fmt: skip


@pytest.mark.parametrize(("allowed", "status"), [(0.1, "pass"), (0.0999, "fail")])
def test_a_drop_of_exactly_the_allowed_size_passes(allowed: float, status: str):
    (check,) = gates.drops(
        spec_of(max_drop={"accuracy": allowed}), {"accuracy": 0.9}, {"accuracy": 0.8}
    )
    assert (check.status, check.threshold, check.group) == (status, allowed, "gate")
    assert check.value == pytest.approx(0.1)


def test_bounds_of_layers_are_held_by_all_layers_in_scope_that_a_pattern_matches():
    layers = [layer("a.0", 0.5), layer("a.1", 0.9), layer("b", 0.1), layer("a.2", 0.99, False)]
    bounds = {"a.*": {"min": 0.4, "max": 0.8}, "b": {"min": 0.1}, "*": {"max": 0.95}}
    first, second, third = gates.layer_sparsity(spec_of(layer_sparsity=bounds), layers)
    assert (first.name, first.status) == ("layer_sparsity.a.*", "fail")
    assert (first.value, first.threshold) == (0.9, 0.8)
    assert "a.1" in first.message
    assert "a.2" not in first.message
    assert (second.status, second.value, second.threshold) == ("pass", 0.1, 0.1)
    assert (third.status, third.value, third.threshold) == ("pass", 0.9, 0.95)


def test_sizes_are_held_to_the_byte():
    sizes = Sizes(uploaded_bytes=100, pruned_bytes=90, pruned_gzip_bytes=50, sparse_bytes=41)
    asked = {"native": 90, "native_gzip": 49, "sparse": 41}
    found = {c.name: c.status for c in gates.max_bytes(spec_of(max_bytes=asked), sizes)}
    assert found == {
        "max_bytes.native": "pass",
        "max_bytes.native_gzip": "fail",
        "max_bytes.sparse": "pass",
    }


def measured(milliseconds: float, ratio: float, spread: float | None = 0.0) -> Latency:
    """A measurement whose intervals reach `spread` of the value to both sides."""
    none = spread is None
    ends = [None, None] if none else [1 - spread, 1 + spread]
    low, high = (None if e is None else e * milliseconds / 1e3 for e in ends)
    median = milliseconds / 1e3
    times = Times(median=median, q25=median, q75=median, low=low, high=high)
    return Latency(
        engine="onnxruntime", threads=1, batch=1, runs=20, dense=times, pruned=times, ratio=ratio,
        ratio_low=None if none else ends[0] * ratio, ratio_high=None if none else ends[1] * ratio,
        message="",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "spread", "status", "name", "value"),
    [
        ({"ratio": 1.0}, 0.0, "pass", "latency.ratio", 0.9),
        ({"ratio": 0.9}, 0.0, "pass", "latency.ratio", 0.9),
        ({"ratio": 0.8}, 0.0, "fail", "latency.ratio", 0.9),
        ({"milliseconds": 2.0}, 0.0, "pass", "latency.milliseconds", 2.0),
        ({"ratio": 1.0, "milliseconds": 1.9}, 0.0, "fail", "latency.milliseconds", 2.0),
        ({"ratio": 0.8, "milliseconds": 3.0}, 0.0, "fail", "latency.ratio", 0.9),
        ({"ratio": 0.8}, 0.1, "fail", "latency.ratio", 0.9),
        ({"ratio": 0.8}, 0.2, "warn", "latency.ratio", 0.9),
        ({"ratio": 1.0}, 0.2, "warn", "latency.ratio", 0.9),
        ({"ratio": 1.0}, None, "warn", "latency.ratio", 0.9),
        ({"ratio": 2.0, "milliseconds": 1.9}, 0.2, "warn", "latency.milliseconds", 2.0),
        ({"ratio": 0.9, "milliseconds": 1.0}, 0.2, "fail", "latency.milliseconds", 2.0),
    ],
)
def test_latency_is_held_to_what_was_asked_as_far_as_its_interval_tells(
    asked: dict, spread: float | None, status: str, name: str, value: float
):
    check = gates.latency(spec_of(latency=asked), measured(2.0, 0.9, spread))
    assert check is not None
    assert (check.status, check.name, check.value) == (status, name, value)
    assert (gates.UNDECIDED in check.message) == (status == "warn")


def test_a_gate_that_noise_leaves_open_neither_rejects_nor_passes_unseen(
    prunes: Prunes, monkeypatch: pytest.MonkeyPatch
):
    half = prunes({"gates": {"latency": {"ratio": 1.0}}})
    monkeypatch.setattr("pruning.verification.latency.measure", lambda *_: measured(2.0, 1.0, 0.3))
    assert half.verify().rejected is None
    report = Report.model_validate(half.report())
    assert report.latency is not None
    assert report.latency.gate is not None
    assert report.latency.gate.status == "warn"
    assert not [w for w in report.warnings if w.code == gates.UNDECIDED], "it is no result"
    ended = verdict.outcome(report)
    assert (ended.state, ended.tone) == ("succeeded", "warn")
    assert "its gate is not decided" in verdict.verdict(report)
    page = (half.folder / "out" / "report.html").read_text()
    assert "Not decided (gate_undecided)" in page.partition("<section")[0]


def test_a_latency_that_could_not_be_measured_misses_its_gate():
    check = gates.latency(spec_of(latency={"ratio": 2.0}), None, "no such kernel")
    assert check is not None
    assert (check.status, check.value) == ("fail", None)
    assert "no such kernel" in check.message
    assert gates.latency(spec_of(), None) is None


ALL = {
    "max_drop": {"accuracy": 0.5},
    "max_bytes": {"native": 10**6, "native_gzip": 10**6, "sparse": 10**6},
    "latency": {"ratio": 1000.0, "milliseconds": 10000.0},
    "layer_sparsity": {"fc1": {"min": 0.1}, "*": {"max": 0.99}},
}
MISSED = {
    "max_drop": {"accuracy": 0.0},
    "max_bytes": {"native": 1, "native_gzip": 2, "sparse": 3},
    "latency": {"ratio": 1e-9},
    "layer_sparsity": {"fc1": {"max": 0.1}},
}


def test_gates_that_hold_are_told_and_latency_only_where_it_may_vary(prunes: Prunes):
    half = prunes({"gates": ALL})
    result = half.verify()
    assert result.rejected is None
    report = half.report()
    found = {c["name"]: c["status"] for c in report["checks"] if c["group"] == "gate"}
    assert found.keys() == {
        "max_drop.accuracy",
        "layer_sparsity.fc1",
        "layer_sparsity.*",
        "max_bytes.native",
        "max_bytes.native_gzip",
        "max_bytes.sparse",
    }
    assert set(found.values()) == {"pass"}
    assert report["latency"]["gate"]["status"] == "pass"


def test_all_gates_that_were_missed_are_named_with_what_was_measured(prunes: Prunes):
    half = prunes({"gates": MISSED, "target": {"sparsity": 0.9}})
    rejected = half.verify().rejected
    assert rejected is not None
    assert (rejected.code, rejected.where) == ("gate_missed", "spec.gates.max_drop.accuracy")
    assert rejected.message.startswith("6 gates were missed.")
    report = half.report()
    missed = [c for c in report["checks"] if c["group"] == "gate"]
    assert {c["status"] for c in missed} == {"fail"}
    for check in [*missed, report["latency"]["gate"]]:
        assert check["message"] in rejected.message
    assert (half.folder / "out" / "report.html").exists()


@pytest.mark.parametrize("name", ["max_bytes", "latency", "layer_sparsity"])
def test_one_missed_gate_is_enough(prunes: Prunes, name: str):
    half = prunes({"gates": ALL | {name: MISSED[name]}})
    rejected = half.verify().rejected
    assert rejected is not None
    assert (rejected.where or "").startswith(f"spec.gates.{name}.")


def small() -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    return module, (torch.randn(60, 6), torch.arange(60) % 3)


def test_a_module_in_memory_is_held_to_the_gates_that_need_no_file():
    module, data = small()
    asked = {
        "max_drop": {"accuracy": 1.0},
        "layer_sparsity": {"0": {"max": 0.01}},
        "max_bytes": {"native": 1},
        "latency": {"ratio": 0.1},
    }
    spec = {"criterion": {"kind": "magnitude"}, "gates": asked, "trust": QUIET}
    report = pruning.prune(module, data, spec).report
    assert {c.name: c.status for c in report.checks} == {
        "max_drop.accuracy": "pass",
        "layer_sparsity.0": "fail",
    }
    (warning,) = [w for w in report.warnings if w.code == "gate_not_checked"]
    assert "gates.max_bytes and gates.latency" in warning.message


def test_a_pattern_that_matches_no_layer_in_scope_is_refused():
    module, data = small()
    asked = {"layer_sparsity": {"nothing*": {"max": 0.5}}}
    with pytest.raises(SecateurError) as refused:
        pruning.prune(module, data, {"criterion": {"kind": "magnitude"}, "gates": asked})
    assert (refused.value.code, refused.value.where) == (
        "spec_invalid",
        "spec.gates.layer_sparsity",
    )


def test_a_pattern_that_matches_no_layer_is_refused_before_the_job_runs(prunes: Prunes):
    with pytest.raises(SecateurError) as refused:
        prunes({"gates": {"layer_sparsity": {"fc9": {"max": 0.5}}}})
    assert (refused.value.code, refused.value.where) == (
        "spec_invalid",
        "spec.gates.layer_sparsity",
    )
