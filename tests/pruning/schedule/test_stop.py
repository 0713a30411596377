"""Rounds that end early: the last good round is what a job of so many rounds would give."""

import pytest
import torch

from pruning import prune
from pruning.errors import SecateurError
from tests.pruning.schedule.jobs import TRAINED, bits, network, spec


def rounds(drop, count=5, **more):
    stop = {"metric": "accuracy", "drop": drop}
    return {"kind": "rounds", "rounds": count, "curve": "linear", "stop": stop, **more}


def drop(report):
    """How far the accuracy fell from that of the dense network, which is 1."""
    return 1.0 - report.metrics.final["accuracy"].value


def free_drops(asked, recomputations):
    """The drop after every round of a run that nothing stops."""
    module, data = network()
    schedule = {"kind": "rounds", "rounds": 5, "curve": "linear", "recomputations": recomputations}
    events = []
    prune(module, data, asked | {"schedule": schedule}, emit=events.append)
    trained = asked["recovery"] is TRAINED
    found = {e.stage: e.value for e in events if e.type == "metric" and e.name == "accuracy"}
    names = [f"round {n * recomputations}" + " recovered" * trained for n in range(1, 5)]
    return [1.0 - found[name] for name in [*names, "recovered" if trained else "pruned"]]


@pytest.mark.parametrize("recovery", [{"kind": "none"}, TRAINED], ids=lambda r: r["kind"])
@pytest.mark.parametrize("recomputations", [1, 2])
def test_the_last_round_within_the_allowed_drop_is_delivered(recovery, recomputations):
    module, data = network()
    asked = spec(0.95, recovery=recovery)
    free = free_drops(asked, recomputations)
    allowed = max(free) - 0.01
    good = next(i for i, value in enumerate(free) if value > allowed)
    assert 0 < good < 5
    stopped = prune(
        module, data, asked | {"schedule": rounds(allowed, recomputations=recomputations)}
    )
    report = stopped.report
    assert (report.stopped.round, report.stopped.rounds) == (good, 5)
    assert report.stopped.drop == pytest.approx(free[good])
    assert len(report.rounds) == good * recomputations
    assert drop(report) == pytest.approx(free[good - 1])
    assert [w.code for w in report.warnings].count("stopped_early") == 1
    removed = sum(int((~m).sum()) for m in stopped.masks.values())
    assert removed == report.sparsity.removed == report.rounds[-1].sparsity * len_of(stopped)
    check_is_evaluated(stopped, data)


def len_of(outcome):
    return sum(m.numel() for m in outcome.masks.values())


def check_is_evaluated(outcome, data):
    """The report's numbers are those of the module that is handed out."""
    part = data.evaluation
    with torch.no_grad():
        right = outcome.module(*part.inputs.values()).argmax(1) == part.target
    value = float(right.double().mean())
    assert value == outcome.report.metrics.final["accuracy"].value
    parameters = dict(outcome.module.named_parameters())
    for name, kept in outcome.masks.items():
        assert (parameters[name][~kept] == 0).all()


def test_the_delivered_rounds_are_those_of_an_undisturbed_shorter_curve():
    """Linear rounds to a share of the target are the first rounds to all of it."""
    module, data = network()
    stopped = prune(module, data, spec(0.95, schedule=rounds(0.12)))
    count = stopped.report.stopped.round
    short = {"kind": "rounds", "rounds": count, "curve": "linear"}
    alone = prune(module, data, spec(0.95 * count / 5, schedule=short))
    assert bits(stopped)[:2] == bits(alone)[:2]


def test_a_first_round_that_is_too_bad_delivers_the_dense_network():
    module, data = network()
    outcome = prune(
        module, data, spec(0.95, schedule=rounds(0.1, count=1), recovery={"kind": "none"})
    )
    report = outcome.report
    assert (report.stopped.round, report.rounds) == (0, [])
    assert report.sparsity.removed == 0
    assert all(bool(m.all()) for m in outcome.masks.values())
    before, after = module.state_dict(), outcome.module.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert report.loss.pruned == report.loss.dense
    assert report.loss.measured_increase == report.loss.predicted_increase == 0.0
    assert report.metrics.pruned == report.metrics.dense
    assert report.metrics.recovered is None
    assert report.metrics.drops["accuracy"].value == 0.0
    (told,) = [w for w in report.warnings if w.code == "stopped_early"]
    assert "nothing is removed" in told.message
    assert told.where == "spec.schedule.stop"


def test_a_drop_of_exactly_the_allowed_size_goes_on():
    module, data = network()
    asked = spec(0.6, schedule=rounds(1.0, count=2))
    fell = drop(prune(module, data, asked).report)
    assert fell > 0
    assert prune(module, data, spec(0.6, schedule=rounds(fell, count=2))).report.stopped is None
    less = prune(module, data, spec(0.6, schedule=rounds(fell - 1e-6, count=2))).report
    assert less.stopped is not None


def test_rounds_that_never_drop_are_all_delivered():
    module, data = network()
    held = prune(module, data, spec(0.6, schedule=rounds(1.0, count=3)))
    free = {"kind": "rounds", "rounds": 3, "curve": "linear"}
    assert bits(held)[:2] == bits(prune(module, data, spec(0.6, schedule=free)))[:2]
    assert held.report.stopped is None


def test_the_interval_holds_for_as_many_looks_as_there_may_be_rounds():
    module, data = network()
    report = prune(module, data, spec(0.6, schedule=rounds(1.0, count=3))).report
    assert report.metrics.drops["accuracy"].simultaneous == 3


def test_a_metric_without_meaning_for_the_objective_is_refused():
    module, data = network()
    asked = spec(0.6, schedule=rounds(0.1), objective={"loss": "match_dense"})
    with pytest.raises(SecateurError) as caught:
        prune(module, data, asked)
    assert (caught.value.code, caught.value.where) == ("spec_conflict", "spec.schedule.stop.metric")
