"""Objectives and curvatures in plans: what fits, what is too large, what is empty."""

import pytest

from pruning.errors import SecateurError
from pruning.facts import TargetFact, TensorFact
from pruning.match import match
from pruning.plan import plan
from pruning.spec import parse_spec
from tests.pruning.test_plan import dataset, layer, model, refusal


def test_match_dense_needs_no_labels_and_measures_no_metric():
    spec = {"objective": {"loss": "match_dense"}}
    planned = plan(parse_spec(spec), model(), {"calibration": dataset(target=None)})
    assert planned.inverse == "full"
    assert any(s.where == "spec.objective.metrics" for s in planned.substitutions)
    spec["gates"] = {"max_drop": {"accuracy": 0.1}}
    assert refusal(spec, calibration=dataset(target=None)).code == "spec_conflict"


def test_auto_that_would_be_an_empty_fisher_matrix_is_refused_for_match_dense():
    large = model([layer("a", 100, 100), layer("b", 10, 100, is_output=True)])
    spec = {"objective": {"loss": "match_dense"}}
    error = refusal(spec, large)
    assert (error.code, error.where) == ("spec_conflict", "spec.criterion.inverse")
    assert "zero at the dense weights" in error.message


def test_the_hessian_has_a_lower_limit_than_the_gauss_newton_matrix():
    criterion = {"kind": "obs", "inverse": "full", "curvature": "hessian"}
    large = model([layer("a", 100, 64)])
    error = refusal({"criterion": criterion}, large)
    assert (error.code, error.where) == ("curvature_too_large", "spec.criterion.inverse")
    criterion["curvature"] = "ggn"
    plan(parse_spec({"criterion": criterion}), large, {"calibration": dataset()})


def test_large_kronecker_layers_are_pruned_in_one_step_alone():
    large = model([layer("wide", 100, 64)])
    spec = {"criterion": {"kind": "obs", "inverse": "kfac"}}
    error = refusal(spec, large)
    assert error.code == "curvature_too_large"
    assert "wide" in error.message
    spec["schedule"] = {"kind": "one_shot", "recomputations": 1}
    assert plan(parse_spec(spec), large, {"calibration": dataset()}).inverse == "kfac"


@pytest.mark.parametrize(
    "spec",
    [
        {"objective": {"loss": "mse", "distance": "kl"}},
        {"criterion": {"kind": "obs", "inverse": "kfac", "curvature": "hessian"}},
        {"criterion": {"kind": "obs", "curvature": "empirical_fisher"}},
        {"criterion": {"kind": "obs", "inverse": "kfac", "block": 7}},
        {"criterion": {"kind": "obs", "gradients": 7}},
        {"criterion": {"kind": "obd", "probes": 5}},
        {"criterion": {"kind": "obd", "curvature": "hutchinson", "samples": 5}},
        {"criterion": {"kind": "obd", "curvature": "ggn_mc", "second_derivatives": True}},
    ],
)
def test_parameters_that_would_be_ignored_are_refused(spec):
    with pytest.raises(SecateurError, match="spec_conflict"):
        parse_spec(spec)


@pytest.mark.parametrize(
    "criterion",
    [
        {"kind": "obs", "block": 7},
        {"kind": "obs", "inverse": "low_rank", "gradients": 7},
        {"kind": "obd", "curvature": "hutchinson", "probes": 5, "samples": 1},
        {"kind": "obd", "curvature": "ggn_mc", "samples": 5},
        {"kind": "obd", "curvature": "second_backprop", "second_derivatives": True},
    ],
)
def test_parameters_of_the_kind_that_takes_them_are_accepted(criterion):
    parse_spec({"criterion": criterion})


@pytest.mark.parametrize("inverse", ["kfac", "ekfac"])
def test_kronecker_factors_are_priced_by_the_sides_of_the_layers(inverse):
    """3,000 inputs make a factor of 9 million entries, whatever the number of weights."""
    wide, square = model([layer("a", 8, 3_000)]), model([layer("a", 160, 150)])
    spec = parse_spec(
        {
            "criterion": {"kind": "obs", "inverse": inverse},
            "schedule": {"kind": "one_shot", "recomputations": 1},
        }
    )
    costs = [plan(spec, m, {"calibration": dataset()}).cost for m in (wide, square)]
    factors = 3_000**2 + 8**2
    assert costs[0].bytes == 80 * (24_000 + factors) + 48 * 2_048**2
    assert costs[1].bytes == 80 * (24_000 + 160**2 + 150**2) + 48 * 2_048**2
    assert costs[0].flops > 10 * costs[1].flops


def test_a_plan_prices_every_damping_that_is_tried():
    def flops(damping):
        spec = {"criterion": {"kind": "obs", "inverse": "full", "damping": damping}}
        return plan(parse_spec(spec), model(), {"calibration": dataset()}).cost.flops

    # Four steps, five more solutions in each.
    assert flops("auto") - flops(0.1) >= 4 * 5 * 2 * 1184**3


def test_a_group_of_a_convolution_has_factors_of_its_own():
    conv = layer("conv", 8, 1).model_copy(
        update={"shape": [8, 3, 5, 5], "parameters": 600, "groups": 4}
    )
    spec = parse_spec({"criterion": {"kind": "obs", "inverse": "kfac"}})
    cost = plan(spec, model([conv]), {"calibration": dataset()}).cost
    assert cost.bytes == 80 * (600 + 4 * (2**2 + 75**2)) + 48 * 600**2


TOKENS = TargetFact(dtype="int64", shape=[500, 8], classes=50, ignored=True)


def sequences():
    outputs = [TensorFact(name="logits", dtype="float32", shape=["batch", 8, 50])]
    return model(outputs=outputs)


def test_causal_lm_takes_tokens_with_ignored_positions():
    match(dataset(target=TOKENS), sequences(), "causal_lm", "data.calibration")
    match(dataset(), model(), "cross_entropy", "data.calibration")


@pytest.mark.parametrize(
    ("loss", "target", "facts"),
    [
        ("causal_lm", TOKENS.model_copy(update={"classes": 51}), "sequences"),
        ("causal_lm", TOKENS.model_copy(update={"classes": None}), "sequences"),
        ("causal_lm", TOKENS.model_copy(update={"shape": [500, 9]}), "sequences"),
        ("causal_lm", TOKENS, "plain"),
        ("bce", TargetFact(dtype="int64", shape=[500, 10], classes=3), "plain"),
        ("bce", TargetFact(dtype="int64", shape=[500], classes=2), "plain"),
        (
            "cross_entropy",
            TargetFact(dtype="int64", shape=[500], classes=10, ignored=True),
            "plain",
        ),
    ],
)
def test_labels_that_do_not_fit_the_loss_are_refused(loss, target, facts):
    network = sequences() if facts == "sequences" else model()
    with pytest.raises(SecateurError, match="target_invalid"):
        match(dataset(target=target), network, loss, "data.calibration")
