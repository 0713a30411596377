"""Axes of inputs, declared with an upload or in a spec, at the door of HTTP."""

import hashlib

from pruning.facts import DatasetFacts, ModelFacts, TensorFact
from tests.api.conftest import DATASET_FACTS, MODEL_FACTS, Caller, assert_problem


def unknown() -> ModelFacts:
    inputs = [TensorFact(name="x", dtype="float32", shape=[5, 4, 64], samples="unknown")]
    return MODEL_FACTS.model_copy(update={"inputs": inputs, "batch": 4})


def arrays() -> DatasetFacts:
    x = TensorFact(name="x", dtype="float32", shape=[100, 5, 64])
    return DATASET_FACTS.model_copy(update={"arrays": [x]})


def request(caller: Caller, facts: ModelFacts) -> dict:
    mark = hashlib.sha256(caller.project_id.encode()).digest()
    return {
        "model": caller.upload("models", b"steps" + mark, facts),
        "data": {"calibration": caller.upload("datasets", b"steps" + mark, arrays())},
    }


def test_a_plan_refuses_an_unknown_axis_until_the_spec_declares_it(caller: Caller) -> None:
    asked = request(caller, unknown())
    problem = assert_problem(caller.http.post("/v1/plans", json=asked), 422, "sample_axis_unknown")
    assert problem["where"] == "spec.inputs.x"
    wrong = {"spec": {"inputs": {"y": {"samples": 1}}}}
    refused = caller.http.post("/v1/plans", json=asked | wrong)
    assert assert_problem(refused, 422, "spec_invalid")["where"] == "spec.inputs.y"
    right = {"spec": {"inputs": {"x": {"samples": 1}}}}
    assert caller.http.post("/v1/plans", json=asked | right).status_code == 200


def test_data_with_the_samples_where_the_model_has_them_are_told_to_move(caller: Caller) -> None:
    asked = request(caller, unknown()) | {"spec": {"inputs": {"x": {"samples": 0}}}}
    problem = assert_problem(caller.http.post("/v1/plans", json=asked), 422, "data_shape")
    assert "[N, 4, 64]" in problem["detail"]


def test_an_upload_tells_its_check_and_its_jobs_which_axis_it_is(caller: Caller) -> None:
    params = {"name": "m.onnx", "samples": ["x=1", "sizes=shared"]}
    made = caller.http.post("/v1/models", content=b"declared", params=params)
    assert made.status_code == 201, made.text
    claim = caller.service.claim("check")
    assert claim is not None
    assert claim.spec == {"inputs": {"x": {"samples": 1}, "sizes": {"samples": "shared"}}}
    again = caller.http.post("/v1/models", content=b"declared", params=params)
    assert (again.status_code, again.json()["id"]) == (200, made.json()["id"])
    other = caller.http.post(
        "/v1/models", content=b"declared", params={"name": "m.onnx", "samples": "x=0"}
    )
    assert_problem(other, 409, "conflict")


def test_a_form_declares_it_in_parts_of_that_name(caller: Caller) -> None:
    form = [("samples", (None, "x=1")), ("samples", (None, "h0=shared")), ("file", b"form")]
    made = caller.http.post("/v1/models", files=form, params={"name": "m.onnx"})
    assert made.status_code == 201, made.text
    claim = caller.service.claim("check")
    assert claim is not None
    assert claim.spec == {"inputs": {"x": {"samples": 1}, "h0": {"samples": "shared"}}}
    wrong = [("samples", (None, "x")), ("file", b"form")]
    answer = caller.http.post("/v1/models", files=wrong, params={"name": "m.onnx"})
    assert assert_problem(answer, 422, "invalid_request")["where"] == "samples"
    data = caller.http.post("/v1/datasets", files=form, params={"name": "d.npz"})
    assert assert_problem(data, 400, "multipart_invalid")["where"] == "samples"


def test_what_an_upload_declared_stands_in_the_spec_of_its_jobs(caller: Caller) -> None:
    x = TensorFact(name="x", dtype="float32", shape=[5, 4, 64], samples=1)
    declared = unknown().model_copy(update={"inputs": [x], "declared": {"x": 1}})
    job = caller.http.post("/v1/jobs", json=request(caller, declared))
    assert job.status_code == 202, job.text
    assert job.json()["spec"]["inputs"] == {"x": {"samples": 1}}


def test_an_option_that_names_no_axis_is_refused(caller: Caller) -> None:
    answer = caller.http.post("/v1/models", content=b"x", params={"samples": "x"})
    assert assert_problem(answer, 422, "invalid_request")["where"] == "samples"
