"""Files that changed under their digest are never handed out; they are set aside and healed."""

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from store.blobs import DamagedBlobError, LocalBlobs, StoredBlob, put
from store.blobs.chunk_digests import PART
from store.clock import utcnow

BIG = os.urandom(5 * PART + 777)


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs")


def overwrite(path: Path, content: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(content)


def flip(path: Path, at: int) -> None:
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 0x10]))


def truncate(path: Path) -> None:
    overwrite(path, path.read_bytes()[:-1])


def grow(path: Path) -> None:
    overwrite(path, path.read_bytes() + b"x")


def empty(path: Path) -> None:
    overwrite(path, b"")


DAMAGES: dict[str, Callable[[Path], None]] = {
    "first byte": lambda path: flip(path, 0),
    "last byte": lambda path: flip(path, path.stat().st_size - 1),
    "truncated": truncate,
    "cut at a chunk": lambda path: overwrite(path, path.read_bytes()[:-1][:PART]),
    "grown": grow,
    "empty": empty,
    "gone": Path.unlink,
}
WAYS: dict[str, Callable[[LocalBlobs, StoredBlob], object]] = {
    "copy": lambda blobs, blob: blobs.open(blob.sha256).read(),
    "part": lambda blobs, blob: list(blobs.open(blob.sha256).part()),
    "part of known size": lambda blobs, blob: list(blobs.open(blob.sha256, blob.bytes).part()),
    "check": lambda blobs, blob: list(blobs.open(blob.sha256).check()),
}


@pytest.mark.parametrize("content", [b"small", BIG], ids=["small", "big"])
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("way", WAYS)
def test_a_damaged_file_is_found_set_aside_and_healed_by_the_same_bytes(
    blobs: LocalBlobs, content: bytes, damage: str, way: str
) -> None:
    stored = put(blobs, [content])
    DAMAGES[damage](blobs.path(stored.sha256))
    with pytest.raises(DamagedBlobError) as found:
        WAYS[way](blobs, stored)
    assert found.value.code == "file_damaged"
    assert not blobs.exists(stored.sha256)
    assert [q.sha256 for q in blobs.quarantined()] == [stored.sha256] * (damage != "gone")
    with pytest.raises(DamagedBlobError, match="missing"):
        blobs.open(stored.sha256)

    assert put(blobs, [content]) == stored
    assert blobs.open(stored.sha256).read() == content
    assert b"".join(blobs.open(stored.sha256).part()) == content


@pytest.mark.parametrize("content", [b"small", BIG], ids=["small", "big"])
def test_storing_the_same_bytes_replaces_a_damaged_file_nobody_has_found(
    blobs: LocalBlobs, content: bytes
) -> None:
    stored = put(blobs, [content])
    flip(blobs.path(stored.sha256), 3)
    put(blobs, [content])
    assert blobs.open(stored.sha256).read() == content
    assert blobs.quarantined() == []


@pytest.mark.parametrize("chunk_digests", ["kept", "lost", "torn", "of another blob"])
def test_no_damaged_piece_is_handed_out_and_the_sound_ones_before_it_are(
    blobs: LocalBlobs, chunk_digests: str
) -> None:
    stored = put(blobs, [BIG])
    path = blobs.path(stored.sha256)
    beside = path.with_name(path.name + ".chunks")
    if chunk_digests == "lost":
        beside.unlink()
    elif chunk_digests == "torn":
        beside.write_bytes(beside.read_bytes()[:100])
    elif chunk_digests == "of another blob":
        other = blobs.path(put(blobs, [BIG[::-1]]).sha256)
        beside.write_bytes(other.with_name(other.name + ".chunks").read_bytes())
    flip(path, 3 * PART + 5)
    pieces = blobs.open(stored.sha256).part()
    handed_out: list[bytes] = []
    with pytest.raises(DamagedBlobError):
        handed_out.extend(pieces)
    # Without digests of chunks nothing is known before the whole file was read.
    assert b"".join(handed_out) == (BIG[: 3 * PART] if chunk_digests == "kept" else b"")


def test_a_sound_part_of_a_damaged_file_is_given_without_reading_the_rest(
    blobs: LocalBlobs,
) -> None:
    stored = put(blobs, [BIG])
    flip(blobs.path(stored.sha256), 4 * PART)
    with blobs.open(stored.sha256) as file:
        assert b"".join(file.part(PART - 3, 2 * PART + 3)) == BIG[PART - 3 : 2 * PART + 3]
    assert blobs.exists(stored.sha256)


@pytest.mark.parametrize("pieces", [1, 1000, PART, PART + 1, len(BIG)])
def test_digests_of_chunks_do_not_depend_on_how_the_bytes_came(
    blobs: LocalBlobs, pieces: int
) -> None:
    content = BIG[: 1 << 16] if pieces == 1 else BIG
    stored = put(blobs, [content[i : i + pieces] for i in range(0, len(content), pieces)])
    with blobs.open(stored.sha256, len(content)) as file:
        assert b"".join(file.part()) == content
    assert blobs.exists(stored.sha256)


def test_lost_digests_of_chunks_are_made_again_by_a_sound_file(blobs: LocalBlobs) -> None:
    stored = put(blobs, [BIG])
    path = blobs.path(stored.sha256)
    beside = path.with_name(path.name + ".chunks")
    content = beside.read_bytes()
    beside.unlink()
    assert b"".join(blobs.open(stored.sha256).part(7, 9)) == BIG[7:9]
    assert beside.read_bytes() == content


def test_a_file_that_is_sound_again_is_not_set_aside_for_what_a_reader_saw_before(
    blobs: LocalBlobs,
) -> None:
    stored = put(blobs, [b"bytes"])
    flip(blobs.path(stored.sha256), 0)
    with blobs.open(stored.sha256) as file:
        put(blobs, [b"bytes"])
        with pytest.raises(DamagedBlobError):
            file.read()
    assert blobs.open(stored.sha256).read() == b"bytes"
    assert blobs.quarantined() == []


def test_quarantined_files_are_kept_for_a_while_and_come_back_if_they_are_sound(
    blobs: LocalBlobs,
) -> None:
    stored = put(blobs, [b"bytes"])
    path = blobs.path(stored.sha256)
    flip(path, 0)
    with pytest.raises(DamagedBlobError):
        blobs.open(stored.sha256).read()
    (aside,) = blobs.quarantined()
    assert (aside.sha256, aside.bytes) == (stored.sha256, 5)
    assert blobs.restore_sound() == []
    flip(aside.path, 0)
    assert blobs.restore_sound() == [stored.sha256]
    assert blobs.open(stored.sha256).read() == b"bytes"

    flip(path, 0)
    with pytest.raises(DamagedBlobError):
        blobs.open(stored.sha256).read()
    assert blobs.drop_quarantined(before=utcnow() - timedelta(days=1)) == 0
    assert blobs.drop_quarantined(before=utcnow() + timedelta(seconds=1)) == 1
    assert blobs.quarantined() == []


def test_a_deleted_blob_takes_the_digests_of_its_chunks_along(blobs: LocalBlobs) -> None:
    stored = put(blobs, [BIG])
    assert blobs.delete(stored.sha256, untouched_since=utcnow() + timedelta(days=1))
    assert not list(blobs.path(stored.sha256).parent.iterdir())
