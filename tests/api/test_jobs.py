"""Jobs over HTTP: checked before anything is written, listed, cancelled, retried, deleted."""

import json
from typing import Any

import httpx
import pytest

from pruning.errors import SecateurError
from pruning.events import PhaseEvent, ProgressEvent
from pruning.facts import TensorFact
from pruning.spec import Spec, default_spec, parse_spec
from store.claims import Outcome
from tests.api.conftest import DATASET_FACTS, MODEL_FACTS, Caller, assert_problem

FAILURE = SecateurError("out_of_memory", "It needed more than there is.", hint="Use fewer samples.")


def jobs_of(caller: Caller) -> list[dict[str, Any]]:
    return caller.http.get("/v1/jobs").json()["data"]


def test_a_submitted_job_is_queued_with_its_complete_spec(caller: Caller) -> None:
    request = caller.ready() | {
        "spec": {"target": {"sparsity": 0.85}},
        "name": "first",
        "priority": 7,
    }
    response = caller.http.post("/v1/jobs", json=request)
    assert response.status_code == 202
    job = response.json()
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["state"], job["name"], job["priority"]) == ("queued", "first", 7)
    assert (job["model"], job["data"]) == (request["model"], request["data"])
    assert job["spec"] == Spec.model_validate(request["spec"]).model_dump(mode="json")
    assert job["spec"]["compensation"] == {"kind": "obs"} | job["spec"]["compensation"]
    assert caller.http.get(response.headers["location"]).json() == job
    claim = caller.service.claim_job(job["id"])
    assert claim.spec == job["spec"]
    assert claim.klass == "cpu"


def test_a_job_shows_phase_and_progress_and_at_last_its_end(caller: Caller) -> None:
    job = caller.submit()
    claim = caller.service.claim_job(job["id"])
    caller.service.report(
        claim, PhaseEvent(phase="scoring"), ProgressEvent(phase="scoring", done=3, total=10)
    )
    running = caller.http.get(f"/v1/jobs/{job['id']}").json()
    assert (running["state"], running["phase"], running["attempt"]) == ("running", "scoring", 1)
    unknown = {"fraction": None, "elapsed_seconds": None, "eta_seconds": None}
    inside = {"phase": "scoring", "done": 3, "total": 10, "message": ""}
    assert running["progress"] == inside | unknown
    assert running["started_at"]
    caller.service.finish(claim, Outcome("failed", error=FAILURE.as_dict()))
    failed = caller.http.get(f"/v1/jobs/{job['id']}").json()
    assert failed["state"] == "failed"
    assert failed["error"]["code"] == "out_of_memory"
    assert failed["error"]["hint"] == "Use fewer samples."
    assert (failed["phase"], failed["progress"]) == (None, None)
    assert failed["artifacts"] == []
    assert failed["finished_at"]


@pytest.mark.parametrize(
    ("spec", "code", "where"),
    [
        ({"tarrget": {"sparsity": 0.5}}, "spec_invalid", "spec.tarrget"),
        ({"target": {"sparsity": 1.0}}, "spec_invalid", "spec.target.sparsity"),
        ({"target": {"sparsity": "much"}}, "spec_invalid", "spec.target.sparsity"),
        ({"criterion": {"kind": "voodoo"}}, "spec_invalid", "spec.criterion"),
        (
            {"criterion": {"kind": "magnitude"}, "compensation": {"kind": "obs"}},
            "spec_conflict",
            "spec",
        ),
        ({"scope": {"exclude": ["*"]}}, "scope_empty", None),
        ({"scope": {"exclude": ["fc9"]}}, "spec_invalid", "spec.scope.exclude"),
        ({"scope": {"exclude": ["\x00"]}}, "spec_invalid", None),
        ({"\x00": 1}, "spec_invalid", None),
    ],
)
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/plans"])
def test_an_impossible_spec_is_refused_with_its_field(
    caller: Caller, path: str, spec: dict[str, Any], code: str, where: str | None
) -> None:
    body = caller.ready() | {"spec": spec}
    problem = assert_problem(post(caller, path, body), 422, code)
    if where is not None:
        assert problem["where"] == where
    assert problem.get("hint") or problem.get("errors")
    assert jobs_of(caller) == []


def post(caller: Caller, path: str, body: dict[str, Any]) -> httpx.Response:
    """As ASCII, because httpx can't encode lone surrogates."""
    headers = {"content-type": "application/json"}
    return caller.http.post(path, content=json.dumps(body), headers=headers)


def renamed(name: str = "x", shape: tuple[int, ...] = (100, 64), **changes: Any) -> Any:
    array = TensorFact(name=name, dtype="float32", shape=list(shape))
    return DATASET_FACTS.model_copy(update={"arrays": [array], **changes})


@pytest.mark.parametrize(
    ("facts", "code", "where"),
    [
        (renamed("pixels"), "data_names", "data.calibration"),
        (renamed(shape=(100, 63)), "data_shape", "data.calibration.x"),
    ],
)
def test_data_that_do_not_fit_the_model_are_refused(
    caller: Caller, facts: Any, code: str, where: str
) -> None:
    body = {
        "model": caller.upload("models", b"m" + caller.project_id.encode(), MODEL_FACTS),
        "data": {"calibration": caller.upload("datasets", b"d", facts)},
    }
    problem = assert_problem(caller.http.post("/v1/jobs", json=body), 422, code)
    assert problem["where"] == where
    assert problem["hint"]
    assert jobs_of(caller) == []


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/plans"])
def test_data_without_labels_are_pruned_layer_by_layer(caller: Caller, path: str) -> None:
    body = {
        "model": caller.upload("models", b"m" + caller.project_id.encode(), MODEL_FACTS),
        "data": {"calibration": caller.upload("datasets", b"d", renamed(target=None))},
    }
    for spec in ({}, {"spec": None}, {"spec": {}}):
        response = caller.http.post(path, json=body | spec)
        if path == "/v1/plans":
            found = response.json()
            assert (response.status_code, found["remove"]) == (200, (32 * 64 + 320) // 2)
            continue
        assert response.status_code == 202
        assert response.json()["spec"] == parse_spec(default_spec(False)).model_dump(mode="json")
    before = jobs_of(caller)
    body["spec"] = {"criterion": {"kind": "obs"}}
    problem = assert_problem(caller.http.post(path, json=body), 422, "labels_missing")
    assert problem["where"] == "data.calibration"
    assert problem["hint"]
    assert jobs_of(caller) == before


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"model": None}, "model"),
        ({"data": {}}, "data.calibration"),
        ({"data": {"calibration": "x", "test": "y"}}, "data.test"),
        ({"priority": 10}, "priority"),
        ({"prority": 1}, "prority"),
        ({"name": "x" * 201}, "name"),
        ({"spec": []}, "spec"),
        ({"spec": {"criterion": json.loads("[" * 300 + "]" * 300)}}, "spec"),
    ],
)
def test_a_malformed_request_is_refused_with_its_field(
    caller: Caller, change: dict[str, Any], where: str
) -> None:
    body = {"model": "mdl_x", "data": {"calibration": "ds_x"}} | change
    problem = assert_problem(post(caller, "/v1/jobs", body), 422, "invalid_request")
    assert problem["where"] == where
    assert problem["errors"][0]["where"] == where
    assert problem["errors"][0]["message"]


def test_uploads_that_are_not_ready_are_refused(caller: Caller) -> None:
    data = {"calibration": caller.upload("datasets", b"d", DATASET_FACTS)}
    rejected = caller.upload("models", b"r" + caller.project_id.encode(), None)
    body = {"model": rejected, "data": data}
    problem = assert_problem(caller.http.post("/v1/jobs", json=body), 409, "model_rejected")
    assert (problem["where"], problem["details"]["reason"]["code"]) == ("model", "model_unreadable")
    body["model"] = caller.http.post("/v1/models", content=b"checking").json()["id"]
    problem = assert_problem(caller.http.post("/v1/jobs", json=body), 409, "not_ready")
    assert problem["where"] == "model"
    caller.service.settle()
    body["model"] = caller.upload("models", b"ok" + caller.project_id.encode(), MODEL_FACTS)
    body["data"] = {"calibration": caller.upload("datasets", b"bad", None)}
    problem = assert_problem(caller.http.post("/v1/plans", json=body), 409, "dataset_rejected")
    assert problem["where"] == "data.calibration"


def test_a_plan_says_what_a_job_would_do_and_writes_nothing(caller: Caller) -> None:
    body = caller.ready() | {"spec": {"target": {"sparsity": 0.5}}}
    response = caller.http.post("/v1/plans", json=body)
    assert response.status_code == 200
    plan = response.json()
    assert plan["weights_in_scope"] == MODEL_FACTS.prunable_parameters
    assert plan["remove"] == MODEL_FACTS.prunable_parameters // 2
    assert plan["evaluation"] == "held_out"
    assert plan["cost"]["bytes"] > 0
    assert jobs_of(caller) == []


def test_an_idempotency_key_makes_one_job(caller: Caller) -> None:
    body = caller.ready()

    def submit(request: dict[str, Any], key: str = "k-1") -> httpx.Response:
        return caller.http.post("/v1/jobs", json=request, headers={"idempotency-key": key})

    first, again = submit(body), submit(body)
    assert first.status_code == again.status_code == 202
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["location"] == first.headers["location"]
    assert len(jobs_of(caller)) == 1
    problem = assert_problem(submit(body | {"name": "other"}), 409, "idempotency_mismatch")
    assert problem["where"] == "Idempotency-Key"
    assert submit(body, "k-2").json()["id"] != first.json()["id"]
    assert_problem(submit(body, "k" * 256), 422, "invalid_request")
    # The answer to a repetition holds when the job is over.
    job = first.json()["id"]
    caller.http.post(f"/v1/jobs/{job}/cancel")
    assert submit(body).json()["id"] == job


def test_an_idempotency_key_belongs_to_its_project(caller: Caller, stranger: Caller) -> None:
    headers = {"idempotency-key": "the-same"}
    one = caller.http.post("/v1/jobs", json=caller.ready(), headers=headers)
    two = stranger.http.post("/v1/jobs", json=stranger.ready(), headers=headers)
    assert one.status_code == two.status_code == 202
    assert one.json()["id"] != two.json()["id"]


def test_too_many_waiting_jobs_are_refused(caller: Caller) -> None:
    body = caller.ready()
    for _ in range(caller.service.settings.queued_jobs_limit):
        assert caller.http.post("/v1/jobs", json=body).status_code == 202
    assert_problem(caller.http.post("/v1/jobs", json=body), 429, "too_many_jobs")


def test_a_queued_job_is_cancelled_at_once_and_a_running_one_is_asked_to_end(
    caller: Caller,
) -> None:
    queued = caller.submit()
    response = caller.http.post(f"/v1/jobs/{queued['id']}/cancel")
    assert (response.status_code, response.json()["state"]) == (202, "cancelled")
    running = caller.http.post(
        "/v1/jobs", json={"model": queued["model"], "data": queued["data"]}
    ).json()
    claim = caller.service.claim_job(running["id"])
    response = caller.http.post(f"/v1/jobs/{running['id']}/cancel")
    assert response.status_code == 202
    assert (response.json()["state"], response.json()["cancel_requested"]) == ("running", True)
    caller.service.finish(claim, Outcome("succeeded"))
    path = f"/v1/jobs/{running['id']}/cancel"
    assert_problem(caller.http.post(path), 409, "conflict")


def test_a_job_that_is_over_can_be_retried_and_deleted(caller: Caller) -> None:
    job = caller.submit(name="again")
    path = f"/v1/jobs/{job['id']}"
    assert_problem(caller.http.post(f"{path}/retry"), 409, "conflict")
    assert_problem(caller.http.delete(path), 409, "conflict")
    caller.http.post(f"{path}/cancel")
    for used in (f"models/{job['model']}", f"datasets/{job['data']['calibration']}"):
        problem = assert_problem(caller.http.delete(f"/v1/{used}"), 409, "in_use")
        assert "1 job refers" in problem["detail"]
        assert "Delete that job first" in problem["hint"]
    response = caller.http.post(f"{path}/retry")
    assert response.status_code == 202
    again = response.json()
    assert response.headers["location"] == f"/v1/jobs/{again['id']}"
    assert (again["retry_of"], again["spec"]) == (job["id"], job["spec"])
    assert caller.http.delete(path).status_code == 204
    assert_problem(caller.http.get(path), 404, "not_found")


def test_lists_are_cursor_pages(caller: Caller, stranger: Caller) -> None:
    ids = [caller.upload("datasets", bytes([n]), DATASET_FACTS) for n in range(5)]
    stranger.upload("datasets", b"theirs", DATASET_FACTS)
    seen, cursor = [], None
    while True:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = caller.http.get("/v1/datasets", params=params).json()
        seen += [item["id"] for item in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        assert len(page["data"]) == 2
    assert seen == ids[::-1]


@pytest.mark.parametrize("kind", ["models", "datasets"])
def test_uploads_can_be_listed_by_state(caller: Caller, kind: str) -> None:
    checking = caller.http.post(f"/v1/{kind}", content=b"not looked at yet").json()["id"]
    for state, found in (("checking", [checking]), ("ready", []), ("rejected", [])):
        page = caller.http.get(f"/v1/{kind}", params={"state": state}).json()
        assert [item["id"] for item in page["data"]] == found
    response = caller.http.get(f"/v1/{kind}", params={"state": "unknown"})
    assert_problem(response, 422, "invalid_request")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/datasets", "/v1/jobs", "/v1/keys"])
def test_bad_pages_are_refused(caller: Caller, path: str) -> None:
    for limit in ("0", "201", "-1", "many", "1" * 30):
        response = caller.http.get(path, params={"limit": limit})
        assert assert_problem(response, 422, "invalid_request")["where"] == "limit"
    for cursor in ("x", "%00", "é", "a" * 400):
        response = caller.http.get(path, params={"cursor": cursor})
        assert_problem(response, 422, "invalid_cursor")
    assert caller.http.get(path, params={"limit": 200}).status_code == 200


def test_jobs_can_be_listed_by_state(caller: Caller) -> None:
    job = caller.submit()
    assert caller.http.get("/v1/jobs?state=running").json()["data"] == []
    assert [j["id"] for j in caller.http.get("/v1/jobs?state=queued").json()["data"]] == [job["id"]]
    assert_problem(caller.http.get("/v1/jobs?state=lost"), 422, "invalid_request")


def test_a_metric_that_can_tell_nothing_is_refused_before_the_job(caller: Caller) -> None:
    outputs = [TensorFact(name="y", dtype="float32", shape=["batch", 1])]
    facts = MODEL_FACTS.model_copy(update={"outputs": outputs})
    mark = caller.project_id.encode()
    request = {
        "model": caller.upload("models", b"one" + mark, facts),
        "data": {"calibration": caller.upload("datasets", b"some" + mark, DATASET_FACTS)},
        "spec": {
            "objective": {"loss": "match_dense", "metrics": ["agreement"]},
            "target": {"max_drop": {"metric": "agreement", "drop": 0.01}},
        },
    }
    for door in ("/v1/jobs", "/v1/plans"):
        found = assert_problem(caller.http.post(door, json=request), 422, "metric_meaningless")
        assert found["where"] == "spec.target.max_drop"


def test_shares_and_counts_are_kept_as_they_were_written(caller: Caller) -> None:
    body = json.dumps(caller.ready() | {"spec": {"target": {"weights": 7}}})
    for written, meant in (("1.0", 1.0), ("1", 1)):
        response = caller.http.post(
            "/v1/jobs",
            content=body.replace('"weights": 7', f'"weights": {written}'),
            headers={"content-type": "application/json"},
        )
        assert response.status_code == 202, response.text
        job = caller.http.get(f"/v1/jobs/{response.json()['id']}")
        assert f'"weights":{written}' in job.text.replace(": ", ":")
        claim = caller.service.claim_job(response.json()["id"])
        found = parse_spec(claim.spec).target.weights
        assert (found, type(found)) == (meant, type(meant))
