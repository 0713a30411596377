"""Jobs: create, read, list, cancel, retry, delete."""

from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Header, Request, Response
from sqlalchemy.orm import Session

from api.dependencies import Caller, Db, JobsPaged, Parts
from api.json_bodies import JsonRoute
from api.listing import Listing
from api.schemas import Job, JobPage, JobRequest, JobState
from api.shown import UNCHANGED
from api.submission import Submission, check, fingerprint
from api.views import job_view
from store.queries import jobs

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=JsonRoute)


@router.post("", status_code=202)
async def create_job(
    body: JobRequest,
    response: Response,
    parts: Parts,
    caller: Caller,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            pattern=r"^[\x21-\x7e]+$",
            description="The same key with the same request gives the same job.",
        ),
    ] = None,
) -> Job:
    """Submit a job; follow it at its Location."""
    settings, owner = parts.settings, caller.project_id

    def read() -> Job | Submission:
        with parts.database.read() as session:
            earlier = idempotency_key and jobs.repeated(session, owner, idempotency_key, digest)
            return job_view(earlier) if earlier else check(session, owner, body)

    digest = fingerprint(body)
    checked = await anyio.to_thread.run_sync(read)
    if isinstance(checked, Job):
        return _located(checked, response)
    spec = checked.spec.model_dump(mode="json")

    def record(session: Session) -> Job:
        row, _created = jobs.create(
            session,
            owner,
            model_id=body.model,
            data=body.data.roles(),
            spec=spec,
            rewind_to=body.rewind_to,
            name=body.name or "",
            priority=body.priority,
            klass="gpu" if settings.device == "cuda" else "cpu",
            idempotency_key=idempotency_key,
            request_sha256=digest,
            queued_limit=settings.queued_jobs_limit,
        )
        return job_view(row)

    return _located(await parts.writer.write(record), response)


def _located(job: Job, response: Response) -> Job:
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job


@router.get("", response_model=JobPage)
def list_jobs(
    database: Db, caller: Caller, page: JobsPaged, state: JobState | None = None
) -> Response:
    """The project's jobs, newest first."""
    listing = Listing(job_view)
    with database.read() as session:
        found = jobs.list_page(
            session,
            caller.project_id,
            state=state,
            limit=page.limit,
            cursor=page.cursor,
            takes=listing.takes,
        )
    return listing.response(found.next_cursor)


@router.get("/{job_id}", response_model=Job, responses=UNCHANGED)
async def get_job(job_id: str, request: Request, parts: Parts, caller: Caller) -> Response:
    """One job, with its progress, its artifacts and, if it failed, why."""
    return await parts.shown.jobs.answer(request, caller.project_id, job_id)


@router.post("/{job_id}/cancel", status_code=202)
async def cancel_job(job_id: str, parts: Parts, caller: Caller) -> Job:
    """Ask a job to stop; it is `cancelled` once its process is gone."""
    owner = caller.project_id
    return await parts.writer.write(
        lambda session: job_view(jobs.request_cancel(session, owner, job_id))
    )


@router.post("/{job_id}/retry", status_code=202)
async def retry_job(job_id: str, response: Response, parts: Parts, caller: Caller) -> Job:
    """Submit the same work again as a new job."""
    owner, limit = caller.project_id, parts.settings.queued_jobs_limit
    job = await parts.writer.write(
        lambda session: job_view(jobs.retry(session, owner, job_id, queued_limit=limit))
    )
    return _located(job, response)


@router.delete("/{job_id}", status_code=204)
async def delete_job(job_id: str, parts: Parts, caller: Caller) -> None:
    """Delete a finished job with its events and artifacts."""
    await parts.writer.write(lambda session: jobs.delete(session, caller.project_id, job_id))
