"""What a plan says of targets, from facts alone."""

import pytest

from pruning.errors import SecateurError
from pruning.facts import (
    DatasetFacts,
    LayerFact,
    ModelFacts,
    OtherFact,
    TargetFact,
    TensorFact,
)
from pruning.plan import plan
from pruning.spec import Spec


def layer(name: str, shape: list[int], positions: int) -> LayerFact:
    size = 1
    for n in shape:
        size *= n
    return LayerFact(
        name=name, kind="Linear" if len(shape) == 2 else "Conv2d", weight=f"{name}.weight",
        shape=shape, parameters=size, dtype="float32", positions=positions, macs=positions * size,
        is_output=name == "head",
    )  # fmt: skip


MODEL = ModelFacts(
    format="onnx",
    version="18",
    inputs=[TensorFact(name="x", dtype="float32", shape=["batch", 1, 8, 8])],
    outputs=[TensorFact(name="y", dtype="float32", shape=["batch", 5])],
    layers=[layer("conv", [8, 1, 3, 3], 36), layer("head", [5, 288], 1)],
    dtypes=["float32"],
    parameters=72 + 1440 + 1_000,
    prunable_parameters=1512,
    macs=72 * 36 + 1440,
)


def planned(samples: int = 500, model: ModelFacts = MODEL, **spec):
    facts = DatasetFacts(
        format="npz",
        samples=samples,
        arrays=[TensorFact(name="x", dtype="float32", shape=["samples", 1, 8, 8])],
        target=TargetFact(dtype="int64", shape=[samples], classes=5),
        bytes=1,
    )
    both = {"calibration": facts, "evaluation": facts}
    return plan(Spec.model_validate(spec), model, both)


def test_multiply_adds_are_settled_as_if_layers_were_pruned_alike():
    found = planned(target={"flops": 0.5})
    left = 36 * (72 - found.remove * 72 // 1512) + 1440 - found.remove * 1440 // 1512
    assert left <= (72 * 36 + 1440) / 2 < left + 40


def test_multiply_adds_that_are_not_known_are_left_to_the_job():
    free = MODEL.model_copy(update={"layers": [
        one.model_copy(update={"macs": None, "positions": None}) for one in MODEL.layers
    ]})  # fmt: skip
    assert planned(model=free, target={"flops": 0.25}).remove == 1134


def test_bytes_below_what_is_not_in_scope_are_refused_with_the_numbers():
    with pytest.raises(SecateurError, match="4,000 without any") as caught:
        planned(target={"bytes": 3_000})
    assert caught.value.code == "spec_conflict"
    assert caught.value.where == "spec.target.bytes"
    assert 0 < planned(target={"bytes": 6_000}).remove < 1512
    assert planned(target={"bytes": 20_000}).remove == 0


def test_zeros_out_of_scope_are_no_bytes_that_can_not_be_saved():
    """A limit that the upload's own sparse file keeps already is never refused."""
    conv, head = MODEL.layers
    empty = head.model_copy(update={"zeros": 1440})
    spec = {"target": {"bytes": 3_000}, "scope": {"exclude": ["head"]}}
    with pytest.raises(SecateurError, match="9,760 without any"):
        planned(model=MODEL, **spec)
    table = OtherFact(name="embed", kind="Embedding", parameters=1_000)
    large = MODEL.model_copy(update={"layers": [conv, empty], "others": [table]})
    assert planned(model=large, **spec).remove == 0
    measured = large.model_copy(update={"sparse_bytes": 2_500})
    assert planned(model=measured, **spec).remove == 0
    with pytest.raises(SecateurError, match="at least 3,712 without any"):
        planned(model=large.model_copy(update={"sparse_bytes": 4_000}), **spec)


def test_probes_and_points_are_priced():
    one = planned(target={"sparsity": 0.5})
    many = planned(target={"max_drop": {"drop": 0.05, "probes": 6}}, curve={"points": [0.3, 0.6]})
    assert (one.runs, many.runs) == (1, 8)
    assert many.cost.flops == 8 * one.cost.flops
    assert many.cost.bytes >= one.cost.bytes


def test_too_few_evaluation_samples_for_the_drop_are_told_with_how_many_it_takes():
    def codes(samples: int, drop: float) -> list[str]:
        found = planned(samples, target={"max_drop": {"drop": drop}})
        return [w.code for w in found.warnings]

    assert "few_samples_for_drop" in codes(500, 0.01)
    assert "few_samples_for_drop" not in codes(3_000, 0.01)
    (warning,) = [
        w for w in planned(500, target={"max_drop": {}}).warnings if w.where == "data.evaluation"
    ]
    assert "about 2,276 samples" in warning.message


def test_a_bound_that_no_result_could_keep_is_refused_before_the_job():
    with pytest.raises(SecateurError, match="not one answer") as caught:
        planned(100, target={"max_drop": {"judged_by": "upper_bound"}})
    assert caught.value.code == "target_unreachable"


def test_two_parts_that_hold_a_metric_exclude_each_other():
    with pytest.raises(ValueError, match="keep one of them"):
        Spec.model_validate({
            "target": {"max_drop": {}},
            "schedule": {"kind": "rounds", "stop": {"drop": 0.1}},
        })  # fmt: skip


def test_bytes_are_of_the_sparse_file():
    with pytest.raises(ValueError, match="sparse file"):
        Spec.model_validate({"target": {"bytes": 9_999}, "outputs": ["native"]})
