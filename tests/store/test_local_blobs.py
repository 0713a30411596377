import hashlib
import multiprocessing
import os
import stat
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from store.blobs import DamagedBlobError, LocalBlobs, put, put_file

LATER = timedelta(hours=1)


@pytest.fixture
def blobs(tmp_path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs")


def files(blobs: LocalBlobs) -> set[str]:
    folder = blobs.path("0" * 64).parent.parent
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - {".lock"}


def now() -> datetime:
    return datetime.now(UTC)


def test_a_blob_is_found_by_the_digest_of_its_bytes(blobs) -> None:
    chunks = [os.urandom(70_000) for _ in range(3)]
    digest = hashlib.sha256(b"".join(chunks)).hexdigest()
    stored = put(blobs, chunks)
    assert (stored.sha256, stored.bytes) == (digest, 210_000)
    assert files(blobs) == {f"{digest[:2]}/{digest}"}
    assert blobs.exists(digest)
    with blobs.open(digest) as file:
        assert file.read() == b"".join(chunks)
        assert b"".join(file.part(70_000, 70_010)) == chunks[1][:10]
    assert stat.S_IMODE(blobs.path(digest).stat().st_mode) == 0o440


def test_nothing_is_a_blob_too(blobs) -> None:
    assert put(blobs, []).sha256 == hashlib.sha256(b"").hexdigest()


def test_a_file_is_copied(blobs, tmp_path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * (3 << 20))
    stored = put_file(blobs, path)
    path.write_bytes(b"changed")
    with blobs.open(stored.sha256) as file:
        assert file.read() == b"x" * (3 << 20)


def test_the_same_bytes_again_take_the_place_of_those_that_are_there(blobs) -> None:
    first = put(blobs, [b"same"])
    path = blobs.path(first.sha256)
    os.utime(path, (0, 0))
    before = path.stat()
    assert put(blobs, [b"sa", b"me"]) == first
    assert path.stat().st_ino != before.st_ino
    assert path.stat().st_mtime > 0
    assert len(files(blobs)) == 1


def test_an_aborted_blob_leaves_nothing(blobs) -> None:
    writer = blobs.writer()
    writer.write(b"half")
    assert writer.size == 4
    assert len(files(blobs)) == 1
    writer.abort()
    writer.abort()
    assert files(blobs) == set()
    with pytest.raises(ZeroDivisionError), blobs.writer() as writer:
        writer.write(bytes([1 // 0]))
    assert files(blobs) == set()


def test_abort_after_commit_keeps_the_blob(blobs) -> None:
    with blobs.writer() as writer:
        writer.write(b"whole")
        stored = writer.commit()
        writer.abort()
    assert blobs.exists(stored.sha256)


def test_bytes_are_not_readable_before_they_are_committed(blobs) -> None:
    digest = hashlib.sha256(b"slow").hexdigest()
    with blobs.writer() as writer:
        writer.write(b"slow")
        assert not blobs.exists(digest)
        with pytest.raises(DamagedBlobError, match="missing"):
            blobs.open(digest)
        writer.commit()
        assert blobs.exists(digest)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 64 + "\n"])
def test_what_is_no_digest_is_no_path(blobs, name) -> None:
    with pytest.raises(ValueError, match="digest"):
        blobs.path(name)


def test_what_a_killed_writer_leaves_is_dropped_later(blobs) -> None:
    def die_half_way() -> None:
        writer = blobs.writer()
        writer.write(b"x" * 100_000)
        os._exit(9)

    process = multiprocessing.get_context("fork").Process(target=die_half_way)
    process.start()
    process.join()
    assert process.exitcode == 9
    [left] = files(blobs)
    assert left.startswith("unfinished/")
    assert blobs.drop_leftovers(untouched_since=now() - LATER) == 0
    assert blobs.drop_leftovers(untouched_since=now() + LATER) == 1
    assert files(blobs) == set()


def test_only_what_nobody_stored_since_is_deleted(blobs) -> None:
    stored = put(blobs, [b"x"])
    assert not blobs.delete(stored.sha256, untouched_since=now() - LATER)
    assert list(blobs.digests(untouched_since=now() - LATER)) == []
    assert list(blobs.digests(untouched_since=now() + LATER)) == [stored.sha256]
    assert blobs.delete(stored.sha256, untouched_since=now() + LATER)
    assert not blobs.delete(stored.sha256, untouched_since=now() + LATER)
    assert not blobs.exists(stored.sha256)


def test_bytes_stored_while_they_are_deleted_are_there_afterwards(blobs) -> None:
    """Whoever gets `commit` back finds the blob, though another deletes what is old."""
    digest = put(blobs, [b"contested"]).sha256
    stop = threading.Event()

    def delete() -> None:
        while not stop.is_set():
            blobs.delete(digest, untouched_since=now() - LATER)

    thread = threading.Thread(target=delete)
    thread.start()
    try:
        for _ in range(200):
            with suppress(FileNotFoundError):
                os.utime(blobs.path(digest), (0, 0))
            put(blobs, [b"contested"])
            assert blobs.exists(digest)
    finally:
        stop.set()
        thread.join()
