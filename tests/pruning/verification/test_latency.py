"""Latency is measured in turns, within a bound, and put in words that follow from the numbers."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from pruning.report.study import Latency
from pruning.spec import parse_spec
from pruning.verification import latency
from tests.pruning.verification.conftest import Prunes

SPEC = parse_spec({"criterion": {"kind": "magnitude"}})


class Clock:
    """Time that passes only while something runs, each run taking what it is said to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.order: list[str] = []
        monkeypatch.setattr(latency.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(latency.time, "perf_counter_ns", lambda: round(self.now * 1e9))

    def run(self, name: str, seconds: float):
        def runs() -> None:
            self.order.append(name)
            self.now += seconds

        return runs


def test_runs_alternate_who_goes_first_and_each_is_told_apart(monkeypatch: pytest.MonkeyPatch):
    clock = Clock(monkeypatch)
    found = latency.turns(clock.run("dense", 0.001), clock.run("pruned", 0.003))
    assert found.shape == (latency.TURNS, 2)
    assert np.allclose(found, [0.001, 0.003])
    turns = [clock.order[-2 * n : -2 * n + 2] or clock.order[-2:] for n in (1, 2, 3, 4)]
    assert sorted(map(tuple, turns)) == [("dense", "pruned")] * 2 + [("pruned", "dense")] * 2


@pytest.mark.parametrize(("seconds", "least", "most"), [(0.01, 80, 100), (0.1, 6, 8), (9, 3, 3)])
def test_the_time_is_bounded_and_slow_models_get_fewer_runs(
    monkeypatch: pytest.MonkeyPatch, seconds: float, least: int, most: int
):
    clock = Clock(monkeypatch)
    found = latency.turns(clock.run("dense", seconds), clock.run("pruned", seconds))
    assert least <= len(found) <= most
    assert clock.now <= max(latency.SECONDS, (latency.LEAST + 1) * 2 * seconds) + 1e-9


def test_a_clock_that_did_not_move_makes_no_infinite_ratio(monkeypatch: pytest.MonkeyPatch):
    clock = Clock(monkeypatch)
    found = latency.turns(clock.run("dense", 0.0), clock.run("pruned", 0.0))
    assert (found > 0).all()


@pytest.mark.parametrize(
    ("ratio", "low", "high", "says"),
    [
        (1.0, 0.99, 1.01, "No difference in time"),
        (0.9, 0.7, 1.1, "No difference in time"),
        (0.5, 0.45, 0.55, "takes 0.50 of the upload's time"),
        (1.5, 1.4, 1.6, "1.50 times as long"),
    ],
)
def test_words_follow_from_ratio_and_spread(ratio: float, low: float, high: float, says: str):
    text = latency.words(ratio, low, high, 50, SPEC)
    assert says in text
    assert ("unstructured zeros bring no speed" in text) == (ratio >= 0.9)
    assert "Only" not in text
    assert "Only 4 runs" in latency.words(ratio, low, high, 4, SPEC)


def sane(found: dict, engine: str) -> Latency:
    section = Latency.model_validate(found)
    assert section.engine == engine
    assert section.threads == 1
    assert section.runs >= latency.LEAST
    for times in (section.dense, section.pruned):
        assert times.q25 is not None
        assert times.median is not None
        assert times.q75 is not None
        assert 0 < times.q25 <= times.median <= times.q75 < math.inf
    assert section.ratio_low is not None
    assert section.ratio is not None
    assert section.ratio_high is not None
    assert 0 < section.ratio_low <= section.ratio <= section.ratio_high
    return section


def test_the_files_of_a_job_are_timed_in_onnxruntime(prunes: Prunes):
    half = prunes({})
    half.verify()
    report = half.report()
    assert sane(report["latency"], "onnxruntime").batch == 1
    assert "verifying.latency" in report["timings"]


class Digits(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.head = nn.Linear(64, 12), nn.Linear(12, 10)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.fc1(pixels)))


def test_other_formats_are_timed_in_torch(prunes: Prunes, tmp_path_factory: pytest.TempPathFactory):
    torch.manual_seed(0)
    module = Digits().eval()
    path = tmp_path_factory.mktemp("export") / "digits.pt2"
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(
        module, (torch.randn(2, 64),), dynamic_shapes=({0: batch},), strict=False
    )
    torch.export.save(program, path)
    half = prunes({"objective": {"loss": "match_dense", "metrics": ["agreement", "cosine"]}}, path)
    half.verify()
    report = half.report()
    sane(report["latency"], "torch")
    checks = {c["name"]: c for c in report["checks"]}
    assert {"torch_outputs", "torch_agreement", "torch_cosine"} <= checks.keys()
    assert {c["status"] for c in checks.values()} == {"pass"}
