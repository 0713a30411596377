"""Latency is measured in turns, within a bound, in words that claim no more than its interval."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from pruning import intervals
from pruning.report import speed
from pruning.report.study import Latency, Times
from pruning.spec import parse_spec
from pruning.verification import latency
from pruning.verification.effort import HELD, Effort, effort_of
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


def test_runs_go_in_turns_of_four_and_each_is_told_apart(monkeypatch: pytest.MonkeyPatch):
    clock = Clock(monkeypatch)
    effort = Effort(half_width=0.0)
    found, repeats = latency.turns(clock.run("dense", 0.001), clock.run("pruned", 0.003), effort)
    assert repeats == 1
    assert np.allclose(found, [0.001, 0.003, 0.003, 0.001])
    turns = clock.order[2 * latency._WARM_UP :]
    there, back = ["dense", "pruned", "pruned", "dense"], ["pruned", "dense", "dense", "pruned"]
    assert turns == [name for n in range(len(found)) for name in (back if n % 2 else there)]


def test_the_first_run_of_a_turn_favours_neither_file(monkeypatch: pytest.MonkeyPatch):
    """It meets caches that hold other things; two equal files must not differ for it."""
    clock = Clock(monkeypatch)

    def cold_or_warm() -> None:
        cold = len(clock.order) > 2 * latency._WARM_UP and len(clock.order) % 4 == 2
        clock.order.append("run")
        clock.now += 0.002 if cold else 0.001

    taken, _ = latency.turns(cold_or_warm, cold_or_warm, Effort(0.0))
    low, high = intervals.of_median(latency.ratios(taken))
    assert (2 * latency._WARM_UP) % 4 == 2
    assert low < 0.9 < 1.1 < high


def test_a_drift_of_the_machine_cancels(monkeypatch: pytest.MonkeyPatch):
    clock = Clock(monkeypatch)

    def slower_and_slower() -> None:
        clock.now += 0.001 * (1 + clock.now)

    taken, _ = latency.turns(slower_and_slower, slower_and_slower, Effort(0.0))
    low, high = intervals.of_median(latency.ratios(taken))
    assert abs(low - 1.0) < 1e-5
    assert abs(high - 1.0) < 1e-5


def test_it_ends_as_soon_as_the_interval_is_narrow(monkeypatch: pytest.MonkeyPatch):
    clock = Clock(monkeypatch)
    steady, _ = latency.turns(clock.run("d", 1e-3), clock.run("p", 1e-3), Effort())
    assert len(steady) == latency.ENOUGH
    draw = np.random.default_rng(0)

    def noisy() -> None:
        clock.now += 1e-3 * draw.lognormal(0.0, 0.4)

    loud, _ = latency.turns(noisy, noisy, Effort())
    assert len(loud) > 4 * latency.ENOUGH
    assert clock.now <= 1.2


def test_runs_too_short_for_the_clock_are_repeated(monkeypatch: pytest.MonkeyPatch):
    clock = Clock(monkeypatch)
    _, repeats = latency.turns(clock.run("d", 1e-5), clock.run("p", 1e-5), Effort())
    assert repeats == 50


@pytest.mark.parametrize(
    ("seconds", "least", "most"), [(0.01, 22, 25), (0.05, 6, 6), (0.7, 6, 6), (3, 1, 1)]
)
def test_the_time_is_bounded_and_slow_models_get_fewer_runs(
    monkeypatch: pytest.MonkeyPatch, seconds: float, least: int, most: int
):
    clock = Clock(monkeypatch)
    effort = Effort(half_width=0.0)
    run = clock.run("d", seconds)
    found, _ = latency.turns(run, run, effort)
    assert least <= len(found) <= most
    longest = effort.seconds if len(found) > latency.LEAST else effort.longest
    assert clock.now <= longest + 6 * seconds + 1e-9


def test_a_gate_is_worth_more_time():
    asked = {"criterion": {"kind": "magnitude"}, "gates": {"latency": {"ratio": 1.0}}}
    assert effort_of(parse_spec(asked)) == HELD
    assert effort_of(SPEC) == Effort()
    assert Effort().seconds <= 1.0 < HELD.seconds


def test_a_clock_that_did_not_move_makes_no_infinite_ratio(monkeypatch: pytest.MonkeyPatch):
    clock = Clock(monkeypatch)
    found, _ = latency.turns(clock.run("d", 0.0), clock.run("p", 0.0), Effort())
    assert (found > 0).all()


def section(ratio: float, low: float | None, high: float | None) -> Latency:
    times = Times(median=0.001, q25=0.001, q75=0.001)
    return Latency(
        engine="onnxruntime", threads=1, batch=1, runs=60, dense=times, pruned=times,
        ratio=ratio, ratio_low=low, ratio_high=high, message="",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ratio", "low", "high", "shown", "says"),
    [
        (0.99, 0.93, 1.06, "same", "No difference in the time of a run was found (ratio 0.99, 95"),
        (1.02, 1.01, 1.03, "same", "No difference in the time"),
        (0.9, 0.82, 1.01, "same", "No difference in the time"),
        (2.26, 0.7, 5.1, "unknown", "can't be told"),
        (2.26, None, None, "unknown", "too few runs"),
        (0.5, 0.45, 0.55, "faster", "takes 0.50 of the upload's time"),
        (1.5, 1.4, 1.6, "slower", "1.50 times as long"),
    ],
)
def test_words_claim_no_more_than_the_interval(
    ratio: float, low: float | None, high: float | None, shown: str, says: str
):
    found = section(ratio, low, high)
    assert speed.speed(found) == shown
    text = latency.words(found, SPEC)
    assert says in text
    assert ("unstructured zeros bring no speed" in text) == (shown in ("same", "slower"))
    assert ("times as long" in text) == (shown == "slower")


def sane(found: dict, engine: str) -> Latency:
    section = Latency.model_validate(found)
    assert section.engine == engine
    assert section.threads == 1
    assert section.pairs is not None
    assert section.pairs >= latency.LEAST
    assert section.runs >= 2 * section.pairs
    assert section.seconds is not None
    assert section.seconds < 5
    for times in (section.dense, section.pruned):
        assert times.q25 is not None
        assert times.median is not None
        assert times.q75 is not None
        assert 0 < times.q25 <= times.median <= times.q75 < math.inf
        assert times.low is not None
        assert times.high is not None
        assert times.low <= times.median <= times.high
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
