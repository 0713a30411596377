"""The OpenAPI document: what routes say of themselves, made fit for those who generate clients.

Generators name types after the titles and places of schemas, and take a field with a default for
one that is always there. So in this document names are unique, titles stand at components alone,
operations are called as their functions, and defaults are told in words.
"""

import json
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from api.auth import OPEN_PATHS
from api.problems import MEDIA_TYPE
from api.schemas import Problem, StreamedEvent
from pruning.errors import CODES

TAGS = [
    {"name": "models", "description": "Trained networks, uploaded once and never changed."},
    {"name": "datasets", "description": "Calibration, training and evaluation data."},
    {"name": "jobs", "description": "One run of a spec on a model."},
    {"name": "artifacts", "description": "What a job leaves: the pruned model, masks, reports."},
    {"name": "plans", "description": "What a job would do and cost, without running it."},
    {"name": "catalogue", "description": "The methods a spec can name, and the limits."},
    {"name": "keys", "description": "API keys of the project."},
    {"name": "operations", "description": "Health, readiness, metrics."},
]
_BESIDE: dict[str, Any] = {"Problem": Problem, "StreamedEvent": StreamedEvent}
"""What no route returns as a model."""

_REFERENCE = "#/components/schemas/{model}"
_LONGEST_DEFAULT = 80


def install(app: FastAPI) -> None:
    """Makes `app.openapi` return the completed document, and GET /openapi.json its bytes.

    FastAPI's own route would write the document anew for each request, on the event loop.
    """

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _complete(
                get_openapi(
                    title=app.title,
                    version=app.version,
                    summary=app.summary,
                    description=app.description,
                    routes=app.routes,
                    tags=TAGS,
                )
            )
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
    written: list[bytes] = []

    async def get_document(_request: Request) -> Response:
        if not written:
            written.append(json.dumps(app.openapi(), ensure_ascii=False).encode())
        return Response(written[0], media_type="application/json")

    app.add_route("/openapi.json", get_document, include_in_schema=False)


def _complete(document: dict[str, Any]) -> dict[str, Any]:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for name, shape in _BESIDE.items():
        found = TypeAdapter(shape).json_schema(ref_template=_REFERENCE, mode="serialization")
        schemas.update(found.pop("$defs", {}))
        schemas[name] = found
    schemas["Problem"]["properties"]["code"]["examples"] = sorted(CODES)
    for name, schema in schemas.items():
        schemas[name] = {"title": name} | _plain(schema)
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, sct_..."}
    }
    components["responses"] = {
        "Problem": {
            "description": "The error as problem+json; `code` is stable.",
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    }
    document["security"] = [{"bearer": []}]
    for path, operation in _operations(document):
        operation["responses"].pop("422", None)
        for status in _refusals(path, operation):
            operation["responses"][status] = components["responses"]["Problem"]
        for parameter in operation.get("parameters", ()):
            parameter["schema"] = _without_null(_plain(parameter["schema"]))
        if path in OPEN_PATHS:
            operation["security"] = []
    return document


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            yield path, operation


def _refusals(path: str, operation: dict[str, Any]) -> Iterator[str]:
    """Statuses of problems that generated clients shall tell apart; `default` has all others."""
    if path not in OPEN_PATHS:
        yield "401"
        yield "422"
    if "{" in path:
        yield "404"
    if "requestBody" in operation:
        yield from ("400", "413", "415")
    yield "503"
    yield "default"


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a parameter, which is left out where it has no value: null can't be written."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind.get("type") != "null"]
    if len(kinds) != 1:
        return schema
    return {**kinds[0], **{key: value for key, value in schema.items() if key != "anyOf"}}


def _plain(schema: Any) -> Any:
    """The schema without titles, and with its defaults in words.

    A default is what the service fills in, not a promise that a field is there: generators that
    read it as one ask for every field of a spec.
    """
    if isinstance(schema, list):
        return [_plain(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {
        key: value if key in ("example", "examples", "enum", "const") else _parts(key, value)
        for key, value in schema.items()
        if key not in ("title", "default")
    }
    fixed = [name for name, part in schema.get("properties", {}).items() if "const" in part]
    if fixed:  # what tells the kinds of a union apart is never left out
        found["required"] = list(dict.fromkeys([*fixed, *schema.get("required", ())]))
    if schema.get("default") is not None and "const" not in schema:
        said = json.dumps(schema["default"], ensure_ascii=False)
        if len(said) <= _LONGEST_DEFAULT:
            text = found.get("description", "")
            found["description"] = f"{text} Default: {said}.".strip()
    return found


def _parts(key: str, value: Any) -> Any:
    """What a keyword holds; under `properties` keys are names of fields."""
    if key in ("properties", "$defs", "patternProperties"):
        return {name: _plain(part) for name, part in value.items()}
    return _plain(value)
