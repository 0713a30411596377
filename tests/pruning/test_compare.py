"""Criteria at the answer's sparsity: values of direct calls, failures kept, resumed bit for bit."""

import copy

import pytest
import torch

from pruning import prune
from pruning.data.batches import Data
from pruning.errors import SecateurError
from pruning.report.schema import results_json
from pruning.spec import OneShot, parse_spec
from pruning.study.rivals import plain, rivals, trained
from tests.oracle import cases

torch.set_num_threads(1)
QUIET = {"trust": {"checks": False, "bootstrap": 0, "ladder": False}}
ALONE = {"comparison": {"criteria": []}}
OBS = {"kind": "obs", "damping": 0.1}
TUNED = {"recovery": {"kind": "fine_tune", "epochs": 1, "batch_size": 16}}


@pytest.fixture
def case():
    return cases.make("mlp-cross_entropy", samples=60)


def roles(case):
    rest, held = case.data.split(0.4, 0)
    return Data(rest, rest, held)


def run(case, **parts):
    return prune(case.module, roles(case), {"target": {"sparsity": 0.6}, **QUIET, **parts})


def against(*criteria, **more):
    return {"comparison": {"criteria": list(criteria), **more}}


def by_name(report):
    return {compared.criterion: compared for compared in report.comparison.criteria}


def final(report):
    return {name: value.value for name, value in report.metrics.final.items()}


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"target": {"weights": 20}},
        {"allocation": {"kind": "uniform"}, "schedule": {"kind": "one_shot", "recomputations": 2}},
        {"pattern": {"kind": "block", "shape": [2, 1]}, "scope": {"exclude": ["0", "4"]}},
    ],
    ids=["plain", "weights", "uniform", "blocks"],
)
def test_every_criterion_comes_to_what_a_job_of_its_own_would(case, parts):
    others = [{"kind": "magnitude"}, OBS, {"kind": "taylor"}]
    report = run(case, criterion={"kind": "obd"}, **against(*others), **parts).report
    found = by_name(report)
    assert list(found) == ["obd", "magnitude", "obs", "taylor"]
    assert [c.own for c in report.comparison.criteria] == [True, False, False, False]
    assert report.comparison.sparsity == report.sparsity.achieved
    for criterion in [{"kind": "obd"}, *others]:
        direct = run(case, criterion=criterion, **parts, **ALONE).report
        (only,) = found[criterion["kind"]].runs
        assert direct.sparsity.removed == report.sparsity.removed
        assert only.loss == direct.loss.pruned
        assert only.metrics == final(direct)
        assert only.error is None


def test_with_recovery_they_go_through_the_jobs_schedule(case):
    schedule = {"kind": "rounds", "rounds": 2}
    compared = against({"kind": "magnitude"}, recovered=True)
    report = run(case, criterion=OBS, schedule=schedule, **TUNED, **compared).report
    for name, criterion in (("obs", OBS), ("magnitude", {"kind": "magnitude"})):
        without, with_it = by_name(report)[name].runs
        assert (without.recovered, with_it.recovered) == (False, True)
        plainly = run(case, criterion=criterion, **ALONE).report
        assert (without.loss, without.metrics) == (plainly.loss.pruned, final(plainly))
        whole = run(case, criterion=criterion, schedule=schedule, **TUNED, **ALONE).report
        assert (with_it.loss, with_it.metrics) == (whole.loss.recovered, final(whole))
    assert {(d.against, d.recovered) for d in report.comparison.differences} == {
        ("magnitude", False),
        ("magnitude", True),
    }


def test_of_a_one_shot_job_with_recovery_the_state_before_it_is_its_own_run_without(case):
    report = run(case, criterion=OBS, **TUNED).report
    (own,) = by_name(report)["obs"].runs
    assert not own.recovered
    assert own.loss == report.loss.pruned != report.loss.recovered
    assert own.metrics["accuracy"] == report.metrics.pruned["accuracy"].value


def test_seeds_after_the_first_draw_the_calibration_samples_again(case):
    outcome = run(case, criterion={"kind": "obd"}, seed=7, **against(OBS, seeds=3))
    found = by_name(outcome.report)
    assert [r.seed for r in found["obs"].runs] == [7, 8, 9]
    assert found["obd"].runs[0].loss == outcome.report.loss.pruned
    for name in ("obd", "obs"):
        assert len({r.loss for r in found[name].runs}) == 3
    (difference, loss) = outcome.report.comparison.differences
    assert (difference.quantity, loss.quantity) == ("accuracy", "loss")
    gaps = [a.loss - b.loss for a, b in zip(found["obs"].runs, found["obd"].runs, strict=True)]
    assert loss.value == sorted(gaps)[1]
    assert loss.low <= loss.value <= loss.high


def test_a_rival_that_fails_is_told_and_changes_nothing_else(case):
    singular = {"kind": "obs", "inverse": "full", "damping": 0.0}
    compared = against(singular, {"kind": "magnitude"})
    asked = {"criterion": {"kind": "obd"}}
    outcome = run(case, **asked, **compared)
    failed = by_name(outcome.report)["obs"].runs[0]
    assert failed.loss is None
    assert failed.metrics == {}
    with pytest.raises(SecateurError) as caught:
        run(case, criterion=singular, **ALONE)
    assert failed.error == caught.value.message
    first, second = outcome.report.comparison.differences
    assert (first.against, first.verdict, first.value) == ("obs", "unknown", None)
    assert "obs could not be run" in first.message
    assert failed.error in first.message
    assert (second.against, second.value is None) == ("magnitude", False)
    alone = run(case, **asked, **ALONE)
    assert outcome.report.loss == alone.report.loss
    assert outcome.report.warnings == alone.report.warnings
    for name, tensor in alone.module.state_dict().items():
        assert torch.equal(outcome.module.state_dict()[name], tensor)


def test_parts_that_exclude_each_other_are_a_failure_of_the_rival_alone(case):
    report = run(
        case,
        criterion={"kind": "magnitude"},
        schedule={"kind": "one_by_one"},
        allocation={"kind": "uniform"},
        **TUNED,
        **against(OBS, recovered=True),
    ).report
    without, with_it = by_name(report)["obs"].runs
    assert without.error is None
    assert "needs allocation global" in with_it.error


def test_what_ends_the_job_is_no_failure_of_a_rival(case, tmp_path):
    def cancel(event):
        if event.type == "checkpoint" and event.name.startswith("compare-"):
            raise SecateurError("cancelled", "Cancelled.")

    with pytest.raises(SecateurError, match="Cancelled"):
        run_in(case, tmp_path, cancel)


def run_in(case, folder, emit=None):
    asked = {
        "target": {"sparsity": 0.6},
        "criterion": {"kind": "obd"},
        "schedule": {"kind": "rounds", "rounds": 2},
        **QUIET,
        **TUNED,
        **against({"kind": "magnitude"}, OBS, seeds=2, recovered=True),
    }
    return prune(case.module, roles(case), asked, checkpoints=folder, emit=emit)


class KilledError(Exception):
    """In place of SIGKILL."""


def test_killed_anywhere_in_the_comparison_and_resumed_it_is_the_same(case, tmp_path):
    names = []
    whole = run_in(case, tmp_path / "whole", lambda e: names.append(e) or None)
    saved = [e.name for e in names if e.type == "checkpoint"]
    inside = [i for i, name in enumerate(saved) if name.startswith("compare-")]
    assert any("recovered-round-1" in saved[i] for i in inside)
    for stop in inside[:: max(1, len(inside) // 3)]:
        folder, seen = tmp_path / f"killed-{stop}", []

        def kill(event, seen=seen, stop=stop):
            if event.type == "checkpoint":
                seen.append(event.name)
                if len(seen) > stop:
                    raise KilledError

        with pytest.raises(KilledError):
            run_in(case, folder, kill)
        again = []
        resumed = run_in(case, folder, lambda e, again=again: again.append(e) or None)
        assert results_json(resumed.report) == results_json(whole.report)
        for name, tensor in whole.module.state_dict().items():
            assert torch.equal(resumed.module.state_dict()[name], tensor)
        repeated = [e.name for e in again if e.type == "checkpoint"]
        assert repeated == saved[stop + 1 :]
    left = [p.name for p in (tmp_path / "whole").iterdir()]
    assert not [name for name in left if name.startswith("compare-") and "round" in name]


def test_the_module_ends_at_the_answers_weights_and_nothing_else_is_told(case):
    events = []
    outcome = prune(
        case.module,
        roles(case),
        {"target": {"sparsity": 0.6}, "criterion": OBS, **QUIET},
        emit=events.append,
    )
    alone = run(case, criterion=OBS, **ALONE)
    for name, tensor in alone.module.state_dict().items():
        assert torch.equal(outcome.module.state_dict()[name], tensor)
    told = [e.value for e in events if e.type == "metric" and e.stage == "pruned"]
    assert told == [outcome.report.loss.pruned, final(outcome.report)["accuracy"]]
    assert outcome.report.rounds == alone.report.rounds


@pytest.mark.parametrize(
    "parts",
    [
        {"criterion": {"kind": "magnitude"}},
        {"criterion": OBS, **ALONE},
        {"criterion": OBS, **against(OBS)},
        {"target": {"sparsity": 0.0}},
    ],
    ids=["magnitude", "none", "itself", "nothing removed"],
)
def test_where_there_is_nothing_to_compare_there_is_no_section(case, parts):
    assert run(case, **parts).report.comparison is None


def test_one_threshold_takes_the_smallest_weights_in_one_step_or_in_four(case):
    spec = parse_spec({"criterion": OBS})
    (magnitude,) = rivals(spec)
    assert plain(spec, magnitude).schedule == OneShot(recomputations=1)
    before = copy.deepcopy(case.module.state_dict())
    done = [
        run(case, criterion={"kind": "magnitude"}, schedule={"kind": "one_shot", **n})
        for n in ({}, {"recomputations": 1}, {"recomputations": 4})
    ]
    assert [len(outcome.report.rounds) for outcome in done] == [1, 1, 4]
    for name, kept in done[0].masks.items():
        assert all(torch.equal(kept, outcome.masks[name]) for outcome in done)
        assert torch.equal(case.module.state_dict()[name], before[name])


def test_each_criterion_takes_its_own_steps_where_the_spec_leaves_them_open():
    open_ = parse_spec({"criterion": {"kind": "magnitude"}, **against(OBS)})
    (obs,) = rivals(open_)
    assert plain(open_, obs).schedule_in_full == OneShot(recomputations=4)
    said = parse_spec(
        {
            "criterion": {"kind": "magnitude"},
            "schedule": {"kind": "one_shot", "recomputations": 2},
            **against(OBS),
        }
    )
    assert plain(said, obs).schedule_in_full == OneShot(recomputations=2)


def test_compensation_and_allocation_are_those_that_belong_to_a_criterion():
    spec = parse_spec(
        {
            "compensation": {"kind": "layerwise"},
            "allocation": {"kind": "search"},
            **against({"kind": "magnitude"}, OBS, {"kind": "layer_obs", "damping": 0.1}),
        }
    )
    magnitude, obs, layered = (plain(spec, criterion) for criterion in rivals(spec))
    assert (magnitude.compensation.kind, magnitude.allocation.kind) == ("none", "global")
    assert (obs.compensation.kind, obs.allocation.kind) == ("obs", "global")
    assert (layered.compensation.kind, layered.allocation.kind) == ("layerwise", "search")
    assert layered.compensation.damping == 0.1
    assert plain(spec, spec.criterion).compensation == spec.compensation


def test_rounds_that_were_stopped_are_as_many_for_the_others():
    spec = parse_spec({"schedule": {"kind": "rounds", "rounds": 6, "stop": {"drop": 0.1}}, **TUNED})
    (magnitude,) = rivals(spec)
    schedule = trained(spec, magnitude, 4).schedule
    assert (schedule.rounds, schedule.stop) == (4, None)
    assert trained(spec, magnitude, None).schedule.rounds == 6


def test_after_a_search_the_comparison_is_at_the_sparsity_that_was_found(case):
    target = {"target": {"max_drop": {"drop": 0.1, "probes": 4}}}
    report = run(case, criterion={"kind": "obd"}, **target).report
    found = report.comparison
    assert found.sparsity == report.sparsity.achieved
    own, magnitude = (compared.runs[0] for compared in found.criteria)
    assert own.metrics == final(report)
    at = {"target": {"sparsity": found.sparsity}}
    direct = run(case, criterion={"kind": "magnitude"}, **at, **ALONE).report
    assert (magnitude.loss, magnitude.metrics) == (direct.loss.pruned, final(direct))
