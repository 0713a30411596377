"""Rows of stored blobs; internal, shared by all projects."""

from collections.abc import Iterable
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from store.blobs import StoredBlob
from store.tables import Blob
from store.upsert import insert


def record(session: Session, blobs: Iterable[StoredBlob], now: datetime) -> None:
    """Records blobs that the transaction is about to reference, or that they were stored again."""
    # In one order everywhere, so that two transactions can't wait for each other.
    for blob in sorted(set(blobs), key=lambda b: b.sha256):
        statement = insert(session, Blob).values(
            sha256=blob.sha256, bytes=blob.bytes, touched_at=now
        )
        session.execute(
            statement.on_conflict_do_update(index_elements=[Blob.sha256], set_={"touched_at": now})
        )


def after(session: Session, sha256: str, limit: int) -> list[tuple[str, int]]:
    """Digest and size of the blobs behind a digest, in their order."""
    found = session.execute(
        sa.select(Blob.sha256, Blob.bytes)
        .where(Blob.sha256 > sha256)
        .order_by(Blob.sha256)
        .limit(limit)
    )
    return [(row.sha256, row.bytes) for row in found]


def known(session: Session, sha256: str) -> bool:
    """Whether there is a row for the blob."""
    return session.get(Blob, sha256) is not None
