import os
from datetime import UTC, datetime, timedelta

import pytest

from store import leases
from store.blobs import LocalBlobs, put
from store.claims import NewArtifact
from store.queries import blobs as blob_rows
from store.queries import datasets, jobs, models
from store.sweep import sweep
from store.tables import Blob

GRACE = timedelta(hours=1)


@pytest.fixture
def blobs(tmp_path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs")


def age(blobs: LocalBlobs, digest: str, when: datetime) -> None:
    microseconds = (when - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    os.utime(blobs.path(digest), ns=(microseconds * 1_000,) * 2)


def test_blobs_go_when_nothing_references_them(world, blobs) -> None:
    contents = ["net", "data", "pruned", "round-0"]
    digests = {c: put(blobs, [c.encode()]).sha256 for c in contents}
    orphan = put(blobs, [b"a process died before it wrote the row"]).sha256
    for digest in [*digests.values(), orphan]:
        age(blobs, digest, world.at(0))

    def kept() -> set[str]:
        swept = sweep(world.database, blobs, world.at(0) + GRACE)
        left = set(blobs.digests(untouched_since=datetime.now(UTC) + timedelta(days=9999)))
        rows = {b.sha256 for b in world.rows(Blob)}
        assert rows == left
        assert swept.rows <= swept.files
        return {c for c, d in digests.items() if d in left}

    job_id = world.submit()
    claim = world.claimed()
    with world.database.write() as session:
        saved = {"round-0": world.blob("round-0")}
        leases.report(session, claim, [], world.at(0), checkpoints=saved)
        blob_rows.record(session, [world.blob("pruned")], world.at(9999))
    # Not referenced yet, but touched within the grace.
    assert kept() == {"net", "data", "round-0", "pruned"}
    world.finish(claim, artifacts=(NewArtifact("a", "onnx", world.blob("pruned")),), at=0)
    assert kept() == {"net", "data", "pruned"}
    with world.database.write() as session:
        jobs.delete(session, world.project, job_id)
    assert kept() == {"net", "data"}
    with world.database.write() as session:
        models.delete(session, world.project, world.model)
    assert kept() == {"data"}
    with world.database.write() as session:
        datasets.delete(session, world.project, world.data["calibration"])
    assert kept() == set()


def test_bytes_that_come_back_during_the_grace_are_kept(world, blobs) -> None:
    """The file is written again before its row: in between only its time speaks for it."""
    older_than = world.at(100)
    digest = put(blobs, [b"again"]).sha256
    with world.database.write() as session:
        blob_rows.record(session, [world.blob("again")], world.at(0))
    again = put(blobs, [b"again"])
    age(blobs, digest, older_than)
    swept = sweep(world.database, blobs, older_than)
    assert (swept.rows, swept.files) == (1, 0)
    with world.database.write() as session:
        models.create(session, world.project, "m", again, older_than)
    assert sweep(world.database, blobs, older_than + GRACE).files == 0
    assert blobs.exists(digest)
