"""Networks that torch can't differentiate are pruned by criteria that need no derivatives."""

import json

import pytest
import torch
from torch import Tensor, nn

from pruning import prune
from pruning.curvature.quadratic import gradient
from pruning.data.batches import ArrayData, Data
from pruning.errors import SecateurError
from pruning.report import trust_words
from pruning.report.html import report_html
from pruning.report.schema import Report, report_json, results_json
from tests.oracle import cases

torch.set_num_threads(1)


class Rectify(torch.autograd.Function):
    """As people wrote them before torch.func."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.relu()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * (ctx.saved_tensors[0] > 0)


class Custom(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Rectify.apply(x)


class Overwriting(nn.Module):
    """The sigmoid's own output, which its derivative needs, is overwritten."""

    def forward(self, x: Tensor) -> Tensor:
        y = torch.sigmoid(x)
        y *= 2.0
        return y


class Clipped(torch.autograd.Function):
    """Has a first derivative under torch.func, and no forward one."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.clamp(-1.0, 1.0)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx, gradient):
        return gradient * (ctx.saved_tensors[0].abs() < 1.0)


class Once(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Clipped.apply(x)


def case(activation):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 7), activation(), nn.Linear(7, 3)).double().eval()
    data = ArrayData({"x": torch.randn(40, 6).double()}, torch.randint(3, (40,)))
    return cases.Case(module, data, cases.LOSSES["cross_entropy"])


def run(found, criterion, **parts):
    data = Data(found.data, found.data, found.data)
    asked = {"criterion": criterion, "target": {"sparsity": 0.5}, **parts}
    return prune(found.module, data, asked)


@pytest.mark.parametrize("kind", ["magnitude", "random", "wanda"])
@pytest.mark.parametrize("activation", [Custom, Overwriting, Once])
def test_what_needs_no_derivatives_prunes_and_says_what_is_missing(activation, kind):
    found = case(activation)
    report = run(found, {"kind": kind}).report
    assert report.sparsity.removed == round(0.5 * len(found.weights))
    assert report.loss.measured_increase == pytest.approx(report.loss.pruned - report.loss.dense)
    assert report.loss.predicted_increase is None
    assert all(layer.predicted_loss_increase is None for layer in report.layers)
    reasons = [step.not_predicted for step in report.rounds]
    assert all(reasons)
    (warning,) = [w for w in report.warnings if w.code == "not_predicted"]
    assert reasons[0] in warning.message
    if activation is Custom:
        assert "layer 1 (Custom)" in warning.message
    checks = {c.name: c for c in report.checks}
    for name in ("trust.gradient_term", "trust.negative_curvature"):
        assert (checks[name].status, checks[name].value) == ("warn", None)
        assert "Not measured" in checks[name].message
    assert checks["trust.dead_inputs"].status == "pass"
    ladder = report.trust.ladder
    assert reasons[0] == ladder.not_predicted
    assert all(r.predicted is None and r.measured is not None for r in ladder.rungs)
    assert trust_words.ladder(ladder)[0].startswith("Nothing is predicted.")
    assert "could not be predicted" in report_html(report)
    assert Report.model_validate(json.loads(report_json(report))).rounds == report.rounds


TWICE_OR_BY_SAMPLE = [
    {"kind": "grasp"},
    {"kind": "obd", "curvature": "hutchinson"},
    {"kind": "obs", "inverse": "full", "damping": 0.1},
    {"kind": "obs", "inverse": "block_fisher", "damping": 0.1},
]


@pytest.mark.parametrize(
    ("activation", "criterion"),
    [
        *((Custom, criterion) for criterion in TWICE_OR_BY_SAMPLE),
        *((Overwriting, criterion) for criterion in [{"kind": "taylor"}, *TWICE_OR_BY_SAMPLE]),
    ],
    ids=str,
)
def test_what_needs_derivatives_is_refused_by_name_and_not_by_torch(activation, criterion):
    with pytest.raises(SecateurError) as caught:
        run(case(activation), criterion)
    assert caught.value.code == "operator_unsupported"
    assert "magnitude" in caught.value.hint


def test_one_derivative_is_enough_for_a_criterion_made_of_the_gradient():
    own, plain = (run(case(kind), {"kind": "taylor"}) for kind in (Custom, nn.ReLU))
    assert all(torch.equal(own.masks[name], mask) for name, mask in plain.masks.items())
    assert own.report.loss.predicted_increase is None


def test_other_failures_stay_what_they_are():
    found = case(nn.Tanh)
    with pytest.raises(RuntimeError, match="target"):
        gradient(found.network, ArrayData(found.data.inputs, torch.zeros(40, 3, 2)), found.loss)


def test_a_resumed_job_still_says_that_nothing_was_predicted(tmp_path):
    found = case(Custom)
    schedule = {"kind": "one_shot", "recomputations": 3}
    data = Data(found.data, found.data, found.data)
    asked = {"criterion": {"kind": "magnitude"}, "schedule": schedule}
    whole = prune(found.module, data, asked, checkpoints=tmp_path)
    again = prune(found.module, data, asked, checkpoints=tmp_path)
    assert results_json(again.report) == results_json(whole.report)
    assert any(w.code == "not_predicted" for w in again.report.warnings)
