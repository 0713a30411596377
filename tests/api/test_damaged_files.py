"""Not one byte of a damaged file is sent as a sound one, in whatever way it is asked for."""

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

import secateur
from store.blobs import put
from store.blobs.chunk_digests import PART
from store.claims import Outcome
from tests.api.conftest import Caller, assert_problem

NAME = "big.onnx"
SIZE = 5 * PART + 100


@dataclass
class Job:
    caller: Caller
    url: str
    content: bytes

    @property
    def path(self) -> Path:
        return self.stored(self.content)

    def stored(self, content: bytes) -> Path:
        return self.caller.service.blobs.path(hashlib.sha256(content).hexdigest())

    def get(self, method: str = "GET", path: str = f"/artifacts/{NAME}", **headers: str):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.caller.http.request(method, self.url + path, headers=named)


@pytest.fixture
def job(caller: Caller) -> Job:
    """A finished job; what each test finds is its own."""
    found = caller.submit()
    claim, service, content = (
        caller.service.claim_job(found["id"]),
        caller.service,
        os.urandom(SIZE),
    )
    mark = content[:8].hex()
    artifacts = (
        service.artifact(NAME, "onnx", content),
        service.artifact("report.json", "report", f'{{"mark": "{mark}"}}'.encode()),
        service.artifact("report.html", "html", f"<title>{mark}</title>".encode()),
    )
    service.finish(claim, Outcome("succeeded", artifacts=artifacts, summary={}))
    return Job(caller, f"/v1/jobs/{found['id']}", content)


def overwrite(path: Path, content: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(content)


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    overwrite(path, bytes(content))


AT_ONCE: dict[str, Callable[[Path], None]] = {
    "a bit of the first bytes": lambda path: flip(path, 7),
    "truncated": lambda path: overwrite(path, path.read_bytes()[:-1]),
    "grown": lambda path: overwrite(path, path.read_bytes() + b"\0"),
    "gone": Path.unlink,
}


@pytest.mark.parametrize("damage", AT_ONCE.values(), ids=AT_ONCE)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_damaged_file_is_a_problem_until_its_bytes_are_stored_again(
    job: Job, method: str, damage: Callable[[Path], None]
) -> None:
    damage(job.path)
    for _ in range(2):  # the second time it is in quarantine
        response = job.get(method)
        assert response.status_code == 500
        assert "etag" not in response.headers
        assert "x-content-sha256" not in response.headers
    problem = assert_problem(job.get(), 500, "file_damaged")
    assert problem["where"] == NAME
    assert job.url in problem["hint"]
    put(job.caller.service.blobs, [job.content])
    assert job.get().content == job.content


@pytest.mark.parametrize("asked", [f"bytes={SIZE - 1}-", "bytes=-1", f"bytes={SIZE}-"])
def test_a_range_of_a_truncated_file_is_no_range_of_what_is_left(job: Job, asked: str) -> None:
    overwrite(job.path, job.content[: 2 * PART])
    response = job.get(range=asked)
    outside = asked == f"bytes={SIZE}-"
    assert response.status_code == (416 if outside else 500)


def test_a_download_is_cut_before_the_first_damaged_piece(job: Job) -> None:
    flip(job.path, 3 * PART + 1)
    got: list[bytes] = []
    with job.caller.http.stream("GET", f"{job.url}/artifacts/{NAME}") as response:
        assert int(response.headers["content-length"]) == SIZE
        with pytest.raises(httpx.RemoteProtocolError):  # fewer bytes than announced
            got.extend(response.iter_raw())
    assert b"".join(got) == job.content[: 3 * PART]
    assert_problem(job.get(), 500, "file_damaged")


def test_sound_ranges_of_a_damaged_file_are_served_and_damaged_ones_are_not(job: Job) -> None:
    flip(job.path, 3 * PART)
    assert job.get(range="bytes=10-600000").content == job.content[10:600001]
    assert job.get(range=f"bytes={4 * PART}-").content == job.content[4 * PART :]
    assert_problem(job.get(range=f"bytes={3 * PART + 50}-{3 * PART + 60}"), 500, "file_damaged")


@pytest.mark.parametrize("name", ["report.json", "report.html"])
def test_a_damaged_report_is_a_problem_at_every_address(job: Job, name: str) -> None:
    whole = job.get(path=f"/artifacts/{name}").content
    flip(job.stored(whole), 2)
    kind = name.removeprefix("report.")
    for path in (f"/report?format={kind}", f"/artifacts/{name}"):
        assert_problem(job.get(path=path), 500, "file_damaged")


def test_the_client_says_that_a_file_is_damaged_and_leaves_nothing_in_its_place(
    job: Job, tmp_path: Path
) -> None:
    flip(job.path, 3 * PART + 1)
    with secateur.Client(job.caller.service.url, job.caller.secret) as client:
        with pytest.raises(secateur.SecateurError) as refused:
            client.download(job.url.rsplit("/", 1)[1], tmp_path)
        assert refused.value.code == "file_damaged"
        assert not (tmp_path / NAME).exists()
        put(job.caller.service.blobs, [job.content])
        client.download(job.url.rsplit("/", 1)[1], tmp_path)
    assert (tmp_path / NAME).read_bytes() == job.content


def test_quarantined_files_are_counted(job: Job) -> None:
    def count() -> int:
        text = job.caller.http.get("/metrics").text
        found = re.search(r"^secateur_quarantined_files (\S+)$", text, re.MULTILINE)
        assert found is not None
        return int(float(found[1]))

    before = count()
    flip(job.path, 0)
    job.get()
    assert count() == before + 1
