"""Which axis of an input holds the samples: names of sizes, one shared by inputs, declarations."""

import pytest

from pruning.axes import declared_facts, readings
from pruning.errors import SecateurError
from pruning.facts import ModelFacts, TensorFact

Shape = list[int | str]


def inputs(**shapes: Shape) -> list[TensorFact]:
    return [TensorFact(name=n, dtype="float32", shape=s) for n, s in shapes.items()]


def first(**shapes: Shape) -> tuple:
    return readings(inputs(**shapes))[0].axes


@pytest.mark.parametrize("name", ["batch", "batch_size", "N", "n", "b", "past_batch"])
def test_a_size_that_is_called_a_batch_decides(name):
    (only,) = readings(inputs(x=["seq", name, 6]))
    assert (only.axes, only.told) == ((1,), True)


@pytest.mark.parametrize("other", ["samples", "num_samples", "n", "rows"])
def test_of_several_names_that_of_a_batch_decides_whatever_the_order_of_hashing(other):
    assert first(x=["batch", other]) == (0,)
    assert first(x=[other, "batch_size"]) == (1,)


@pytest.mark.parametrize("name", ["samples", "num_samples", "examples"])
def test_samples_may_be_those_of_a_recording_and_are_tried(name):
    assert first(x=[1, name]) == (0,)
    assert first(x=[name, 64]) == (0,)
    assert not readings(inputs(x=[1, name]))[0].told


@pytest.mark.parametrize("name", ["seq", "sequence_length", "T", "time", "steps", "width"])
def test_a_size_that_is_called_something_else_comes_last(name):
    assert first(x=[name, "d0", 6]) == (1,)
    assert [r.axes for r in readings(inputs(x=[name, 6]))] == [(0,)]


def test_a_symbol_that_inputs_share_is_followed_through_all_of_them():
    assert first(x=["batch", 576], state=[2, "batch", 128], sr=[]) == (0, 1, "shared")
    assert first(x=[5, "m", 6], h0=[1, "m", 8], sizes=[3]) == (1, 1, "shared")


def test_a_fixed_number_of_samples_is_followed_too():
    assert first(x=[1, 576], state=[2, 1, 128], sr=[]) == (0, 1, "shared")
    assert first(image=[1, 3, 8, 8], scale=[1, 2]) == (0, 0)


def test_images_with_open_sizes_have_one_sample_first():
    assert first(x=[1, 3, "d2", "d3"]) == (0,)


def test_the_first_axis_is_tried_first_and_the_last_of_fixed_ones_never():
    assert [r.axes for r in readings(inputs(x=[5, 4, 6]))] == [(0,), (1,)]
    assert [r.axes for r in readings(inputs(x=["a0", "a1", 6]))][:2] == [(0,), (1,)]


def test_values_without_an_axis_of_their_own_are_shared():
    assert first(x=["n", 6], threshold=[], weights=[3], one=[1]) == (0, *["shared"] * 3)


def test_a_model_of_single_values_alone_has_no_samples():
    with pytest.raises(SecateurError, match="has no batch axis") as caught:
        readings(inputs(x=[], y=[]))
    assert caught.value.code == "sample_axis_unknown"


def test_a_declaration_overrides_names_and_is_followed_by_the_other_inputs():
    shapes = inputs(x=["batch", 4, 6], h0=[1, 4, 8])
    (only,) = readings(shapes, {"x": 1})
    assert only.axes == (1, 1)
    assert readings(shapes, {"x": 0, "h0": "shared"})[0].axes == (0, "shared")


@pytest.mark.parametrize(
    ("declared", "where", "text"),
    [
        ({"y": 0}, "spec.inputs.y", "no input 'y'"),
        ({"imag": 0}, "spec.inputs.imag", "Did you mean 'image'?"),
        ({"image": 3}, "spec.inputs.image.samples", "has 3 axes"),
        ({"image": "shared", "state": "shared"}, "spec.inputs", "one has to hold them"),
        ({"image": 0, "state": 0}, "spec.inputs", "'image' 5, 'state' 2"),
    ],
)
def test_declarations_that_do_not_fit_are_refused_with_their_place(declared, where, text):
    with pytest.raises(SecateurError) as caught:
        readings(inputs(image=[5, 4, 6], state=[2, 4, 8]), declared)
    assert (caught.value.code, caught.value.where) == ("spec_invalid", where)
    assert text in str(caught.value)


def facts(given: list[TensorFact], output: Shape) -> ModelFacts:
    return ModelFacts(
        format="onnx", version="17", inputs=given, layers=[], parameters=0, prunable_parameters=0,
        outputs=[TensorFact(name="y", dtype="float32", shape=output)],
    )  # fmt: skip


def test_an_unknown_axis_is_refused_with_what_to_declare_and_taken_once_it_is():
    lost = [inputs(x=[5, 4, 6])[0].model_copy(update={"samples": "unknown"})]
    model = facts(lost, [5, 4, 3])
    with pytest.raises(SecateurError) as caught:
        declared_facts(model, {})
    assert caught.value.code == "sample_axis_unknown"
    assert caught.value.where == "spec.inputs.x"
    assert "inputs: {x: {samples: 1}}" in str(caught.value.hint)
    found = declared_facts(model, {"x": 1})
    assert (found.inputs[0].as_data, found.outputs[0].placed().shape) == (["N", 5, 6], [4, 5, 3])
    assert found.batch == 4


def test_facts_stored_before_there_were_axes_have_samples_first():
    stored = TensorFact.model_validate({"name": "x", "dtype": "float32", "shape": ["N", 3]})
    assert (stored.axis, stored.as_data) == (0, ["N", 3])
