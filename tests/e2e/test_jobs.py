import asyncio
import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import psutil
import pytest

from pruning.events import PhaseEvent, StateEvent
from secateur import AsyncClient, Client, SecateurError
from secateur.resources import Dataset, Job, Model
from store.db import Database
from store.queries import keys
from store.settings import Settings
from tests.e2e.cases import MISFITS
from tests.e2e.conftest import Sent, Service
from tests.e2e.files import network, npz, samples

MAGNITUDE = {"criterion": {"kind": "magnitude"}, "target": {"sparsity": 0.5}}
ENDLESS: dict[str, Any] = MAGNITUDE | {
    "schedule": {"kind": "rounds", "rounds": 100},
    "recovery": {"kind": "fine_tune", "epochs": 1000},
}


@pytest.fixture(scope="module")
def job(client: Client, model: Model, dataset: Dataset) -> Job:
    """A job that succeeded."""
    done = client.wait(client.submit(model, dataset, {"target": {"sparsity": 0.5}}), timeout=90)
    assert done.state == "succeeded", done.error
    return done


def children(service: Service) -> list[psutil.Process]:
    return [p for p in service.descendants() if "worker.child" in " ".join(_command(p))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_a_job_ends_with_a_report_that_matches_its_files(
    client: Client, job: Job, tmp_path: Path
) -> None:
    report = client.report(job)
    written = {path.name: path for path in client.download(job, tmp_path)}
    assert set(written) == {a.name for a in job.artifacts}
    assert {"net.onnx", "report.json", "report.html"} <= set(written)
    assert report["sparsity"]["removed"] == 88
    for artifact in job.artifacts:
        assert hashlib.sha256(written[artifact.name].read_bytes()).hexdigest() == artifact.sha256
    session = onnxruntime.InferenceSession(written["net.onnx"])
    (logits,) = session.run(None, {"x": samples()["x"]})
    assert np.isfinite(logits).all()


def test_events_tell_the_whole_story_and_can_be_taken_up_anywhere(client: Client, job: Job) -> None:
    events = list(client.events(job))
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    states = [e.event.state for e in events if isinstance(e.event, StateEvent)]
    assert states == ["queued", "running", "succeeded"]
    assert any(isinstance(e.event, PhaseEvent) and e.event.phase == "scoring" for e in events)
    assert [e.seq for e in client.events(job, after=3)] == [e.seq for e in events[3:]]
    polled = list(client.events(job, follow=False))
    assert [e.seq for e in polled] == [e.seq for e in events]
    assert list(client.events(job, after=events[-1].seq)) == []


def test_an_artifact_can_be_read_in_ranges(service: Service, client: Client, job: Job) -> None:
    artifact = next(a for a in job.artifacts if a.name == "net.onnx")
    path = f"/v1/jobs/{job.id}/artifacts/{artifact.name}"
    with service.http() as http:
        whole = http.get(path)
        part = http.get(path, headers={"Range": "bytes=10-19"})
        assert whole.headers["etag"] == f'"{artifact.sha256}"'
        assert (part.status_code, part.content) == (206, whole.content[10:20])
        changed = http.get(path, headers={"Range": "bytes=10-19", "If-Range": '"other"'})
        assert (changed.status_code, changed.content) == (200, whole.content)
        beyond = http.get(path, headers={"Range": "bytes=99999999-"})
        assert (beyond.status_code, beyond.json()["code"]) == (416, "range_not_satisfiable")
        same = http.get(path, headers={"If-None-Match": whole.headers["etag"]})
        assert same.status_code == 304


def test_an_interrupted_download_is_taken_up_where_it_ended(
    client: Client, job: Job, tmp_path: Path
) -> None:
    artifact = next(a for a in job.artifacts if a.name == "report.html")
    whole = client.fetch(job, artifact, tmp_path / "whole").read_bytes()
    partial = tmp_path / "resumed" / f".{artifact.sha256[:16]}.part"
    partial.parent.mkdir()
    partial.write_bytes(whole[:1000])
    seen: list[int] = []
    path = client.fetch(
        job, artifact, partial.parent, progress=lambda done, _total: seen.append(done)
    )
    assert path.read_bytes() == whole
    assert seen[0] > 1000
    assert not partial.exists()


def test_a_submission_repeated_with_its_key_is_one_job(
    client: Client, model: Model, dataset: Dataset
) -> None:
    first = client.submit(model, dataset, MAGNITUDE, idempotency_key="the-same")
    again = client.submit(model, dataset, MAGNITUDE, idempotency_key="the-same")
    assert first.id == again.id
    with pytest.raises(SecateurError) as caught:
        client.submit(model, dataset, {"seed": 3}, idempotency_key="the-same")
    assert caught.value.code == "idempotency_mismatch"
    over = client.wait(first, timeout=60)
    with pytest.raises(SecateurError) as caught:
        client.cancel(over)
    assert caught.value.code == "conflict"
    retried = client.retry(over)
    assert retried.retry_of == first.id
    client.cancel(retried)


def test_cancelling_a_running_job_ends_its_process(
    service: Service, client: Client, model: Model, dataset: Dataset
) -> None:
    running = client.submit(model, dataset, ENDLESS)
    for event in client.events(running):
        if isinstance(event.event, PhaseEvent) and event.event.phase == "recovering":
            break
    # A child may have been started ahead for the next job; the one of this job must go.
    before = {p.pid for p in children(service)}
    assert before
    client.cancel(running)
    over = client.wait(running, timeout=30)
    assert over.state == "cancelled"
    assert over.artifacts == []
    deadline = time.monotonic() + 5
    while before <= {p.pid for p in children(service)} and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not before <= {p.pid for p in children(service)}
    assert client.cancel(running).state == "cancelled"


BAD_SPECS: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown field": ({"criterium": {}}, "spec_invalid", "spec.criterium"),
    "unknown kind": ({"criterion": {"kind": "magic"}}, "spec_invalid", "spec.criterion"),
    "impossible value": ({"target": {"sparsity": 1.5}}, "spec_invalid", "spec.target.sparsity"),
    "planned": ({"pattern": {"kind": "channel"}}, "not_available", "spec.pattern"),
    "nothing in scope": ({"scope": {"exclude": ["*"]}}, "scope_empty", "scope"),
}


@pytest.mark.parametrize("case", BAD_SPECS)
def test_a_bad_spec_is_refused_with_the_field(
    client: Client, model: Model, dataset: Dataset, case: str
) -> None:
    spec, code, where = BAD_SPECS[case]
    with pytest.raises(SecateurError) as caught:
        client.submit(model, dataset, spec)
    assert caught.value.code == code
    assert where in (caught.value.where or "")


@pytest.mark.parametrize("case", MISFITS)
def test_data_that_do_not_fit_the_model_are_refused(
    client: Client, model: Model, sent: Sent, case: str
) -> None:
    code = MISFITS[case][1]
    misfit = sent[case]
    assert isinstance(misfit, Dataset)
    misfit = client.wait_ready(misfit)
    with pytest.raises(SecateurError) as caught:
        client.submit(model, misfit)
    assert caught.value.code == code
    assert caught.value.hint


def test_a_plan_tells_what_a_job_would_remove(
    client: Client, model: Model, dataset: Dataset
) -> None:
    plan = client.plan(model, dataset, {"target": {"sparsity": 0.25}})
    assert (plan["weights_in_scope"], plan["remove"]) == (176, 44)


def test_unknown_and_foreign_ids_are_both_not_found(
    service: Service, client: Client, model: Model, dataset: Dataset, job: Job
) -> None:
    database = Database(Settings(data_dir=service.home / "data"))
    with database.write() as session:
        project = keys.create_project(session, "someone else")
        _, secret = keys.create_key(session, project.id, "theirs")
    database.dispose()
    with Client(service.url, secret) as stranger:
        assert list(stranger.jobs()) == []
        for ask in (
            lambda: stranger.model(model.id),
            lambda: stranger.dataset(dataset.id),
            lambda: stranger.job(job.id),
            lambda: list(stranger.events(job)),
            lambda: stranger.report(job),
            lambda: stranger.cancel(job),
            lambda: stranger.delete_job(job),
            lambda: client.job("job_00000000000000000000000000"),
            lambda: client.model("nonsense"),
        ):
            with pytest.raises(SecateurError) as caught:
                ask()
            assert caught.value.code == "not_found"
        with pytest.raises(SecateurError):
            stranger.submit(model, dataset)
    assert client.job(job.id).id == job.id


def test_the_asynchronous_client_does_the_same(service: Service) -> None:
    async def story() -> tuple[str, int, int]:
        async with AsyncClient(service.url, service.api_key) as client:
            uploads = await asyncio.gather(
                client.upload_model(network(), "async.onnx"),
                client.upload_dataset(npz(samples()), "async.npz"),
            )
            model, data = [await client.wait_ready(item) for item in uploads]
            job = await client.submit(model, data, MAGNITUDE)
            seen = [event.seq async for event in client.events(job)]
            job = await client.wait(job)
            report = await client.report(job)
            return job.state, len(seen), report["sparsity"]["removed"]

    state, seen, removed = asyncio.run(story())
    assert (state, removed) == ("succeeded", 88)
    assert seen > 5
