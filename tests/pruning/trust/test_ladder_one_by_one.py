"""The ladder of schedule one_by_one: rungs on the greedy path, not of a removal at once."""

import pytest
import torch
from torch import nn

from pruning import prune
from pruning.criteria import Problem
from pruning.curvature import full
from pruning.data.batches import ArrayData, Data
from pruning.metrics import evaluate
from pruning.report.html import report_html
from pruning.solvers import greedy
from pruning.solvers.singular import SingularError
from pruning.trust.ladder import _along_the_path
from tests.oracle import brute_force, cases

torch.set_num_threads(1)
DAMPING = 0.01


def run(case, sparsity=0.6, criterion=None, recompute=1_000, **parts):
    asked = {
        "objective": {"loss": case.loss.name, "metrics": []},
        "criterion": criterion or {"kind": "obs", "damping": DAMPING},
        "target": {"sparsity": sparsity},
        "schedule": {"kind": "one_by_one", "recompute": recompute},
        **parts,
    }
    return prune(case.module, Data(*[case.data] * 3), asked).report


def greedy_by_hand(case, counts):
    """Sets, changes and costs of the path with one curvature, inverted anew each time."""
    old, left = case.weights.read(), list(range(len(case.weights)))
    h = brute_force.ggn(case)
    h = h + DAMPING * h.diagonal().mean() * torch.eye(len(h), dtype=torch.float64)
    w, own, found = old.clone(), 0.0, {}
    for done in range(1, max(counts) + 1):
        inverse = torch.linalg.inv(h[left][:, left])
        costs = w[left] ** 2 / (2 * inverse.diagonal())
        at = int(costs.argmin())
        own += float(costs[at])
        w[left] = w[left] - w[left[at]] / inverse[at, at] * inverse[:, at]
        w[left[at]] = 0.0
        del left[at]
        found[done] = (w - old, own)
    return {count: found[count] for count in counts}


def test_rungs_are_those_of_the_greedy_path():
    case = cases.make("mlp-mse", samples=60)
    ladder = run(case).trust.ladder
    expected = greedy_by_hand(case, [r.removed for r in ladder.rungs])
    old = case.weights.read()
    dense = evaluate(case.module, case.data, case.loss).loss
    for rung in ladder.rungs:
        change, own = expected[rung.removed]
        assert rung.own == pytest.approx(own, rel=1e-7)
        case.weights.write(old + change)
        loss = evaluate(case.module, case.data, case.loss).loss
        case.weights.write(old)
        assert rung.measured == pytest.approx(loss - dense, rel=1e-6, abs=1e-10)
    h = brute_force.ggn(case)
    h = h + DAMPING * h.diagonal().mean() * torch.eye(len(h), dtype=torch.float64)
    for index, group in enumerate(ladder.layers):
        assert [r.removed for r in group.rungs][-1] > 0
        for whole, rung in zip(ladder.rungs, group.rungs, strict=True):
            part = torch.where(case.weights.group == index, expected[whole.removed][0], 0.0)
            assert rung.own == pytest.approx(0.5 * float(part @ h @ part), rel=1e-7)


@pytest.mark.parametrize("kind", ["obs", "obd", "magnitude"])
def test_the_last_rung_is_the_job_itself_when_the_curvature_is_computed_once(kind):
    case = cases.make("cnn-cross_entropy", samples=30)
    criterion = {"kind": kind} | ({"damping": DAMPING} if kind == "obs" else {})
    report = run(case, criterion=criterion)
    last = report.trust.ladder.rungs[-1]
    assert last.removed == report.sparsity.removed
    assert last.predicted == pytest.approx(report.loss.predicted_increase, rel=1e-9)
    assert last.measured == pytest.approx(report.loss.measured_increase, rel=1e-9)
    if kind != "magnitude":
        assert last.own == pytest.approx(report.loss.criterion_predicted_increase, rel=1e-9)


def test_for_a_linear_model_at_its_minimum_all_three_agree_on_the_whole_path():
    torch.manual_seed(2)
    x, y = torch.randn(60, 9).double(), torch.randn(60, 4).double()
    module = nn.Linear(9, 4, bias=False).double()
    with torch.no_grad():
        module.weight.copy_(torch.linalg.lstsq(x, y).solution.T)
    case = cases.Case(module, ArrayData({"x": x}, y), cases.LOSSES["mse"])
    ladder = run(case, 0.9, {"kind": "obs", "damping": 0.0}).trust.ladder
    for rung in ladder.rungs:
        assert rung.predicted == pytest.approx(rung.measured, rel=1e-9)
        assert rung.own == pytest.approx(rung.measured, rel=1e-9)
    assert ladder.own_holds_up_to == ladder.holds_up_to == 32 / 36


def test_a_singular_curvature_ends_the_ladder_with_the_reason(monkeypatch):
    case = cases.make("mlp-mse", samples=60)
    matrix = full.compute(case.network, case.data, case.loss, torch.arange(len(case.weights)))
    whole = greedy.Downdated.saliencies

    def failing(self, weights):
        left = self.left.nonzero()[:, 0]
        if len(self.left) - len(left) == 20:
            raise SingularError(left, matrix.values[left][:, left])
        return whole(self, weights)

    monkeypatch.setattr(greedy.Downdated, "saliencies", failing)
    problem = Problem(case.weights.read(), matrix, DAMPING)
    steps = list(_along_the_path(problem, [10, 20, 25, 30]))
    assert [isinstance(step, SingularError) for step in steps] == [False, False, True, True]
    assert [int(step.removed.sum()) for step in steps[:2]] == [10, 20]


def test_the_page_says_what_a_rung_is():
    case = cases.make("mlp-mse", samples=60)
    assert "one weight at a time, always the cheapest one left" in report_html(run(case))
    assert "The job itself took" in report_html(run(case, recompute=8))
    other = report_html(run(case, criterion={"kind": "obd"}))
    assert "in one step, with the criterion" in other
