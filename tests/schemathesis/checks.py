"""What this service promises beyond its document: every refusal is a complete problem."""

from typing import Any

import schemathesis
from schemathesis import Case, CheckContext, HookContext, Response

from pruning.errors import CODES

# Codes by which a request that fits the schema may be refused; 401 comes from checks without a key.
_ASKED_TOO_MUCH = {
    "conflict",
    "idempotency_mismatch",
    "in_use",
    "invalid_request",  # two axes said of one input
    "not_found",
    "not_ready",
    "overloaded",
    "range_not_satisfiable",
    "spec_conflict",
    "too_large",
    "too_many_jobs",
    "too_many_keys",
    "too_many_requests",
    "unauthenticated",
    "unsupported_format",
    "upload_empty",
    "database_busy",
    "model_rejected",
    "dataset_rejected",
}


@schemathesis.hook
def filter_body(context: HookContext, body: Any) -> bool:
    """Leaves out forms that break the schema by a type: what stands in a form is text or bytes."""
    if not isinstance(body, dict) or context.operation.path not in ("/v1/models", "/v1/datasets"):
        return True
    return isinstance(body.get("name", ""), str) and isinstance(body.get("file", b""), str | bytes)


@schemathesis.check
def refusals_are_problems(ctx: CheckContext, response: Response, case: Case) -> None:
    """Status, code, title and request id agree, and nothing of the inside is told."""
    if response.status_code < 400 or case.method == "HEAD":
        return
    kind = response.headers["content-type"][0]
    assert kind == "application/problem+json", f"a refusal is {kind}"
    problem = response.json()
    code = problem["code"]
    assert CODES[code] == (response.status_code, problem["title"]), problem
    assert problem["status"] == response.status_code
    assert problem["request_id"] == response.headers["x-request-id"][0]
    assert "Traceback" not in problem["detail"]
    if case.meta is not None and case.meta.generation.mode.is_positive:
        said = f"what fits the schema was refused with {code}: {problem}"
        assert code in _ASKED_TOO_MUCH or _of_shares(problem), said


def _of_shares(problem: dict[str, Any]) -> bool:
    """73.0 is an integer to JSON Schema; to a spec it is written as a share, and more than all."""
    entries = problem.get("errors", [])
    return problem["code"] == "spec_invalid" and any(
        "written as a share" in entry["message"] for entry in entries
    )


@schemathesis.check
def answers_are_protected(ctx: CheckContext, response: Response, case: Case) -> None:
    """No answer is guessed at or framed by a browser."""
    assert response.headers["x-content-type-options"] == ["nosniff"]
    assert response.headers["x-frame-options"] == ["DENY"]
    assert "frame-ancestors 'none'" in response.headers["content-security-policy"][0]
