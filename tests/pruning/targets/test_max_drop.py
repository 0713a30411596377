"""The most sparsity within a drop, the trade-off curve, and what several runs share."""

from pathlib import Path

import pytest
import torch
from torch import nn

import pruning.cut
from pruning import Outcome, prune
from pruning.curvature import compute
from pruning.dense import NAME
from pruning.errors import SecateurError
from pruning.job import prepare
from pruning.layerwise.ladders import Ladders
from pruning.progress import Narrator
from pruning.report.schema import results_json
from pruning.spec import parse_spec
from tests.pruning.targets.nets import QUICK, blobs, convolutional, data, images, trained

torch.set_num_threads(1)

OBS = {
    "criterion": {"kind": "obs", "inverse": "full", "damping": 0.01},
    "schedule": {"kind": "one_shot", "recomputations": 2},
}
LAYERWISE = {"compensation": {"kind": "layerwise", "damping": 0.01}}


def searched(drop=0.03, probes=6, **parts):
    return {"target": {"max_drop": {"drop": drop, "probes": probes}}, **QUICK, **parts}


def same(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("parts", [OBS, LAYERWISE], ids=["obs", "layerwise"])
def test_the_answer_keeps_the_drop_and_is_what_a_job_with_that_target_delivers(parts):
    trust = {"trust": {"checks": True, "bootstrap": 2, "ladder": True}}
    outcome = prune(trained(), data(), searched(probes=4, **parts) | trust)
    report, search = outcome.report, outcome.report.search
    assert search is not None
    assert search.probes == len([p for p in report.curve if p.allowed is not None]) <= 4
    drop = report.metrics.drops["accuracy"]
    assert drop.value <= 0.03
    assert drop.simultaneous == 4
    assert search.low == report.sparsity.achieved
    assert all(p.allowed == (p.sparsity <= search.low) for p in report.curve)
    (delivered,) = [p for p in report.curve if p.delivered]
    assert delivered.removed == report.sparsity.removed
    plain = {"target": {"sparsity": search.low}, **QUICK, **parts, **trust}
    alone = prune(trained(), data(), plain)
    assert same(outcome.module, alone.module)
    assert all(torch.equal(m, alone.masks[k]) for k, m in outcome.masks.items())
    assert report.trust == alone.report.trust
    assert report.rounds == alone.report.rounds
    assert report.layers == alone.report.layers
    checks = [c for c in alone.report.checks if c.group != "gate"]
    assert [c for c in report.checks if c.group != "gate"] == checks


def test_every_point_of_the_curve_is_what_a_job_with_that_target_delivers():
    points = [0.3, 0.6, 0.8]
    spec = {"target": {"sparsity": 0.6}, "curve": {"points": points}, **QUICK, **OBS}
    outcome = prune(trained(), data(), spec)
    curve = outcome.report.curve
    assert [round(p.sparsity, 2) for p in curve] == points
    assert [p.source for p in curve] == ["curve", "target", "curve"]
    assert [p.bytes for p in curve] == sorted((p.bytes for p in curve), reverse=True)
    assert [p.multiply_adds for p in curve] == [176 - p.removed for p in curve]
    runs = outcome.study.runs
    for source, run in outcome.study.points:
        assert source == "curve"
        runs.show(run)
        plain = prune(trained(), data(), {"target": {"sparsity": run.sparsity}, **QUICK, **OBS})
        assert same(outcome.module, plain.module)
        (point,) = [p for p in curve if p.removed == run.removed]
        assert point.metrics["accuracy"] == plain.report.metrics.final["accuracy"].value
        assert point.loss == plain.report.loss.pruned


def test_a_point_where_the_search_has_been_is_not_run_again():
    found = prune(trained(), data(), searched(**OBS)).report.search
    assert found is not None
    point = round(found.low, 4)
    report = prune(trained(), data(), searched(**OBS, curve={"points": [point, 0.99]})).report
    assert len([p for p in report.curve if p.sparsity == found.low]) == 1
    assert [p.source for p in report.curve].count("curve") == 1


def test_curvature_at_the_dense_weights_is_computed_once_for_all_probes(monkeypatch):
    made = []

    def counted(request, network, data, loss, active, seed=0):
        made.append(len(active))
        return compute(request, network, data, loss, active, seed)

    monkeypatch.setattr(pruning.cut, "compute", counted)
    report = prune(trained(), data(), searched(**OBS)).report
    assert report.search is not None
    assert report.search.probes > 2
    assert made.count(176) == 1
    assert len(made) == 1 + report.search.probes


def test_ladders_are_climbed_once_for_all_probes(monkeypatch):
    made = []
    climbed = Ladders._climbed

    def counted(self):
        made.append(self.job)
        return climbed(self)

    monkeypatch.setattr(Ladders, "_climbed", counted)
    report = prune(trained(), data(), searched(**LAYERWISE)).report
    assert report.search is not None
    assert report.search.probes > 2
    assert len(made) == 1


def test_what_is_shared_changes_nothing(monkeypatch):
    one = {"kind": "one_shot", "recomputations": 1}
    by_parts = {"kind": "obs", "inverse": "block_fisher", "block": 9, "damping": "auto"}
    spec = searched(probes=2, criterion=by_parts, schedule=one)
    shared = prune(trained(), data(), spec)
    monkeypatch.setattr("pruning.job.Job.shared", lambda self, what, key, make: make())
    apart = prune(trained(), data(), spec)
    assert same(shared.module, apart.module)
    assert results_json(shared.report) == results_json(apart.report)


class Killed(BaseException):
    """The attempt is over."""


def killed_after(checkpoints: int):
    left = checkpoints

    def emit(event):
        nonlocal left
        if event.type == "checkpoint":
            left -= 1
            if left == 0:
                raise Killed

    return emit


RESUMED = searched(probes=2, **OBS, curve={"points": [0.5]}) | {
    "trust": {"checks": True, "bootstrap": 0, "ladder": False}
}


@pytest.fixture(scope="module")
def whole() -> Outcome:
    """Never interrupted."""
    return prune(trained(), data(), RESUMED)


@pytest.mark.parametrize("killed", [1, 2, 3, 6, 7])
def test_killed_between_and_inside_probes_it_goes_on_to_the_same_bytes(
    killed: int, whole: Outcome, tmp_path: Path
) -> None:
    spec = RESUMED
    with pytest.raises(Killed):
        prune(trained(), data(), spec, checkpoints=tmp_path, emit=killed_after(killed))
    written = []
    again = prune(
        trained(), data(), spec, checkpoints=tmp_path,
        emit=lambda e: written.append(e.name) if e.type == "checkpoint" else None,
    )  # fmt: skip
    assert same(whole.module, again.module)
    assert all(torch.equal(m, again.masks[k]) for k, m in whole.masks.items())
    assert results_json(whole.report) == results_json(again.report)
    files = {p.name for p in tmp_path.iterdir()} - {NAME}
    assert len(files) == 7
    assert len(written) == 7 - killed


def test_the_upper_bound_is_stricter_than_the_estimate():
    strict = {"drop": 0.05, "judged_by": "upper_bound"}
    bound = prune(trained(), data(), {"target": {"max_drop": strict}, **QUICK, **OBS}).report
    guess = prune(trained(), data(), searched(0.05, 8, **OBS)).report
    assert bound.metrics.drops["accuracy"].high <= 0.05
    assert bound.sparsity.achieved < guess.sparsity.achieved


@pytest.mark.parametrize("metric", ["agreement", "cosine"])
def test_without_labels_the_drop_is_of_what_the_dense_network_says(metric):
    x, _ = blobs(200, 0)
    spec = {
        "objective": {"loss": "match_dense", "metrics": [metric]},
        "target": {"max_drop": {"metric": metric, "drop": 0.05}},
        **LAYERWISE,
        **QUICK,
    }
    report = prune(trained(), x, spec).report
    assert report.metrics.drops[metric].value <= 0.05
    assert report.metrics.dense[metric].value == pytest.approx(1.0)
    assert report.sparsity.removed > 0
    assert report.search is not None
    assert report.search.metric == metric


def test_where_nothing_is_allowed_the_error_says_what_was_measured():
    net = trained()
    spec = {"target": {"max_drop": {"drop": 0.0, "probes": 2}}, **QUICK,
            "criterion": {"kind": "random"}, "compensation": {"kind": "none"}}  # fmt: skip
    with pytest.raises(SecateurError, match="drops by") as caught:
        prune(net, data(), spec)
    assert caught.value.code == "target_unreachable"
    assert len(caught.value.details["tried"]) == 2
    assert "recovery" in (caught.value.hint or "")


def test_progress_names_the_probe_and_its_sparsity():
    events = []
    prune(trained(), data(), searched(**OBS), emit=events.append)
    messages = [e.message for e in events if e.type == "progress"]
    assert "probe 1 of at most 6: 90.0 %" in messages
    assert any(m.startswith("probe 2 of at most 6: ") for m in messages)


def test_points_know_multiply_adds_of_convolutions():
    spec = {"target": {"sparsity": 0.0}, "curve": {"points": [0.5]}, **QUICK,
            "criterion": {"kind": "magnitude"}, "compensation": {"kind": "none"},
            "allocation": {"kind": "uniform"}}  # fmt: skip
    curve = prune(convolutional(), images(), spec).report.curve
    dense = 72 * 36 + 288 * 4 + 192
    assert [p.multiply_adds for p in curve] == [dense, dense // 2]


def test_recovery_is_part_of_every_probe():
    recovery = {"recovery": {"kind": "fine_tune", "epochs": 1, "batch_size": 50}}
    report = prune(trained(), data(), searched(0.05, 3, **OBS, **recovery)).report
    assert report.metrics.recovered is not None
    (point,) = [p for p in report.curve if p.delivered]
    assert point.metrics["accuracy"] == report.metrics.recovered["accuracy"].value


def test_a_curve_point_is_run_though_a_budget_would_take_as_many_from_layers_alike():
    """Under one threshold as many weights as of layers alike are not the budget's network."""
    asked = {"criterion": {"kind": "magnitude"}, "target": {"flops": 0.4}, **QUICK}
    alike = prepare(convolutional(), images(), parse_spec(asked), facts=None, narrator=Narrator())
    sparsity = alike.target / len(alike.weights)
    outcome = prune(convolutional(), images(), {**asked, "curve": {"points": [sparsity]}})
    assert outcome.report.sparsity.removed != alike.target
    assert [p.removed for p in outcome.report.curve if p.source == "curve"] == [alike.target]


def test_curvature_that_runs_shared_is_given_back_at_the_end():
    parts = {"target": {"sparsity": 0.3}, "curve": {"points": [0.5]}, **OBS, **QUICK}
    outcome = prune(trained(), data(), parts)
    assert outcome.study.runs.job.dense.known.keys() <= {"uses", "packed"}
