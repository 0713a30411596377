"""Output files of jobs."""

import sqlalchemy as sa
from sqlalchemy.orm import Session

from pruning.errors import SecateurError
from store.queries import jobs
from store.tables import Artifact


def list_all(session: Session, project_id: str, job_id: str) -> list[Artifact]:
    """The job's artifacts by name; none before it has ended.

    Raises:
        SecateurError: `not_found`.
    """
    return list(jobs.get(session, project_id, job_id).artifacts)


def get(session: Session, project_id: str, job_id: str, name: str) -> Artifact:
    """One artifact.

    Raises:
        SecateurError: `not_found`.
    """
    found = session.scalars(
        sa.select(Artifact).where(
            Artifact.project_id == project_id, Artifact.job_id == job_id, Artifact.name == name
        )
    ).first()
    if found is None:
        raise SecateurError(
            "not_found",
            f"Job {job_id} has no artifact {name!r}.",
            where="artifact",
            hint=f"GET /v1/jobs/{job_id}/artifacts lists what there is.",
        )
    return found
