"""The OpenAPI document: bearer security, the problem schema as every operation's default error."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.auth import OPEN_PATHS
from api.problems import MEDIA_TYPE
from api.schemas import Problem
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


def install(app: FastAPI) -> None:
    """Makes `app.openapi` return the completed document."""

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


def _complete(schema: dict[str, Any]) -> dict[str, Any]:
    components = schema.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs", {}))
    problem["properties"]["code"]["examples"] = sorted(CODES)
    schemas["Problem"] = problem
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, sct_..."}
    }
    schema["security"] = [{"bearer": []}]
    error = {
        "description": "The error as problem+json; `code` is stable.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = error
            if path in OPEN_PATHS:
                operation["security"] = []
    return schema
