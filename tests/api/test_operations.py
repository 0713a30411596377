"""Health, metrics, the catalogue, keys, the OpenAPI document, and what the API may import."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from openapi_spec_validator import validate
from prometheus_client.core import Metric

from api.app import create_app
from api.metrics import JobMetrics
from pruning import catalogue
from store import leaders, roster
from store.clock import utcnow
from store.migrate import upgrade
from store.settings import Settings
from store.tables import Worker
from tests.api.conftest import Caller, Service, assert_problem, serving


def test_a_live_process_says_so(service: Service) -> None:
    assert httpx.get(f"{service.url}/healthz").json() == {"status": "ok"}


def test_readiness_tells_of_the_control_process(service: Service) -> None:
    ready = httpx.get(f"{service.url}/readyz")
    assert ready.status_code == 200
    assert ready.json()["control"] == {"alive": False}
    with service.database.write() as session:
        leaders.lead(session, "control", "me", utcnow())
    try:
        assert httpx.get(f"{service.url}/readyz").json()["control"] == {"alive": True}
    finally:
        with service.database.write() as session:
            leaders.resign(session, "control", "me")


def test_readiness_counts_the_workers_that_live(service: Service) -> None:
    now = utcnow()
    with service.database.write() as session:
        roster.seen(session, "here:1", "landlock", now)
        roster.seen(session, "here:2", "bubblewrap", now)
        session.add(Worker(name="gone:3", sandbox="limits", seen_at=now - timedelta(hours=1)))
    try:
        assert httpx.get(f"{service.url}/readyz").json()["workers"]["alive"] == 2
        with service.database.write() as session:
            roster.gone(session, "here:2")
        assert httpx.get(f"{service.url}/readyz").json()["workers"]["alive"] == 1
    finally:
        with service.database.write() as session:
            roster.gone(session, "here:1")
    assert httpx.get(f"{service.url}/readyz").json()["workers"]["alive"] == 0


def test_a_service_without_schema_or_blobs_is_not_ready(tmp_path: Path) -> None:
    settings = Settings(
        data_dir=tmp_path, database_url=f"sqlite:///{tmp_path / 'x.db'}", blob_dir=tmp_path / "b"
    )
    with serving(create_app(settings)) as url:
        problem = assert_problem(httpx.get(f"{url}/readyz"), 503, "unavailable")
        assert problem["where"] == "database"
        assert httpx.get(f"{url}/healthz").status_code == 200
        upgrade(settings)
        assert httpx.get(f"{url}/readyz").status_code == 200
        (tmp_path / "b").rename(tmp_path / "gone")
        assert assert_problem(httpx.get(f"{url}/readyz"), 503, "unavailable")["where"] == "blobs"


def test_metrics_count_requests_by_route_and_jobs_by_state(caller: Caller) -> None:
    job = caller.submit()
    caller.http.get(f"/v1/jobs/{job['id']}")
    caller.http.get("/v1/jobs/nothing")
    caller.http.get("/nowhere/at/all")
    text = httpx.get(f"{caller.service.url}/metrics").text
    route = 'method="GET",route="/v1/jobs/{job_id}"'
    assert f'secateur_http_requests_total{{{route},status="200"}}' in text
    assert f'secateur_http_requests_total{{{route},status="404"}}' in text
    assert f'secateur_http_request_seconds_bucket{{le="0.005",{route}}}' in text
    assert 'route="unmatched"' in text
    assert 'secateur_jobs{class="cpu",state="queued"}' in text
    assert 'secateur_oldest_queued_job_seconds{class="cpu"}' in text
    assert job["id"] not in text


def test_the_catalogue_lists_every_method_with_its_parameters(caller: Caller) -> None:
    found = caller.http.get("/v1/criteria").json()
    assert {entry["kind"] for entry in found["criteria"]} == set(catalogue.criteria())
    assert {entry["kind"] for entry in found["compensations"]} == set(catalogue.compensations())
    assert {"criterion", "schedule", "trust"} <= found["spec"]["properties"].keys()
    for entry in found["criteria"] + found["compensations"]:
        assert entry["title"]
        assert entry["parameters"]["properties"]["kind"]["const"] == entry["kind"]


def test_limits_are_those_of_the_settings(caller: Caller) -> None:
    limits = caller.http.get("/v1/limits").json()
    assert limits["model_bytes"] == caller.service.settings.model_bytes_limit
    assert limits["dataset_bytes"] == caller.service.settings.dataset_bytes_limit
    assert (limits["json_bytes"], limits["page_items"]) == (1 << 20, 200)


def test_a_key_is_shown_once_and_never_its_secret_again(caller: Caller) -> None:
    response = caller.http.post("/v1/keys", json={"name": "ci"})
    assert response.status_code == 201
    made = response.json()
    assert made["secret"].startswith("sct_")
    assert response.headers["cache-control"] == "no-store"
    listed = caller.http.get("/v1/keys")
    assert made["secret"] not in listed.text
    assert caller.secret not in listed.text
    assert [(key["name"], key["current"]) for key in listed.json()["data"]] == [
        ("ci", False),
        ("first", True),
    ]


def test_the_key_in_use_can_not_be_deleted(caller: Caller) -> None:
    current = caller.http.get("/v1/keys").json()["data"][0]["id"]
    assert_problem(caller.http.delete(f"/v1/keys/{current}"), 409, "conflict")
    assert caller.http.get("/v1/keys").status_code == 200


def test_the_openapi_document_is_valid_and_complete(service: Service) -> None:
    document = httpx.get(f"{service.url}/openapi.json").json()
    validate(document)
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    tags = {tag["name"] for tag in document["tags"]}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            named = f"{method} {path}"
            assert operation["summary"], named
            assert operation["description"], named
            assert set(operation["tags"]) <= tags, named
            error = operation["responses"]["default"]["content"]["application/problem+json"]
            assert error["schema"]["$ref"].endswith("/Problem"), named
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if body is not None:
                schema = body["schema"]["$ref"].rsplit("/", 1)[-1]
                assert document["components"]["schemas"][schema]["examples"], named


EXAMPLES = ["Model", "Dataset", "Job", "Events", "Key", "NewKey", "Limits", "Problem"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_fit_their_own_schemas(name: str) -> None:
    from api import schemas

    model = getattr(schemas, name)
    model.model_validate(model.model_config["json_schema_extra"]["example"])


@pytest.mark.parametrize("name", ["JobRequest", "PlanRequest", "KeyRequest"])
def test_the_examples_of_requests_are_accepted(name: str) -> None:
    from api import schemas
    from pruning.spec import parse_spec

    model = getattr(schemas, name)
    for example in model.model_config["json_schema_extra"]["examples"]:
        parse_spec(getattr(model.model_validate(example), "spec", None))


SERVE = """
import asyncio, sys
import httpx
from api.app import create_app
from store.migrate import upgrade
from store.settings import get_settings
from store.db import Database
from store.queries import keys

upgrade(get_settings())
app = create_app()
with app.state.service.database.write() as session:
    project = keys.create_project(session, "p")
    secret = keys.create_key(session, project.id, "k")[1]

async def main():
    transport = httpx.ASGITransport(app)
    headers = {"authorization": f"Bearer {secret}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://t", headers=headers) as http:
        made = (await http.post("/v1/models", content=b"x")).json()
        for path in ("/v1/criteria", "/v1/limits", "/openapi.json", "/metrics", "/readyz"):
            assert (await http.get(path)).status_code == 200, path
        body = {"model": made["id"], "data": {"calibration": "ds_x"}, "spec": {}}
        assert (await http.post("/v1/plans", json=body)).json()["code"] == "not_ready"

asyncio.run(main())
print(sorted(set(sys.modules) & {"torch", "numpy", "onnx", "onnxruntime", "celery", "redis",
                                 "kombu", "worker", "secateur"}))
"""


def test_the_api_serves_without_torch_numpy_or_the_broker(tmp_path: Path) -> None:
    env = os.environ | {"SECATEUR_DATA_DIR": str(tmp_path), "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, "-c", SERVE], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_jobs_are_not_counted_for_every_scrape(service: Service) -> None:
    metrics = JobMetrics(service.database)
    counted = 0
    count = metrics._count

    def slowly() -> Iterator[Metric]:
        nonlocal counted
        counted += 1
        time.sleep(0.05)
        yield from count()

    metrics._count = slowly  # type: ignore[method-assign]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: [m.name for m in metrics.collect()], range(40)))
    assert counted == 1
    assert set(map(tuple, found)) == {("secateur_jobs", "secateur_oldest_queued_job_seconds")}
    metrics._until = 0.0
    list(metrics.collect())
    assert counted == 2
