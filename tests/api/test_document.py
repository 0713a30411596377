"""The OpenAPI document says what generators of clients need."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.api.conftest import Caller, Service


@pytest.fixture(scope="module")
def document(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{service.url}/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def inside(schema: Any) -> Iterator[dict[str, Any]]:
    """Every mapping of a schema."""
    if isinstance(schema, dict):
        yield schema
        for part in schema.values():
            yield from inside(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from inside(part)


def test_operations_are_called_as_their_functions(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(ids)) == len(ids)
    assert {"create_job", "list_jobs", "get_job", "get_artifact", "create_model"} <= set(ids)
    assert not [name for name in ids if not re.fullmatch(r"[a-z]+(_[a-z]+)+", name) or "v1" in name]


def test_titles_are_unique_and_stand_at_components_alone(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name, schema in schemas.items():
        assert schema["title"] == name
        assert re.fullmatch(r"[A-Za-z]+", name), name
        for part in schema.get("properties", {}).values():
            assert "title" not in part, name
            assert "default" not in part, name
    assert max(Counter(schema["title"] for schema in schemas.values()).values()) == 1


def test_every_reference_leads_somewhere_and_nothing_is_left_over(document: dict[str, Any]) -> None:
    named = {
        part["$ref"].rsplit("/", 1)[-1]
        for part in inside(document)
        if isinstance(part.get("$ref"), str)
    }
    assert named == set(document["components"]["schemas"])


def test_a_job_request_needs_model_and_data_alone(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["JobRequest"]["required"] == ["model", "data"]
    spec = schemas["JobRequest"]["properties"]["spec"]
    assert {"$ref": "#/components/schemas/Spec"} in spec["anyOf"]
    assert "required" not in schemas["Spec"]
    criterion = schemas["Spec"]["properties"]["criterion"]
    for reference in criterion["discriminator"]["mapping"].values():
        assert "kind" in schemas[reference.rsplit("/", 1)[-1]]["required"]


def test_a_job_has_every_field_and_its_parts_are_typed(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    job = schemas["Job"]
    assert set(job["required"]) == set(job["properties"])
    assert job["properties"]["spec"]["$ref"].endswith("/Spec")
    assert {"$ref": "#/components/schemas/Summary"} in job["properties"]["summary"]["anyOf"]
    event = schemas["Events"]["properties"]["data"]["items"]
    assert event["discriminator"]["propertyName"] == "type"
    for reference in event["discriminator"]["mapping"].values():
        shown = schemas[reference.rsplit("/", 1)[-1]]
        assert {"type", "seq", "at"} <= set(shown["required"])


def test_a_stream_says_what_its_events_are(document: dict[str, Any]) -> None:
    answer = document["paths"]["/v1/jobs/{job_id}/events"]["get"]["responses"]["200"]
    kinds = answer["content"]["text/event-stream"]["x-event"]
    assert kinds == {"$ref": "#/components/schemas/StreamedEvent"}
    mapping = document["components"]["schemas"]["StreamedEvent"]["discriminator"]["mapping"]
    assert {"state", "progress", "alive", "waiting"} <= set(mapping)


@pytest.mark.parametrize("kind", ["models", "datasets", "jobs", "keys"])
def test_cursors_have_the_pattern_of_what_is_given_out(
    caller: Caller, document: dict[str, Any], kind: str
) -> None:
    parameters = document["paths"][f"/v1/{kind}"]["get"]["parameters"]
    (written,) = [p["schema"]["pattern"] for p in parameters if p["name"] == "cursor"]
    ready = caller.ready() if kind == "jobs" else {}
    for n in range(2):
        if kind == "jobs":
            assert caller.http.post("/v1/jobs", json=ready).status_code == 202
        elif kind == "keys":
            caller.http.post("/v1/keys", json={})
        else:
            caller.http.post(f"/v1/{kind}", content=b"x%d" % n)
    given = caller.http.get(f"/v1/{kind}", params={"limit": 1}).json()["next_cursor"]
    assert re.search(written, given)
    assert caller.http.get(f"/v1/{kind}", params={"cursor": given}).status_code == 200
    other = given.replace(given.split("_")[0], "att")
    refused = caller.http.get(f"/v1/{kind}", params={"cursor": other})
    assert refused.json()["code"] == "invalid_cursor"
