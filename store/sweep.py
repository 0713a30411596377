"""Removal of blobs that nothing references any more."""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from store.blobs import Blobs
from store.db import Database
from store.tables import Artifact, Blob, Checkpoint, Dataset, Model, ModelFile

REFERRERS = (Model, ModelFile, Dataset, Artifact, Checkpoint)
BATCH = 500


@dataclass(frozen=True)
class Swept:
    """What a sweep removed."""

    rows: int
    files: int
    leftovers: int
    quarantined: int = 0


def sweep(
    database: Database,
    blobs: Blobs,
    older_than: datetime,
    *,
    quarantined_before: datetime | None = None,
) -> Swept:
    """Removes blobs without a reference, and what crashed writers left behind.

    Whoever stores bytes first writes the file, which renews its time also if it exists, and then
    the row. Everything touched since `older_than` is left alone, so the time between the two steps
    must stay below that grace. Damaged files that were set aside before
    `quarantined_before` go too. No transaction is open while files are listed or removed.
    """
    rows = _drop_rows(database, older_than)
    files = 0
    batch: list[str] = []
    for digest in blobs.digests(untouched_since=older_than):
        batch.append(digest)
        if len(batch) == BATCH:
            files += _drop_files(database, blobs, batch, older_than)
            batch = []
    files += _drop_files(database, blobs, batch, older_than)
    leftovers = blobs.drop_leftovers(untouched_since=older_than)
    aside = blobs.drop_quarantined(before=quarantined_before) if quarantined_before else 0
    return Swept(rows, files, leftovers, aside)


def _drop_rows(database: Database, older_than: datetime) -> int:
    referenced = [sa.exists().where(table.sha256 == Blob.sha256) for table in REFERRERS]
    with database.write() as session:
        gone = session.scalars(
            sa.delete(Blob)
            .where(Blob.touched_at < older_than, sa.not_(sa.or_(*referenced)))
            .returning(Blob.sha256)
            .execution_options(synchronize_session=False)
        ).all()
    return len(gone)


def _drop_files(database: Database, blobs: Blobs, digests: list[str], older_than: datetime) -> int:
    if not digests:
        return 0
    with database.read() as session:
        known = set(session.scalars(sa.select(Blob.sha256).where(Blob.sha256.in_(digests))))
    return sum(
        blobs.delete(digest, untouched_since=older_than)
        for digest in digests
        if digest not in known
    )
