"""Requests that are made to be work: each as large as the service takes them, or just larger."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from api.bodies import JSON_LIMIT
from api.json_extent import MOST_VALUES
from pruning.events import ProgressEvent
from pruning.facts import DatasetFacts, LayerFact, ModelFacts, TensorFact
from pruning.formats.facts_limits import MOST_LAYERS
from store import leases
from store.blobs import StoredBlob
from store.clock import utcnow
from store.db import Database
from store.queries import datasets, jobs, models

LAYERS = MOST_LAYERS
JSON = {"content-type": "application/json"}
FORM = {"content-type": "multipart/form-data; boundary=b"}
FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'


@dataclass(frozen=True)
class Kind:
    """One request."""

    name: str
    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True)
class Stored:
    """What `fill` left: ids of a large model, of data for it, and of a job."""

    model: str
    data: str
    job: str


def facts(layers: int) -> ModelFacts:
    """Facts of a model of so many layers with long names."""
    one = LayerFact(
        name="", kind="Linear", weight="", shape=[64, 64], parameters=4096, dtype="float32",
        positions=1, macs=4096, activation_bytes=256, is_output=False,
    )  # fmt: skip
    names = [f"encoder.layers.{'a' * 60}.{number}" for number in range(layers)]
    return ModelFacts(
        format="onnx",
        version="17",
        inputs=[TensorFact(name="x", dtype="float32", shape=["batch", 64])],
        outputs=[TensorFact(name="y", dtype="float32", shape=["batch", 64])],
        layers=[one.model_copy(update={"name": n, "weight": f"{n}.weight"}) for n in names],
        dtypes=["float32"],
        parameters=4096 * layers,
        prunable_parameters=4096 * layers,
        macs=4096 * layers,
        activation_bytes=256 * layers,
    )


def fill(database: Database, project: str, *, rows: int, layers: int) -> Stored:
    """Puts models, data and jobs into a project.

    Args:
        database: Of a service.
        project: Whose they are.
        rows: Models, and jobs.
        layers: Of each model but one, which has as many as there may be.
    """
    data_facts = DatasetFacts(
        format="npz",
        samples=100,
        arrays=[TensorFact(name="x", dtype="float32", shape=[100, 64])],
        bytes=25_600,
    ).model_dump(mode="json")
    small = facts(layers).model_dump(mode="json")
    with database.write() as session:
        row, _ = datasets.create(session, project, "d", StoredBlob("e" * 64, 1))
        row.state, row.facts, data = "ready", data_facts, row.id
        for number in range(rows + 1):
            last = number == rows
            model, _ = models.create(session, project, "m", StoredBlob(f"{number:064x}", 1))
            model.state = "ready"
            model.facts = facts(LAYERS).model_dump(mode="json") if last else small
    spec = {"scope": {"exclude": ["a" * 200] * 200}}
    with database.write() as session:
        for _ in range(rows):
            jobs.create(session, project, model_id=model.id, data={"calibration": data}, spec=spec)
    while True:
        with database.write() as session:
            claim = leases.claim(session, "cpu", "benchmark", utcnow(), lease_seconds=3600)
            assert claim is not None
            told = [
                ProgressEvent(phase="pruning", done=n, total=9e9, message="x" * 400)
                for n in range(200)
            ]
            for _ in range(10):
                leases.report(session, claim, told, utcnow())
        return Stored(model.id, data, claim.job_id)


def kinds(stored: Stored) -> Iterator[Kind]:
    """Every kind of request that may be work."""
    for path in ("/v1/jobs", "/v1/plans", "/v1/keys"):
        for name, body in _bodies():
            yield Kind(f"{name} to {path}", "POST", path, JSON, body)
    submission = {"model": stored.model, "data": {"calibration": stored.data}}
    patterns = [f"*a*a*a*a*b{number}" for number in range(200)]
    for name, spec in (("", {}), (" with patterns", {"scope": {"exclude": patterns}})):
        body = json.dumps(submission | {"spec": spec}).encode()
        yield Kind(f"plan of {LAYERS:,} layers{name}", "POST", "/v1/plans", JSON, body)
        yield Kind(f"job of {LAYERS:,} layers{name}", "POST", "/v1/jobs", JSON, body)
    yield from _forms()
    yield Kind("upload of 32 MiB", "POST", "/v1/models?name=x", {}, b"x" * (32 << 20))
    for place in ("models", "jobs", "datasets", "keys"):
        yield Kind(f"200 {place}", "GET", f"/v1/{place}?limit=200")
    yield Kind(f"model of {LAYERS:,} layers", "GET", f"/v1/models/{stored.model}")
    yield Kind("1,000 events", "GET", f"/v1/jobs/{stored.job}/events?limit=1000")
    for path in ("/openapi.json", "/docs", "/metrics", "/readyz", "/healthz", "/v1/criteria"):
        yield Kind(path, "GET", path)
    yield Kind("8,000 parameters", "GET", "/v1/keys?" + "&".join(["a"] * 8_000))
    yield Kind("1,500 samples", "POST", "/v1/models?" + "samples=a&" * 1_500, {}, b"x")
    yield Kind("encoded cursor", "GET", "/v1/keys?cursor=" + "%41" * 5_000)
    yield Kind("encoded path", "GET", "/v1/jobs/" + "%41" * 5_000)
    yield Kind("deep path", "GET", "/v1/" + "a/" * 8_000)
    report = f"/v1/jobs/{stored.job}/report"
    yield Kind("Accept of commas", "GET", report, {"accept": "a," * 30_000})
    yield Kind("Accept of parameters", "GET", report, {"accept": "a" + ";q=1" * 15_000})
    yield Kind("Range of ranges", "GET", report, {"range": "bytes=" + "0-1," * 15_000})
    yield Kind("If-None-Match of tags", "GET", report, {"if-none-match": '"a",' * 15_000})
    yield Kind("Content-Digest of digests", "POST", "/v1/models?name=x",
               {"content-digest": "a=:AAAA:," * 6_000}, b"x")  # fmt: skip


def _bodies() -> Iterator[tuple[str, bytes]]:
    for size in (MOST_VALUES - 8, JSON_LIMIT):
        scale = "few" if size < JSON_LIMIT else "many"
        for name, unit in (
            ("integers", "1"),
            ("long integers", "9" * 4_000),
            ("digits", "9" * 299),
            ("reals", "1e308"),
            ("long reals", "1." + "9" * 290 + "e1"),
            ("texts", '""'),
            ("objects", "{}"),
            ("lists within lists", "[" * 900 + "]" * 900),
        ):
            number = min(size // unit.count("[") if "[" in unit else size,
                         (JSON_LIMIT - 20) // (len(unit) + 1))  # fmt: skip
            yield f"{scale} {name}", f'{{"name":[{",".join([unit] * number)}]}}'.encode()
        number = min(size, 70_000)
        fields = ",".join(f'"k{n:06}":1' for n in range(number))
        yield f"{scale} unknown fields", f"{{{fields}}}".encode()
        yield f"{scale} data", f'{{"model":"m","data":{{{fields}}}}}'.encode()
        yield f"{scale} of a spec", f'{{"model":"m","data":{{}},"spec":{{{fields}}}}}'.encode()
    yield "one long text", b'{"name":"' + b"a" * (JSON_LIMIT - 20) + b'"}'
    yield "escapes", b'{"name":"' + b"\\u0041" * ((JSON_LIMIT - 20) // 6) + b'"}'
    yield "surrogates", b'{"name":"' + b"\\ud83d" * ((JSON_LIMIT - 20) // 6) + b'"}'
    yield "quotes", b'"' * JSON_LIMIT
    yield "backslashes", b'["' + b"\\" * (JSON_LIMIT - 20)
    yield "brackets", b"[" * JSON_LIMIT
    yield "spaces", b" " * JSON_LIMIT


def _forms() -> Iterator[Kind]:
    def form(name: str, body: bytes, headers: dict[str, str] = FORM) -> Kind:
        return Kind(f"form of {name}", "POST", "/v1/models?name=x", headers, body)

    yield form("empty lines", b"\r\n" * 500_000)
    yield form("carriage returns", FILE + b"\r" * 1_000_000)
    yield form("almost boundaries", FILE + b"\r\n--" * 250_000)
    long = {"content-type": f"multipart/form-data; boundary={'b' * 60}"}
    begin = FILE.replace(b"--b", b"--" + b"b" * 60)
    yield form("almost long boundaries", begin + (b"\r\n--" + b"b" * 59) * 16_000, long)
    yield form("files of a byte", (FILE + b"x\r\n") * 3_000)
    yield form(
        "samples", b'--b\r\nContent-Disposition: form-data; name="samples"\r\n\r\n\r\n' * 4_000
    )
    yield form("headers", b"--b\r\n" + b"a:b\r\n" * 200_000)
    yield form(
        "parameters", b"--b\r\nContent-Disposition: form-data; " + b'a="";' * 1_500 + b"\r\n\r\n"
    )
    many = {"content-type": "multipart/form-data; " + "a=b;" * 14_000}
    yield form("parameters of its type", b"x", many)
    yield form("a quoted type", b"x", {"content-type": 'multipart/form-data; a="' + "\\" * 55_000})
