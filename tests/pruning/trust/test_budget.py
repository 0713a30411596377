"""Trust takes no more than the rest of the job, as counted, and says what it left out."""

import json

import pytest
import torch
from torch import nn

from pruning import prune
from pruning.data.batches import ArrayData, Data
from pruning.report import trust_words
from pruning.report.html import report_html
from pruning.report.schema import Report, report_json, results_json
from pruning.trust import assess, work

torch.set_num_threads(1)


@pytest.fixture
def narrow(monkeypatch):
    """As if a job took no time beside its passes."""
    monkeypatch.setattr(assess, "EVERY_JOB", 0)


def run(criterion, folder=None, **trust):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    data = ArrayData({"x": torch.randn(90, 8).double()}, torch.randint(3, (90,)))
    spec = {"criterion": {"kind": criterion}, "target": {"sparsity": 0.6}, "trust": trust}
    return prune(module, Data(data, data, data), spec, checkpoints=folder).report


def test_a_small_job_measures_everything():
    trust = run("magnitude").trust
    assert trust.left_out == []
    assert 0 < trust.rest < trust.operations
    assert trust.ladder is not None
    assert trust.ladder.layers


@pytest.mark.parametrize("criterion", ["magnitude", "taylor", "obd"])
def test_what_would_take_longer_than_the_rest_is_left_out_and_named(narrow, criterion):
    report = run(criterion)
    trust = report.trust
    left = {found.part for found in trust.left_out}
    assert "negative_curvature" in left
    assert trust.operations <= trust.rest
    assert trust.operations + trust.left_out[-1].operations > trust.rest
    assert ("ladder" in left) == (trust.ladder is None)
    found = {check.name for check in report.checks}
    assert {"trust.gradient_term", "trust.dead_inputs"} <= found
    assert "trust.negative_curvature" not in found
    words = trust_words.left_out(report)
    assert "negative curvature" in words
    assert words in report_html(report).replace("&#39;", "'")
    assert Report.model_validate(json.loads(report_json(report))).trust == trust


@pytest.mark.parametrize("criterion", ["magnitude", "obd"])
def test_all_is_measured_where_the_spec_asks_and_to_the_same_values(narrow, criterion):
    everything = run(criterion, budget="all")
    assert everything.trust.left_out == []
    assert everything.trust.operations > everything.trust.rest
    assert trust_words.left_out(everything) == ""
    by_name = {check.name: check for check in everything.checks}
    part = run(criterion)
    for check in part.checks:
        assert check == by_name[check.name]
    if part.trust.ladder is not None:
        assert part.trust.ladder.rungs == everything.trust.ladder.rungs


def test_a_number_of_resamples_is_asked_for_by_name(narrow, monkeypatch):
    monkeypatch.setattr(work.Work, "rest", lambda self: 0)
    assert run("obd", bootstrap=7).trust.bootstrap.resamples == 7
    left_out = run("obd", bootstrap="auto").trust
    assert left_out.bootstrap.resamples == 0
    assert "budget: all" in left_out.bootstrap.reason
    assert "bootstrap" in {found.part for found in left_out.left_out}


def test_what_is_measured_is_the_same_on_every_run_and_after_a_resume(narrow, tmp_path):
    first = run("obd", tmp_path)
    assert results_json(run("obd", tmp_path)) == results_json(first) == results_json(run("obd"))


def test_products_with_one_graph_are_those_of_pass_after_pass(monkeypatch):
    whole = run("obd")
    monkeypatch.setattr("pruning.curvature.products.SAMPLES", 17)
    for a, b in zip(whole.checks, run("obd").checks, strict=True):
        assert a.value == pytest.approx(b.value, rel=1e-9)


def test_trust_that_is_switched_off_costs_nothing():
    trust = run("obd", checks=False, bootstrap=0, ladder=False).trust
    assert (trust.operations, trust.left_out) == (0, [])
