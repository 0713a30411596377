"""What models and datasets have in common: intake, reading, deletion."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from pruning.errors import SecateurError
from store import states
from store.blobs import StoredBlob
from store.clock import utcnow
from store.ids import new_id
from store.lookups import Lookup
from store.pages import Page, Takes, page
from store.queries import blobs
from store.tables import Dataset, Job, JobInput, Model, ModelFile

Row = TypeVar("Row", Model, Dataset)
_NAMED = 10  # at most so many jobs are named when an upload can't be deleted


@dataclass(frozen=True)
class UploadedFile:
    """One of several files of an upload, under its own name."""

    path: str
    blob: StoredBlob


class Uploads(Generic[Row]):
    """The queries of one kind of upload.

    Args:
        table: Its table.
        kind: `model` or `dataset`: the prefix of ids, codes and messages.
    """

    def __init__(self, table: type[Row], kind: str) -> None:
        self._table: type[Row] = table
        self._kind = kind
        self._check = f"check_{kind}"
        self.versions = Lookup(
            table.id, *(table.project_id, table.id, table.state, table.updated_at)
        )
        """Project, id, and what differs whenever an upload is shown otherwise."""

    def create(
        self,
        session: Session,
        project_id: str,
        name: str,
        blob: StoredBlob,
        now: datetime | None = None,
        *,
        files: Sequence[UploadedFile] = (),
        spec: dict[str, Any] | None = None,
    ) -> tuple[Row, bool]:
        """Records an upload as `checking` and queues its check.

        Of several `files`, `blob` is their canonical list. `spec` is what the check is told.

        Bytes that the project already has under this name, and that were not rejected, are not
        recorded again. Under another name they are an upload of their own, which shares the blob:
        results are called after the name.

        Returns:
            The row, and whether it is new.

        Raises:
            SecateurError: `conflict` where the bytes are here under this name with another `spec`.
        """
        at = now or utcnow()
        blobs.record(session, [blob, *(file.blob for file in files)], at)
        existing = self._same(session, project_id, name, blob)
        if existing is not None:
            self._refuse_other(session, existing, spec)
            return existing, False
        row = self._table(
            id=new_id(self._kind),
            project_id=project_id,
            name=name,
            sha256=blob.sha256,
            bytes=sum(file.blob.bytes for file in files) if files else blob.bytes,
            state="checking",
            created_at=at,
            updated_at=at,
        )
        try:
            with session.begin_nested():
                session.add(row)
                session.flush()
                for file in files:
                    part = ModelFile(
                        model_id=row.id,
                        path=file.path,
                        project_id=project_id,
                        sha256=file.blob.sha256,
                        bytes=file.blob.bytes,
                    )
                    session.add(part)
        except IntegrityError:
            # Somebody else has just recorded the same file.
            existing = self._same(session, project_id, name, blob)
            if existing is None:
                raise
            self._refuse_other(session, existing, spec)
            return existing, False
        check = Job(
            id=new_id("job"),
            project_id=project_id,
            kind=self._check,
            klass="check",
            name=name,
            subject_id=row.id,
            spec=spec or {},
        )
        states.begin(session, check, at, size=row.bytes)
        return row, True

    def get(
        self, session: Session, project_id: str, row_id: str, *, where: str | None = None
    ) -> Row:
        """One upload.

        Raises:
            SecateurError: `not_found`.
        """
        row = session.scalars(self._owned(project_id, row_id)).first()
        return self._found(row, row_id, where)

    def of_ids(self, session: Session, ids: Sequence[str]) -> list[Row]:
        """The uploads with these ids, whoever owns them."""
        return list(session.scalars(sa.select(self._table).where(self._table.id.in_(ids))))

    def not_found(self, row_id: str, where: str | None = None) -> SecateurError:
        """The error for an id that is nobody's or somebody else's."""
        return SecateurError(
            "not_found", f"There is no {self._kind} {row_id}.", where=where or self._kind
        )

    def usable(
        self,
        session: Session,
        project_id: str,
        row_id: str,
        *,
        where: str | None = None,
        lock: bool = False,
    ) -> Row:
        """One upload that passed its check; `lock` keeps it from being deleted meanwhile.

        Raises:
            SecateurError: `not_found`, `not_ready`, `model_rejected` or `dataset_rejected`.
        """
        query = self._owned(project_id, row_id)
        if lock:
            query = query.with_for_update(read=True)
        query = query.execution_options(populate_existing=True)
        row = self._found(session.scalars(query).first(), row_id, where)
        if row.state == "checking":
            raise SecateurError(
                "not_ready",
                f"{self._kind.capitalize()} {row_id} is still being checked.",
                where=where or self._kind,
                hint=f"Wait until GET /v1/{self._kind}s/{row_id} says ready.",
            )
        if row.state == "rejected":
            why = (row.error or {}).get("message", "No reason was recorded.")
            raise SecateurError(
                f"{self._kind}_rejected",
                f"{self._kind.capitalize()} {row_id} was rejected at intake: {why}",
                where=where or self._kind,
                hint="Correct the file and upload it again.",
                reason=row.error,
            )
        return row

    def list_page(
        self,
        session: Session,
        project_id: str,
        *,
        state: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
        takes: Takes[Row] | None = None,
    ) -> Page[Row]:
        """The project's uploads, newest first."""
        query = sa.select(self._table).where(self._table.project_id == project_id)
        if state is not None:
            query = query.where(self._table.state == state)
        return page(session, query, self._table.id, limit=limit, cursor=cursor, takes=takes)

    def delete(
        self, session: Session, project_id: str, row_id: str, now: datetime | None = None
    ) -> None:
        """Removes an upload; a check that runs is told to end.

        Raises:
            SecateurError: `not_found`, or `in_use` while a job, also one that is over, refers to
                it: a retry of that job would need it.
        """
        # Checks before uploads, in the order in which the end of a check locks them.
        checks = session.scalars(
            sa.select(Job)
            .where(Job.subject_id == row_id, Job.project_id == project_id, Job.kind == self._check)
            .with_for_update(of=Job)
            .execution_options(populate_existing=True)
        ).all()
        row = self._found(
            session.scalars(self._owned(project_id, row_id).with_for_update()).first(), row_id, None
        )
        self._refuse_used(session, row_id)
        for check in checks:
            if check.state == "running":
                check.cancel_requested = True
                check.updated_at = now or utcnow()
            else:
                session.delete(check)
        session.delete(row)
        session.flush()

    def _refuse_other(self, session: Session, row: Row, spec: dict[str, Any] | None) -> None:
        """Refuses to answer with an upload that was checked as something else than is said now."""
        check = sa.select(Job.spec).where(Job.subject_id == row.id, Job.kind == self._check)
        if not spec or spec == session.scalars(check.order_by(Job.id.desc())).first():
            return
        raise SecateurError(
            "conflict",
            f"{self._kind.capitalize()} {row.id} has the same bytes and name, and was uploaded "
            "without this declaration of its inputs.",
            where=self._kind,
            hint="Upload it under another name, or declare the axes in the spec of each job.",
        )

    def _refuse_used(self, session: Session, row_id: str) -> None:
        query = sa.select(Job.id).where(Job.kind == "prune")
        if self._table is Model:
            query = query.where(sa.or_(Job.model_id == row_id, Job.rewind_to == row_id))
        else:
            inputs = sa.select(JobInput.job_id).where(JobInput.dataset_id == row_id)
            query = query.where(Job.id.in_(inputs))
        count = session.scalar(sa.select(sa.func.count()).select_from(query.subquery())) or 0
        if count == 0:
            return
        named = list(session.scalars(query.order_by(Job.id.desc()).limit(_NAMED)))
        shown = ", ".join(named) + (", ..." if count > len(named) else "")
        raise SecateurError(
            "in_use",
            f"{count} {'job refers' if count == 1 else 'jobs refer'} to {self._kind} {row_id}: "
            f"{shown}.",
            where=self._kind,
            hint=f"Delete {'that job' if count == 1 else 'those jobs'} first "
            "(DELETE /v1/jobs/{id}, after a cancel if it has not ended): a retry of a job that is "
            "over needs its inputs.",
            jobs=count,
        )

    def _owned(self, project_id: str, row_id: str) -> sa.Select[Row]:
        return sa.select(self._table).where(
            self._table.id == row_id, self._table.project_id == project_id
        )

    def _found(self, row: Row | None, row_id: str, where: str | None) -> Row:
        if row is None:
            raise self.not_found(row_id, where)
        return row

    def _same(self, session: Session, project_id: str, name: str, blob: StoredBlob) -> Row | None:
        return session.scalars(
            sa.select(self._table).where(
                self._table.project_id == project_id,
                self._table.sha256 == blob.sha256,
                self._table.name == name,
                self._table.state != "rejected",
            )
        ).first()
