"""Plans: exact counts, and every reason to refuse a job before it runs."""

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning.errors import SecateurError
from pruning.facts import DatasetFacts, LayerFact, ModelFacts, TargetFact, TensorFact
from pruning.plan import plan
from pruning.schedule.step import removal_count
from pruning.scope import choose
from pruning.spec import Scope, parse_spec


def layer(name: str, out: int, inp: int, **more: Any) -> LayerFact:
    return LayerFact(
        name=name,
        kind="Linear",
        weight=f"{name}.weight",
        shape=[out, inp],
        parameters=out * inp,
        dtype="float32",
        **more,
    )


def model(layers: list[LayerFact] | None = None, **more: Any) -> ModelFacts:
    layers = (
        [layer("fc1", 16, 64), layer("fc2", 10, 16, is_output=True)] if layers is None else layers
    )
    weights = sum(x.parameters for x in layers if x.tied_to is None)
    fields: dict[str, Any] = {
        "format": "onnx",
        "version": "opset 18",
        "inputs": [TensorFact(name="x", dtype="float32", shape=["batch", 64])],
        "outputs": [TensorFact(name="logits", dtype="float32", shape=["batch", 10])],
        "layers": layers,
        "parameters": weights + 26,
        "prunable_parameters": weights,
    }
    return ModelFacts(**(fields | more))


def dataset(
    samples: int = 500,
    arrays: dict[str, tuple[str, list[int | str]]] | None = None,
    target: TargetFact | str | None = "classes",
) -> DatasetFacts:
    arrays = {"x": ("float32", [samples, 64])} if arrays is None else arrays
    if target == "classes":
        target = TargetFact(dtype="int64", shape=[samples], classes=10)
    return DatasetFacts(
        format="npz",
        samples=samples,
        arrays=[TensorFact(name=n, dtype=d, shape=s) for n, (d, s) in arrays.items()],
        target=target,
        bytes=1,
    )


def refusal(spec: Any = None, m: ModelFacts | None = None, **data: DatasetFacts) -> SecateurError:
    with pytest.raises(SecateurError) as refused:
        plan(parse_spec(spec), m or model(), data or {"calibration": dataset()})
    return refused.value


def test_plan_says_what_will_be_removed_from_what():
    planned = plan(
        parse_spec({"target": {"sparsity": 0.9}}), model(), {"calibration": dataset(500)}
    )
    assert planned.layers == ["fc1", "fc2"]
    assert (planned.weights_in_scope, planned.remove) == (1184, 1066)
    assert planned.inverse == "full"
    assert planned.evaluation == "held_out"
    assert (planned.calibration_samples, planned.evaluation_samples) == (400, 100)
    assert planned.substitutions[0].used == "full"
    assert planned.cost.bytes >= 8 * 1184**2


def test_given_evaluation_data_leave_the_calibration_data_whole():
    planned = plan(
        parse_spec({}), model(), {"calibration": dataset(500), "evaluation": dataset(70)}
    )
    assert planned.evaluation == "given"
    assert (planned.calibration_samples, planned.evaluation_samples) == (500, 70)


@given(st.integers(0, 10**9), st.floats(0, 1, exclude_max=True))
def test_removal_count_is_the_nearest_whole_number(weights, sparsity):
    k = removal_count(sparsity, weights)
    assert 0 <= k <= weights
    assert abs(k - sparsity * weights) <= 0.5 + 1e-6


def test_removal_count_rounds_half_up():
    assert [removal_count(0.5, n) for n in (1, 2, 3, 4, 5)] == [1, 1, 2, 2, 3]


def test_scope_leaves_out_patterns_and_the_output_head():
    layers = [layer("a.fc", 2, 3), layer("a.head", 2, 3), layer("b", 2, 3, is_output=True)]
    assert [x.name for x in choose(layers, Scope(exclude=("a.*",))).kept] == ["b"]
    assert [x.name for x in choose(layers, Scope(output_head=False)).kept] == ["a.fc", "a.head"]


def test_a_tied_weight_counts_once_and_leaves_with_either_of_its_layers():
    layers = [layer("a", 2, 3), layer("b", 2, 3), layer("c", 2, 3, tied_to="a")]
    assert [x.name for x in choose(layers, Scope()).kept] == ["a", "b"]
    assert [x.name for x in choose(layers, Scope(exclude=("c",))).kept] == ["b"]


def test_a_pattern_that_matches_nothing_is_an_error():
    error = refusal({"scope": {"exclude": ["fc2", "FC1"]}})
    assert (error.code, error.where) == ("spec_invalid", "spec.scope.exclude")
    assert "fc1, fc2" in (error.hint or "")


def test_nothing_in_scope_and_nothing_prunable_are_told_apart():
    assert refusal({"scope": {"exclude": ["*"]}}).code == "scope_empty"
    assert refusal(None, model([])).code == "no_prunable_layers"


def test_full_inverse_beyond_its_limit_is_refused_and_auto_takes_blocks():
    big = model([layer("fc", 200, 100)])
    error = refusal({"criterion": {"kind": "obs", "inverse": "full"}}, big)
    assert (error.code, error.where) == ("curvature_too_large", "spec.criterion.inverse")
    planned = plan(parse_spec({}), big, {"calibration": dataset()})
    assert planned.inverse == "block_fisher"


def test_blocks_too_large_for_memory_are_refused():
    big = model([layer("fc", 2000, 1000)])
    criterion = {"kind": "obs", "block": 4096}
    error = refusal({"criterion": criterion}, big)
    assert (error.code, error.where) == ("curvature_too_large", "spec.criterion.block")
    assert plan(parse_spec({}), big, {"calibration": dataset()}).inverse == "block_fisher"


@pytest.mark.parametrize(
    ("arrays", "code", "where"),
    [
        ({"images": ("float32", [500, 64])}, "data_names", "data.calibration"),
        ({}, "data_names", "data.calibration"),
        (
            {"x": ("float32", [500, 64]), "y": ("float32", [500, 1])},
            "data_names",
            "data.calibration",
        ),
        ({"x": ("float32", [500, 8, 8])}, "data_shape", "data.calibration.x"),
        ({"x": ("float32", [500, 63])}, "data_shape", "data.calibration.x"),
        ({"x": ("int64", [500, 64])}, "data_dtype", "data.calibration.x"),
    ],
)
def test_arrays_must_be_the_models_inputs(arrays, code, where):
    error = refusal(calibration=dataset(arrays=arrays))
    assert (error.code, error.where) == (code, where)


def test_float64_arrays_feed_a_float32_model():
    data = dataset(arrays={"x": ("float64", [500, 64])})
    assert plan(parse_spec({}), model(), {"calibration": data}).remove == 592


@pytest.mark.parametrize("role", ["calibration", "training", "evaluation"])
def test_the_place_of_an_error_names_the_role(role):
    error = refusal(**{"calibration": dataset(), role: dataset(target=None)})
    assert (error.code, error.where) == ("labels_missing", f"data.{role}")


@pytest.mark.parametrize(
    "target",
    [
        TargetFact(dtype="float32", shape=[500]),
        TargetFact(dtype="int64", shape=[500], classes=11),
        TargetFact(dtype="int64", shape=[500, 10], classes=2),
        TargetFact(dtype="int64", shape=[500, 1], classes=10),
    ],
)
def test_class_labels_must_fit_the_output(target):
    error = refusal(calibration=dataset(target=target))
    assert (error.code, error.where) == ("target_invalid", "data.calibration.target")


def test_cross_entropy_needs_two_class_scores_or_more():
    one = model(outputs=[TensorFact(name="y", dtype="float32", shape=["batch", 1])])
    error = refusal(None, one)
    assert (error.code, error.where) == ("target_invalid", "spec.objective.loss")


def test_a_plan_prices_the_steps_that_the_job_takes_and_says_how_many():
    def planned(kind, **schedule):
        spec = {"criterion": {"kind": kind}, "schedule": {"kind": "one_shot", **schedule}}
        return plan(parse_spec(spec), model(), {"calibration": dataset(500)})

    for kind, steps in (("magnitude", 1), ("wanda", 1), ("obd", 4), ("obs", 4)):
        auto, said = planned(kind), planned(kind, recomputations=steps)
        assert auto.cost == said.cost
        (found,) = [s for s in auto.substitutions if s.where == "spec.schedule.recomputations"]
        assert (found.asked, found.used) == ("auto", str(steps))
        assert not any(s.where == "spec.schedule.recomputations" for s in said.substitutions)
    assert planned("wanda", recomputations=4).cost.flops == 4 * planned("wanda").cost.flops


def test_mse_targets_must_have_the_shape_of_the_output():
    spec = {"objective": {"loss": "mse"}, "criterion": {"kind": "magnitude"}}
    assert refusal(spec).code == "target_invalid"
    wrong = TargetFact(dtype="float32", shape=[500])
    assert refusal(spec, calibration=dataset(target=wrong)).code == "target_invalid"
    values = dataset(target=TargetFact(dtype="float32", shape=[500, 10]))
    planned = plan(parse_spec(spec), model(), {"calibration": values})
    assert planned.substitutions[0].where == "spec.objective.metrics"
    gated = {**spec, "gates": {"max_drop": {"accuracy": 0.1}}}
    assert refusal(gated, calibration=values).code == "spec_conflict"


def test_too_few_samples_to_split_off_an_evaluation_share():
    assert refusal(calibration=dataset(9)).code == "data_empty"
    assert refusal(calibration=dataset(9), evaluation=dataset(1)).where == "data.evaluation"
    plan(parse_spec({}), model(), {"calibration": dataset(9), "evaluation": dataset(9)})


def test_calibration_is_needed_and_roles_are_known():
    assert refusal(training=dataset()).where == "data.calibration"
    assert refusal(calibration=dataset(), test=dataset()).where == "data.test"


def test_rounding_to_nothing_is_a_warning():
    planned = plan(
        parse_spec({"target": {"sparsity": 0.0001}}), model(), {"calibration": dataset(5000)}
    )
    assert [w.code for w in planned.warnings] == ["nothing_removed"]


def test_plan_and_request_import_neither_torch_nor_numpy():
    code = (
        "import sys, pruning.plan, pruning.request, pruning.report.schema;"
        "sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_small_fixed_number_of_samples_is_said_beforehand_with_what_it_costs():
    def warnings(batch: int | None) -> list[str]:
        planned = plan(parse_spec({}), model(batch=batch), {"calibration": dataset()})
        return [w.message for w in planned.warnings if w.code == "fixed_batch"]

    (message,) = warnings(1)
    assert "1 sample at a time" in message
    assert "passes" in message
    assert not warnings(None)
    assert not warnings(64)
