"""Which data fit which model, from facts alone."""

from typing import Any

import pytest

from pruning.errors import SecateurError
from pruning.facts import DatasetFacts, ImagesFact, ModelFacts, TargetFact, TensorFact
from pruning.match import match, match_classes

Shape = list[int | str]


def model(
    inputs: dict[str, tuple[str, Shape]], output: Shape | None = None, **more: Any
) -> ModelFacts:
    return ModelFacts(
        format="onnx",
        version="17",
        inputs=[TensorFact(name=n, dtype=d, shape=s) for n, (d, s) in inputs.items()],
        outputs=[TensorFact(name="y", dtype="float32", shape=output or ["n", 4])],
        layers=[],
        parameters=0,
        prunable_parameters=0,
        **more,
    )


def data(form: str, target: TargetFact | None = None, **more: Any) -> DatasetFacts:
    fields: dict[str, Any] = {"samples": 5, "arrays": [], "bytes": 1} | more
    return DatasetFacts(format=form, target=target, **fields)


def named(*names: str) -> TargetFact:
    return TargetFact(dtype="int64", shape=[5], classes=len(names), names=list(names))


TEXT = data("jsonl", text=True, longest_text=9)
IMAGES = data("images", images=ImagesFact(smallest=[8, 8], largest=[9, 9]))
SEES = model({"x": ("float32", ["n", 3, 8, 8])})
READS = model({"input_ids": ("int64", ["n", "t"])}, text=True)
INDICES = TargetFact(dtype="int64", shape=[5], classes=4)


def refused(code: str, text: str, *arguments: Any) -> SecateurError:
    with pytest.raises(SecateurError) as caught:
        match(*arguments, "data.calibration")
    assert caught.value.code == code
    assert text in str(caught.value)
    return caught.value


def test_texts_go_to_models_that_came_with_a_tokenizer():
    match(TEXT, READS, "match_dense", "data.calibration")
    match(TEXT.model_copy(update={"target": INDICES}), READS, "cross_entropy", "data.calibration")
    error = refused("data_names", "tokenizer.json", TEXT, SEES, "match_dense")
    assert error.where == "data.calibration"


def test_texts_are_their_own_labels_for_next_token_prediction():
    writes = model({"input_ids": ("int64", ["n", "t"])}, ["n", "t", 99], text=True)
    match(TEXT, writes, "causal_lm", "data.calibration")
    refused("target_invalid", "[n, 4]", TEXT, READS, "causal_lm")
    labelled = TEXT.model_copy(update={"target": INDICES})
    refused("target_invalid", "Leave the labels out", labelled, writes, "causal_lm")


def test_images_go_to_models_with_one_image_input():
    match(IMAGES, SEES, "match_dense", "data.calibration")
    refused("data_names", "four axes", IMAGES, READS, "match_dense")
    two = model({"x": ("float32", ["n", 3, 8, 8]), "z": ("float32", ["n", 3, 8, 8])})
    refused("data_names", "'z'", IMAGES, two, "match_dense")
    whole = model({"x": ("uint8", ["n", 3, 8, 8])})
    refused("data_dtype", "uint8", IMAGES, whole, "match_dense")


@pytest.mark.parametrize(
    ("facts", "against", "hint"),
    [
        (TEXT, READS, "field label"),
        (IMAGES, SEES, "one folder a class"),
        (data("parquet", arrays=[TensorFact(name="x", dtype="float32", shape=[5, 3, 8, 8])]),
         SEES, "column label"),
        (data("safetensors", arrays=[TensorFact(name="x", dtype="float32", shape=[5, 3, 8, 8])]),
         SEES, "array target"),
    ],
)  # fmt: skip
def test_labels_are_asked_for_in_the_words_of_the_format(facts, against, hint):
    refused("labels_missing", hint, facts, against, "cross_entropy")


def test_labels_by_name_need_a_name_for_every_output():
    four = IMAGES.model_copy(update={"target": named("a", "b", "c", "d")})
    match(four, SEES, "cross_entropy", "data.calibration")
    three = IMAGES.model_copy(update={"target": named("a", "b", "c")})
    refused("target_invalid", "which is which", three, SEES, "cross_entropy")
    # Numbers say by themselves which output they mean.
    some = IMAGES.model_copy(update={"target": TargetFact(dtype="int64", shape=[5], classes=3)})
    match(some, SEES, "cross_entropy", "data.calibration")
    match(three, SEES, "match_dense", "data.calibration")


def test_whole_numbers_of_json_will_do_for_floats():
    takes = model({"x": ("float32", ["n", 2])})
    whole = [TensorFact(name="x", dtype="int64", shape=[5, 2])]
    match(data("jsonl", arrays=whole), takes, "match_dense", "data.calibration")
    refused("data_dtype", "int64", data("npz", arrays=whole), takes, "match_dense")
    real = [TensorFact(name="x", dtype="float64", shape=[5, 2])]
    counts = model({"x": ("int64", ["n", 2])})
    refused("data_dtype", "float64", data("jsonl", arrays=real), counts, "match_dense")


def test_all_datasets_of_a_job_have_the_same_classes():
    first, same = (IMAGES.model_copy(update={"target": named("a", "b")}) for _ in range(2))
    match_classes({"calibration": first, "evaluation": same, "training": TEXT})
    other = IMAGES.model_copy(update={"target": named("a", "c")})
    with pytest.raises(SecateurError, match="'b', 'c' are in one of them") as caught:
        match_classes({"calibration": first, "evaluation": other})
    assert caught.value.where == "data.evaluation.target"
