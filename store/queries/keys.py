"""Projects and their API keys."""

import base64
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from pruning.errors import SecateurError
from store.clock import utcnow
from store.ids import new_id
from store.lookups import Lookup, Lookups
from store.pages import Page, page
from store.tables import ApiKey, Project

SECRET_PREFIX = "sct_"
_OWNERS = Lookup(ApiKey.sha256, ApiKey.sha256, ApiKey.project_id, ApiKey.id)


@dataclass(frozen=True)
class Principal:
    """Who a request comes from."""

    project_id: str
    key_id: str


def create_project(session: Session, name: str, now: datetime | None = None) -> Project:
    """A new, empty project."""
    project = Project(id=new_id("project"), name=name, created_at=now or utcnow())
    session.add(project)
    session.flush()
    return project


def first_project(session: Session) -> Project | None:
    """The oldest project, if there is any."""
    return session.scalars(sa.select(Project).order_by(Project.id).limit(1)).first()


def project_named(session: Session, name: str) -> Project:
    """The oldest project of that name, made if there is none."""
    query = sa.select(Project).where(Project.name == name).order_by(Project.id).limit(1)
    return session.scalars(query).first() or create_project(session, name)


def create_key(
    session: Session,
    project_id: str,
    name: str,
    now: datetime | None = None,
    *,
    limit: int | None = None,
) -> tuple[ApiKey, str]:
    """A new key and its secret, which is shown this once: 256 random bits, stored as SHA-256.

    Args:
        session: A write transaction.
        project_id: Whose key it is.
        name: What it is for.
        now: The time of creation.
        limit: How many keys the project may have.

    Raises:
        SecateurError: `too_many_keys`.
    """
    if limit is not None:
        _refuse_too_many(session, project_id, limit)
    secret = SECRET_PREFIX + base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    key = ApiKey(
        id=new_id("key"),
        project_id=project_id,
        name=name,
        sha256=digest(secret),
        start=secret[:8],
        created_at=now or utcnow(),
    )
    session.add(key)
    session.flush()
    return key, secret


def _refuse_too_many(session: Session, project_id: str, limit: int) -> None:
    # The project's row is held until the commit: two requests beside each other would both count
    # the keys before either has added its own.
    session.execute(sa.select(Project.id).where(Project.id == project_id).with_for_update())
    count = session.scalar(
        sa.select(sa.func.count()).select_from(ApiKey).where(ApiKey.project_id == project_id)
    )
    if (count or 0) >= limit:
        raise SecateurError(
            "too_many_keys",
            f"The project has {count} keys, and may have {limit}.",
            hint="Delete keys that nobody uses: DELETE /v1/keys/{id}.",
            limit=limit,
        )


def authenticate(session: Session, secret: str) -> Principal | None:
    """Whose secret this is."""
    row = session.execute(
        sa.select(ApiKey.project_id, ApiKey.id).where(ApiKey.sha256 == digest(secret))
    ).first()
    return Principal(row.project_id, row.id) if row else None


def principals(lookups: Lookups, digests: Sequence[str]) -> dict[str, Principal]:
    """Whose secrets have these digests; those of nobody are left out."""
    found = lookups.rows(_OWNERS, digests)
    return {sha256: Principal(project_id, key_id) for sha256, project_id, key_id in found}


def digest(secret: str) -> str:
    """What is stored of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def list_page(
    session: Session, project_id: str, *, limit: int = 50, cursor: str | None = None
) -> Page[ApiKey]:
    """The project's keys, newest first."""
    query = sa.select(ApiKey).where(ApiKey.project_id == project_id)
    return page(session, query, ApiKey.id, limit=limit, cursor=cursor)


def delete(session: Session, project_id: str, key_id: str) -> None:
    """Ends a key at once.

    Raises:
        SecateurError: `not_found`.
    """
    gone = session.execute(
        sa.delete(ApiKey)
        .where(ApiKey.id == key_id, ApiKey.project_id == project_id)
        .returning(ApiKey.id)
    ).first()
    if gone is None:
        raise SecateurError("not_found", f"There is no key {key_id}.", where="key")
