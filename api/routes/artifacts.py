"""What a job leaves: its artifacts, and its report as JSON or HTML."""

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api.accept import prefers
from api.dependencies import Caller, Db, Parts, Service
from api.ranges import file_response
from api.schemas import Artifacts
from api.uploads import display_name
from api.views import artifact_view
from pruning.errors import SecateurError
from store.blobs import DamagedBlobError
from store.queries import artifacts, jobs
from store.queries.events import FINAL_STATES
from store.tables import Artifact

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["artifacts"])

_MEDIA_TYPES = {".json": "application/json", ".html": "text/html; charset=utf-8"}
_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_KINDS = {
    "application/octet-stream": _BYTES,
    "application/json": {"schema": {}},
    "text/html": {"schema": {"type": "string"}},
}
_FILE: dict[int | str, dict[str, Any]] = {
    200: {"content": _KINDS, "description": "The file."},
    206: {"content": _KINDS, "description": "The range asked for."},
    304: {"description": "The file has the ETag of If-None-Match."},
}


@router.get("/artifacts")
def list_artifacts(job_id: str, database: Db, caller: Caller) -> Artifacts:
    """Every output file with its size and digest; empty until the job has succeeded."""
    with database.read() as session:
        job = jobs.get(session, caller.project_id, job_id)
        return Artifacts(data=[artifact_view(row) for row in job.artifacts])


@router.get("/artifacts/{name:path}", response_class=Response, responses=_FILE)
def get_artifact(
    job_id: str, name: str, request: Request, parts: Parts, caller: Caller
) -> Response:
    """Download one file; Range, If-Range and If-None-Match work, the ETag is its SHA-256."""
    with parts.database.read() as session:
        row = artifacts.get(session, caller.project_id, job_id, name)
    return _serve(request, parts, row, attachment=True)


@router.get(
    "/report",
    response_class=Response,
    responses={
        200: {
            "content": {
                "application/json": {"schema": {"type": "object"}},
                "text/html": {"schema": {"type": "string"}},
            },
            "description": "The report: JSON, or HTML where Accept or `format` ask for it.",
        },
        304: _FILE[304],
    },
)
def get_report(
    job_id: str,
    request: Request,
    parts: Parts,
    caller: Caller,
    format: Annotated[Literal["json", "html"] | None, Query()] = None,
) -> Response:
    """The job's report; 409 `not_ready` until there is one."""
    if format is None:
        format = "html" if prefers(request, "text/html", over="application/json") else "json"
    with parts.database.read() as session:
        job = jobs.get(session, caller.project_id, job_id)
    name = f"report.{format}"
    row = next((artifact for artifact in job.artifacts if artifact.name == name), None)
    if row is None:
        over = job.state in FINAL_STATES
        raise SecateurError(
            "not_ready",
            f"The job {job.id} ended {job.state} and left no report."
            if over
            else f"The job {job.id} is {job.state}; its report comes with the end.",
            where="state",
            hint="The job's error says why." if over else "Follow the job's events until it ends.",
        )
    return _serve(request, parts, row, attachment=False)


def _serve(request: Request, parts: Service, row: Artifact, *, attachment: bool) -> Response:
    kind = _MEDIA_TYPES.get(PurePosixPath(row.name).suffix, "application/octet-stream")
    try:
        response = file_response(
            request,
            parts.blobs,
            sha256=row.sha256,
            size=row.bytes,
            modified=row.created_at,
            filename=display_name(row.name, "artifact"),
            media_type=kind,
            disposition="attachment" if attachment else "inline",
        )
    except DamagedBlobError as error:
        raise SecateurError(
            "file_damaged",
            f"The stored file {row.name} is damaged: {error.reason}.",
            where=row.name,
            hint=f"POST /v1/jobs/{row.job_id}/retry makes the job's files anew.",
        ) from error
    response.headers["vary"] = "Accept"
    if kind.startswith("text/html"):
        response.headers["content-security-policy"] = _PAGE_POLICY
    return response
