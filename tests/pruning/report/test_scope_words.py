"""The page and the command line say what the sparsity is a share of."""

import json

import pytest
import torch
from torch import nn

import pruning
from pruning.report import scope_words
from pruning.report.html import report_html
from pruning.report.schema import report_json
from pruning.report.verdict import facts, verdict
from secateur.cli.result import print_result
from tests.pruning.scope_networks import networks, samples

SPEC = {
    "criterion": {"kind": "magnitude"},
    "trust": {"checks": False, "bootstrap": 0, "ladder": False},
    "comparison": {"criteria": []},
}


@pytest.fixture(scope="module")
def halved():
    """An LSTM whose gates a pattern leaves out: 12 of 204 weights are in scope."""
    data = (samples(30), torch.arange(30) % 3)
    spec = {**SPEC, "pattern": {"kind": "nm", "n": 2, "m": 4}}
    return pruning.prune(networks()["lstm"], data, spec).report


def test_the_removed_share_of_all_weights_stands_beside_that_of_the_scope(halved):
    assert scope_words.of_all(halved.scope) == "2.9 % of all 204 weights"
    assert "50.0 % of the weights in scope" in verdict(halved)
    assert facts(halved)[0].note == "6 of 12 weights in scope, 2.9 % of all 204 weights"


def test_the_page_lists_what_is_left_out_with_the_reason(halved):
    page = report_html(halved).replace("\N{NO-BREAK SPACE}", " ")
    assert "12 of all 204 weights are in scope (5.9 %)" in page
    assert "192 weights of r.weight_ih_l0, r.weight_hh_l0: pattern nm is not defined" in page
    assert "weights of vectors" not in page


def test_the_command_line_says_the_same(halved, capsys):
    print_result(json.loads(report_json(halved)))
    told = " ".join(capsys.readouterr().out.split())
    assert "removed (6 of 12), 2.9 % of all 204 weights" in told
    assert "left out 192 weights of r.weight_ih_l0, r.weight_hh_l0: pattern nm" in told


def test_nothing_is_said_where_all_weights_are_in_scope(capsys):
    net = nn.Sequential(nn.Flatten(), nn.Linear(40, 3)).eval()
    report = pruning.prune(net, (samples(30), torch.arange(30) % 3), SPEC).report
    assert scope_words.of_all(report.scope) == ""
    assert "left-out" not in report_html(report)
    print_result(json.loads(report_json(report)))
    assert "left out" not in capsys.readouterr().out


def test_the_plan_says_what_is_left_out():
    from pruning.facts import DatasetFacts, LayerFact, ModelFacts, OtherFact, TargetFact, TensorFact
    from pruning.plan import plan
    from pruning.spec import parse_spec

    def layer(name, kind, rows, columns):
        return LayerFact(name=name, kind=kind, weight=name, shape=[rows, columns],
                         parameters=rows * columns, dtype="float32", zeros=0)  # fmt: skip

    x = TensorFact(name="x", dtype="float32", shape=["n", 8])
    model = ModelFacts(
        format="onnx", version="17", inputs=[x],
        outputs=[TensorFact(name="y", dtype="float32", shape=["n", 4])],
        layers=[layer("r.weight_ih_l0", "LSTM", 16, 8), layer("f", "Linear", 4, 4)],
        others=[OtherFact(name="embed", kind="Embedding", parameters=56)],
        parameters=128 + 16 + 56, prunable_parameters=144,
    )  # fmt: skip
    target = TargetFact(dtype="int64", shape=[40], classes=4)
    data = DatasetFacts(format="npz", samples=40, bytes=1, target=target,
                        arrays=[TensorFact(name="x", dtype="float32", shape=[40, 8])])  # fmt: skip
    found = plan(parse_spec({"pattern": {"kind": "nm"}}), model, {"calibration": data})
    assert (found.scope.weights_in_scope, found.scope.weights) == (16, 200)
    assert {one.name: one.by for one in found.scope.left_out} == {
        "r.weight_ih_l0": "method",
        "embed": "kind",
    }
    assert "layer_left_out" in [w.code for w in found.warnings]
    assert scope_words.in_scope(found.scope) == "16 of all 200 weights (8.0 %)"
    everything = plan(parse_spec({}), model, {"calibration": data})
    assert everything.scope.weights_in_scope == 144
