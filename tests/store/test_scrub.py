"""The scrub finds what is damaged or missing, goes on where it stopped, and takes its time."""

import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from store import scrub as command
from store.blobs import LocalBlobs, put
from store.blobs.chunk_digests import PART
from store.queries import blobs as blob_rows
from store.scrub import Progress, Scrub

FILES = [bytes([i]) * (PART + 10) for i in range(4)]


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs")


@pytest.fixture
def stored(empty, blobs: LocalBlobs) -> list[str]:
    """Digests of the files, in the order in which the scrub reads them."""
    made = [put(blobs, [content]) for content in FILES]
    with empty.database.write() as session:
        blob_rows.record(session, made, datetime.now(UTC))
    return sorted(blob.sha256 for blob in made)


def damage(blobs: LocalBlobs, sha256: str) -> None:
    path = blobs.path(sha256)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def never(_seconds: float) -> bool:
    return False


def test_a_pass_sets_damaged_files_aside_and_counts_missing_ones(empty, blobs, stored) -> None:
    damage(blobs, stored[1])
    blobs.path(stored[2]).unlink()
    put(blobs, [b"without a row: a write that is under way, or a leftover"])
    progress = Progress()
    assert Scrub(empty.database, blobs, None, never).go_on(progress)
    assert progress.files == {"sound": 2, "damaged": 1, "missing": 1}
    assert [found.sha256 for found in blobs.quarantined()] == [stored[1]]
    assert [blobs.exists(digest) for digest in stored] == [True, False, False, True]

    # Healed by the next upload of the same bytes.
    for content in FILES:
        put(blobs, [content])
    assert Scrub(empty.database, blobs, None, never).go_on(progress)
    assert progress.files == {"sound": 6, "damaged": 1, "missing": 1}


def test_digests_of_chunks_that_are_lost_are_made_again(empty, blobs, stored) -> None:
    besides = [blobs.path(d).with_name(f"{d}.chunks") for d in stored]
    contents = [path.read_bytes() for path in besides]
    besides[0].unlink()
    besides[1].write_bytes(b"torn")
    Scrub(empty.database, blobs, None, never).go_on(Progress())
    assert [path.read_bytes() for path in besides] == contents


def test_a_pass_that_was_stopped_goes_on_where_it_was(empty, blobs, stored, tmp_path) -> None:
    looks = iter([False, False, False, False, True])  # two pieces a file
    progress = Progress()
    assert not Scrub(empty.database, blobs, None, lambda _: next(looks)).go_on(progress)
    assert progress.passed == stored[1]
    progress.write(tmp_path / "progress.json")
    again = Progress.read(tmp_path / "progress.json")
    assert again == progress
    assert again.due(datetime.now(UTC), 7)
    assert Scrub(empty.database, blobs, None, never).go_on(again)
    assert again.files["sound"] == len(FILES)
    assert not again.due(datetime.now(UTC), 7)
    assert again.due(datetime.now(UTC) + timedelta(days=7), 7)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"files": 3, "other": 1}'])
def test_progress_that_can_not_be_read_begins_anew(tmp_path, content) -> None:
    (tmp_path / "progress.json").write_text(content)
    assert Progress.read(tmp_path / "progress.json") == Progress()


def test_a_pass_reads_no_faster_than_it_may(empty, blobs, stored) -> None:
    total = sum(map(len, FILES))
    started = time.monotonic()
    Scrub(empty.database, blobs, 2 * total, lambda s: time.sleep(s) or False).go_on(Progress())
    assert time.monotonic() - started > 0.35


def test_the_command_says_what_it_found(migrated_sqlite, capsys, monkeypatch, tmp_path) -> None:
    for part in migrated_sqlite.parent.glob(f"{migrated_sqlite.name}*"):
        shutil.copy(part, tmp_path)
    monkeypatch.setenv("SECATEUR_DATA_DIR", str(tmp_path))
    command.get_settings.cache_clear()
    try:
        settings = command.get_settings()
        blobs = LocalBlobs(settings.blob_dir)
        made = put(blobs, [b"bytes"])
        database = command.Database(settings)
        with database.write() as session:
            blob_rows.record(session, [made], datetime.now(UTC))
        assert command.main([]) == 0
        damage(blobs, made.sha256)
        assert command.main([]) == 1
        assert command.main([]) == 1
    finally:
        command.get_settings.cache_clear()
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "1 files: 1 sound, 0 damaged, 0 missing",
        "1 files: 0 sound, 1 damaged, 0 missing",
        "1 files: 0 sound, 0 damaged, 1 missing",
    ]
