"""An earlier checkpoint named by a job: taken, kept, refused where it can't be used."""

from typing import Any

import pytest

from store.claims import Outcome
from tests.api.conftest import MODEL_FACTS, Caller, assert_problem

TRAINED = {"recovery": {"kind": "fine_tune"}}
REWOUND = TRAINED | {"schedule": {"kind": "rounds", "rewind": {"kind": "weights"}}}
FIRST = TRAINED | {"schedule": {"kind": "at_initialisation"}}
BOTH = pytest.mark.parametrize("path", ["/v1/jobs", "/v1/plans"])


def earlier(caller: Caller, facts: Any = MODEL_FACTS) -> str:
    return caller.upload("models", b"earlier" + caller.project_id.encode(), facts)


@pytest.mark.parametrize("spec", [REWOUND, FIRST])
def test_the_worker_gets_it_and_the_job_shows_it_and_so_does_a_retry(
    caller: Caller, spec: dict[str, Any]
) -> None:
    named = earlier(caller)
    job = caller.submit(spec=spec, rewind_to=named)
    assert job["rewind_to"] == named
    assert caller.http.get(f"/v1/jobs/{job['id']}").json()["rewind_to"] == named
    claim = caller.service.claim_job(job["id"])
    assert claim.rewind_to is not None
    assert claim.model is not None
    assert (claim.rewind_to.id, claim.model.id) == (named, job["model"])
    caller.service.finish(claim, Outcome("failed", error={"code": "stalled", "message": "."}))
    again = caller.http.post(f"/v1/jobs/{job['id']}/retry").json()
    assert again["rewind_to"] == named
    problem = assert_problem(caller.http.delete(f"/v1/models/{named}"), 409, "in_use")
    assert "2 jobs refer" in problem["detail"]


@BOTH
def test_rewinding_weights_needs_one(caller: Caller, path: str) -> None:
    body = caller.ready() | {"spec": REWOUND}
    problem = assert_problem(caller.http.post(path, json=body), 422, "rewind_invalid")
    assert problem["where"] == "rewind_to"
    assert "learning_rate" in problem["hint"]


@BOTH
@pytest.mark.parametrize(
    "schedule",
    [
        {"kind": "one_shot"},
        {"kind": "rounds"},
        {"kind": "rounds", "rewind": {"kind": "learning_rate"}},
        {"kind": "proximal"},
    ],
)
def test_a_schedule_without_use_for_one_refuses_it(
    caller: Caller, path: str, schedule: dict[str, Any]
) -> None:
    body = caller.ready() | {"spec": TRAINED | {"schedule": schedule}}
    body["rewind_to"] = body["model"]
    problem = assert_problem(caller.http.post(path, json=body), 422, "rewind_invalid")
    assert problem["where"] == "rewind_to"
    assert schedule["kind"] in problem["detail"]


def reshaped(**changes: Any) -> Any:
    first, *rest = MODEL_FACTS.layers
    return MODEL_FACTS.model_copy(update={"layers": [first.model_copy(update=changes), *rest]})


@BOTH
@pytest.mark.parametrize(
    ("facts", "where"),
    [
        (reshaped(shape=[7, 7]), f"rewind_to.{MODEL_FACTS.layers[0].name}"),
        (reshaped(name="other"), f"rewind_to.{MODEL_FACTS.layers[0].name}"),
        (MODEL_FACTS.model_copy(update={"format": "pt2"}), "rewind_to"),
        (MODEL_FACTS.model_copy(update={"parameters": 1}), "rewind_to"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(
    caller: Caller, path: str, facts: Any, where: str
) -> None:
    body = caller.ready() | {"spec": REWOUND, "rewind_to": earlier(caller, facts)}
    problem = assert_problem(caller.http.post(path, json=body), 422, "rewind_invalid")
    assert problem["where"] == where


@BOTH
def test_it_must_exist_be_ones_own_and_be_ready(
    caller: Caller, stranger: Caller, path: str
) -> None:
    body = caller.ready() | {"spec": REWOUND}
    for found in ("mdl_nothing", earlier(stranger)):
        problem = assert_problem(
            caller.http.post(path, json=body | {"rewind_to": found}), 404, "not_found"
        )
        assert problem["where"] == "rewind_to"
    rejected = caller.upload("models", b"bad" + caller.project_id.encode())
    problem = assert_problem(
        caller.http.post(path, json=body | {"rewind_to": rejected}), 409, "model_rejected"
    )
    assert problem["where"] == "rewind_to"


def test_a_repeated_request_with_another_checkpoint_is_another_request(caller: Caller) -> None:
    body = caller.ready() | {"spec": REWOUND, "rewind_to": earlier(caller)}
    key = {"Idempotency-Key": "once-" + caller.project_id}
    first = caller.http.post("/v1/jobs", json=body, headers=key)
    assert caller.http.post("/v1/jobs", json=body, headers=key).json()["id"] == first.json()["id"]
    other = body | {"rewind_to": body["model"]}
    response = caller.http.post("/v1/jobs", json=other, headers=key)
    assert_problem(response, 409, "idempotency_mismatch")


def test_a_job_without_one_says_null(caller: Caller) -> None:
    assert caller.submit()["rewind_to"] is None
