"""Digests that a request announces of its body, and codings that it may not have."""

import base64
import hashlib
import json
from pathlib import Path

import pytest

from store.claims import Outcome
from tests.api.conftest import Caller, assert_problem

DATA = b"some bytes of a file " * 9000


def digest(algorithm: str, data: bytes) -> str:
    found = hashlib.new(algorithm.replace("-", ""), data).digest()
    return f"{algorithm}=:{base64.b64encode(found).decode()}:"


@pytest.mark.parametrize("field", ["Content-Digest", "Repr-Digest"])
@pytest.mark.parametrize("algorithm", ["sha-256", "sha-512"])
def test_the_digest_of_an_upload_is_checked(caller: Caller, algorithm: str, field: str) -> None:
    blobs = Path(caller.service.settings.blob_dir)
    data = DATA + f"{field} {algorithm}".encode()
    before = sum(1 for file in blobs.rglob("*") if file.is_file())
    wrong = {field: digest(algorithm, data + b"!")}
    problem = assert_problem(
        caller.http.post("/v1/datasets", content=data, headers=wrong), 400, "digest_mismatch"
    )
    assert problem["where"] == field
    assert caller.http.get("/v1/datasets").json()["data"] == []
    assert sum(1 for file in blobs.rglob("*") if file.is_file()) == before
    right = {field: digest(algorithm, data)}
    assert caller.http.post("/v1/datasets", content=data, headers=right).status_code == 201


def test_the_digest_of_a_form_is_that_of_the_whole_form(caller: Caller) -> None:
    head = b'--cut\r\ncontent-disposition: form-data; name="file"\r\n\r\n'
    form = head + DATA + b"\r\n--cut--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=cut"}
    whole = headers | {"content-digest": digest("sha-256", form)}
    assert caller.http.post("/v1/models", content=form, headers=whole).status_code == 201
    file = headers | {"content-digest": digest("sha-256", DATA)}
    response = caller.http.post("/v1/models", content=form, headers=file)
    assert_problem(response, 400, "digest_mismatch")


def test_the_digest_of_a_json_body_is_checked(caller: Caller) -> None:
    body = json.dumps({"name": "ci"}).encode()
    headers = {"content-type": "application/json"}
    for algorithm in ("sha-256", "sha-512"):
        wrong = headers | {"content-digest": digest(algorithm, body + b" ")}
        response = caller.http.post("/v1/keys", content=body, headers=wrong)
        assert_problem(response, 400, "digest_mismatch")
        right = headers | {"content-digest": digest(algorithm, body)}
        assert caller.http.post("/v1/keys", content=body, headers=right).status_code == 201
    assert len(caller.http.get("/v1/keys").json()["data"]) == 3


def test_one_of_several_digests_that_is_wrong_is_enough(caller: Caller) -> None:
    pair = f"{digest('sha-256', DATA)}, {digest('sha-512', b'other')}"
    response = caller.http.post("/v1/models", content=DATA, headers={"content-digest": pair})
    assert_problem(response, 400, "digest_mismatch")
    fields = [("content-digest", digest("sha-256", DATA)), ("repr-digest", digest("sha-256", b""))]
    response = caller.http.post("/v1/models", content=DATA, headers=fields)
    assert assert_problem(response, 400, "digest_mismatch")["where"] == "Repr-Digest"


def test_algorithms_that_are_not_known_are_not_checked(caller: Caller) -> None:
    for unknown in ("md5=:AAAA:", "unixsum=:AAAA:;weight=1, sha-1024=:QUJD:", "sha-1=::"):
        headers = {"content-digest": unknown}
        assert caller.http.post("/v1/keys", json={}, headers=headers).status_code == 201
    mixed = {"content-digest": f"md5=:AAAA:, {digest('sha-256', b'{}')};q=1"}
    headers = mixed | {"content-type": "application/json"}
    assert caller.http.post("/v1/keys", content=b"{}", headers=headers).status_code == 201


@pytest.mark.parametrize(
    "text",
    [
        "sha-256",
        "sha-256=abc",
        "sha-256=:abc:",
        "sha-256=:" + "A" * 44 + ":",
        "sha-256=:not base64 at all:",
        "=:AAAA:",
        'sha-256=":AAAA:"',
        "sha-256=:AAAA: sha-512=:AAAA:",
        ("sha-256=:" + "A" * 43 + "=:," * 300),
        "x" * 5000,
    ],
)
def test_what_is_no_digest_is_refused_before_the_body(caller: Caller, text: str) -> None:
    for path in ("/v1/models", "/v1/keys"):
        response = caller.http.post(path, content=b"x", headers={"content-digest": text})
        problem = assert_problem(response, 422, "invalid_request")
        assert problem["where"] == "Content-Digest"


@pytest.mark.parametrize("path", ["/v1/models", "/v1/datasets", "/v1/jobs", "/v1/plans"])
def test_a_coding_is_refused_rather_than_stored(caller: Caller, path: str) -> None:
    for coding in ("gzip", "br", "identity, gzip"):
        response = caller.http.post(path, content=b"x", headers={"content-encoding": coding})
        assert_problem(response, 415, "unsupported_format")
    assert caller.http.get("/v1/models").json()["data"] == []


SAMPLES = [
    ["x"],
    ["x=64"],
    ["x=" + "9" * 200],
    ["x=0", "x=1"],
    ["y" * 300 + "=1"],
    [f"x{n}=0" for n in range(65)],
]


@pytest.mark.parametrize("given", SAMPLES, ids=range(len(SAMPLES)))
def test_wrong_samples_are_refused_in_a_form_as_in_the_query_and_nothing_is_stored(
    caller: Caller, given: list[str]
) -> None:
    blobs = Path(caller.service.settings.blob_dir)
    data = f"samples {len(given)} {given[0][:20]}".encode()
    stored = blobs.rglob(f"*{hashlib.sha256(data).hexdigest()}*")
    form = b"".join(
        b'--cut\r\ncontent-disposition: form-data; name="samples"\r\n\r\n%s\r\n' % each.encode()
        for each in given
    )
    form += b'--cut\r\ncontent-disposition: form-data; name="file"\r\n\r\n' + data
    headers = {"content-type": "multipart/form-data; boundary=cut"}
    posted = caller.http.post("/v1/models", content=form + b"\r\n--cut--\r\n", headers=headers)
    assert posted.status_code in (400, 422), posted.text
    assert posted.json()["where"] == "samples"
    asked = caller.http.post("/v1/models", content=data, params={"samples": given})
    assert asked.status_code == 422
    assert caller.http.get("/v1/models").json()["data"] == []
    assert not list(stored)


def test_samples_of_query_and_form_must_agree(caller: Caller) -> None:
    form = (
        b'--cut\r\ncontent-disposition: form-data; name="samples"\r\n\r\nx=1\r\n'
        b'--cut\r\ncontent-disposition: form-data; name="file"\r\n\r\ndata\r\n--cut--\r\n'
    )
    headers = {"content-type": "multipart/form-data; boundary=cut"}
    for asked, status in (("x=0", 422), ("x=1", 201)):
        response = caller.http.post(
            "/v1/models", content=form, headers=headers, params={"samples": asked}
        )
        assert response.status_code == status, response.text


def test_a_file_says_the_digest_of_the_whole_also_of_a_part(caller: Caller) -> None:
    job = caller.submit()["id"]
    claim = caller.service.claim_job(job)
    artifact = caller.service.artifact("model.onnx", "onnx", DATA)
    caller.service.finish(claim, Outcome("succeeded", artifacts=(artifact,)))
    path = f"/v1/jobs/{job}/artifacts/model.onnx"
    for method, head, status in (
        ("GET", {}, 200),
        ("GET", {"range": "bytes=5-9"}, 206),
        ("HEAD", {}, 200),
        ("HEAD", {"range": "bytes=5-9"}, 200),  # a range is asked of GET alone
        ("GET", {"if-none-match": "*"}, 304),
    ):
        response = caller.http.request(method, path, headers=head)
        assert response.status_code == status
        assert response.headers["repr-digest"] == digest("sha-256", DATA)
        if status == 200:
            assert response.headers["content-length"] == str(len(DATA))
