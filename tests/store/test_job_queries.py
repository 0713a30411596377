import threading
from datetime import timedelta

import pytest

from pruning.errors import SecateurError
from store import outbox
from store.claims import NewArtifact
from store.queries import artifacts, datasets, events, jobs, models
from store.tables import Artifact, Attempt, Job, JobEvent, JobInput, Outbox


def refused(world, query, *args, **rest) -> SecateurError:
    with pytest.raises(SecateurError) as error, world.database.write() as session:
        query(session, *args, **rest)
    return error.value


def test_a_new_job_is_queued_with_its_doorbell(world) -> None:
    before = len(world.rows(Outbox))
    with world.database.write() as session:
        job, created = jobs.create(
            session, world.project, model_id=world.model, data=world.data, spec={}, priority=3
        )
    assert created
    # What the session loaded stays readable after it closed.
    assert (job.state, job.data, job.artifacts) == ("queued", world.data, [])
    bells = world.rows(Outbox)[before:]
    assert [b.payload for b in bells] == [{"klass": "cpu", "job_id": job.id}]


def test_a_job_that_is_not_committed_never_rings(world) -> None:
    before = len(world.rows(Outbox))
    with world.database.write() as session:
        jobs.create(session, world.project, model_id=world.model, data=world.data, spec={})
        session.rollback()
    assert len(world.rows(Outbox)) == before


def test_inputs_must_exist_be_ones_own_and_be_ready(world) -> None:
    stranger = world.stranger()
    with world.database.write() as session:
        theirs, _ = models.create(session, stranger, "m", world.blob("m"), world.at(0))
        fresh, _ = models.create(session, world.project, "f", world.blob("f"), world.at(1))
        empty, _ = datasets.create(session, world.project, "e", world.blob("e"), world.at(2))
    values = {"model_id": world.model, "data": world.data, "spec": {}}
    cases = [
        ({"model_id": "mdl_nothing"}, "not_found", "model"),
        ({"model_id": theirs.id}, "not_found", "model"),
        ({"model_id": world.data["calibration"]}, "not_found", "model"),
        ({"model_id": fresh.id}, "not_ready", "model"),
        ({"data": {"calibration": "ds_nothing"}}, "not_found", "data.calibration"),
        ({"data": {**world.data, "training": empty.id}}, "not_ready", "data.training"),
    ]
    for change, code, where in cases:
        error = refused(world, jobs.create, world.project, **values | change)
        assert (error.code, error.where) == (code, where)
    for state in ("succeeded", "failed", "failed"):
        world.finish(world.claimed("check"), state)
    error = refused(world, jobs.create, world.project, **values | {"model_id": fresh.id})
    assert (error.code, error.details["reason"]["code"]) == ("model_rejected", "stalled")
    change = {"data": {"calibration": empty.id}}
    error = refused(world, jobs.create, world.project, **values | change)
    assert (error.code, error.where) == ("dataset_rejected", "data.calibration")
    assert world.rows(Job, kind="prune") == []


def test_an_idempotency_key_gives_one_job(world) -> None:
    values = {"model_id": world.model, "data": world.data, "spec": {}, "idempotency_key": "k"}
    with world.database.write() as session:
        first, created = jobs.create(session, world.project, **values, request_sha256="a")
    with world.database.write() as session:
        again, repeated = jobs.create(session, world.project, **values, request_sha256="a")
    assert (created, repeated, again.id) == (True, False, first.id)
    error = refused(world, jobs.create, world.project, **values, request_sha256="b")
    assert error.code == "idempotency_mismatch"
    # The key of another project is another key.
    assert refused(world, jobs.create, world.stranger(), **values).code == "not_found"


def test_a_repeated_request_finds_its_job_though_it_is_over(world) -> None:
    values = {"model_id": world.model, "data": world.data, "spec": {}, "idempotency_key": "k"}
    with world.database.write() as session:
        first, _ = jobs.create(session, world.project, **values)
        jobs.request_cancel(session, world.project, first.id)
        assert jobs.create(session, world.project, **values) == (first, False)


def test_requests_at_once_with_one_key_make_one_job(world) -> None:
    gate = threading.Barrier(6)
    made: list[tuple[str, bool]] = []

    def send() -> None:
        gate.wait()
        with world.database.write() as session:
            job, created = jobs.create(
                session,
                world.project,
                model_id=world.model,
                data=world.data,
                spec={},
                idempotency_key="k",
                request_sha256="a",
            )
        made.append((job.id, created))

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 6
    assert len({job_id for job_id, _ in made}) == 1
    assert sum(created for _, created in made) == 1
    assert len(world.rows(Job, kind="prune")) == 1
    assert len(world.rows(JobEvent, job_id=made[0][0])) == 1


def test_a_project_may_not_queue_without_end(world) -> None:
    world.submit()
    values = {"model_id": world.model, "data": world.data, "spec": {}, "queued_limit": 2}
    world.submit(queued_limit=2)
    assert refused(world, jobs.create, world.project, **values).code == "too_many_jobs"
    world.claimed()
    world.submit(queued_limit=2)


def test_nothing_of_another_project_is_found(world) -> None:
    job_id = world.submit()
    stranger = world.stranger()
    for query in (
        jobs.get,
        jobs.request_cancel,
        jobs.retry,
        jobs.delete,
        events.after,
        artifacts.list_all,
    ):
        assert refused(world, query, stranger, job_id).code == "not_found"
    assert refused(world, artifacts.get, stranger, job_id, "net.onnx").code == "not_found"
    with world.database.read() as session:
        assert jobs.list_page(session, stranger).items == []
    assert world.job(job_id).state == "queued"


def test_intake_checks_are_not_seen_as_jobs(world) -> None:
    check = world.rows(Job, kind="check_model")[0].id
    for query in (jobs.get, jobs.request_cancel, jobs.retry, jobs.delete, events.after):
        assert refused(world, query, world.project, check).code == "not_found"
    with world.database.read() as session:
        assert jobs.list_page(session, world.project).items == []


def test_pages_hold_each_job_once_newest_first(world) -> None:
    wanted = [world.submit() for _ in range(7)][::-1]
    seen, cursor, sizes = [], None, []
    while True:
        with world.database.read() as session:
            page = jobs.list_page(session, world.project, limit=3, cursor=cursor)
        seen += [j.id for j in page.items]
        sizes.append(len(page.items))
        cursor = page.next_cursor
        if cursor is None:
            break
        world.submit()  # a newer one does not shift the pages
    assert seen == wanted
    assert sizes == [3, 3, 1]


def test_a_full_last_page_has_no_cursor_and_a_filter_holds_across_pages(world) -> None:
    wanted = [world.submit() for _ in range(4)]
    world.claimed()
    with world.database.read() as session:
        first = jobs.list_page(session, world.project, state="queued", limit=2)
        assert first.next_cursor is not None
        last = jobs.list_page(
            session, world.project, state="queued", limit=1, cursor=first.next_cursor
        )
    assert [j.id for j in first.items + last.items] == wanted[:0:-1]
    assert last.next_cursor is None


@pytest.mark.parametrize("cursor", ["", "x", "../..", "am9i", "bWRsXzE=", "\u20ac", "a" * 999])
def test_a_made_up_cursor_is_refused(world, cursor) -> None:
    error = refused(world, jobs.list_page, world.project, cursor=cursor)
    assert (error.code, error.where) == ("invalid_cursor", "cursor")


def test_cancel_ends_a_queued_job_and_asks_a_running_one(world) -> None:
    queued, running = world.submit(priority=0), world.submit(priority=1)
    claim = world.claimed()
    with world.database.write() as session:
        assert jobs.request_cancel(session, world.project, queued).state == "cancelled"
        assert jobs.request_cancel(session, world.project, queued).state == "cancelled"
        job = jobs.request_cancel(session, world.project, running)
    assert (job.state, job.cancel_requested) == ("running", True)
    assert world.claim() is None
    assert world.finish(claim, "cancelled")
    done = world.submit()
    world.finish(world.claimed())
    assert refused(world, jobs.request_cancel, world.project, done).code == "conflict"


def test_a_retry_is_a_new_job_with_the_same_request(world) -> None:
    first = world.submit(name="n", priority=4, spec={"seed": 3}, klass="gpu", idempotency_key="k")
    assert refused(world, jobs.retry, world.project, first).code == "conflict"
    world.finish(world.claimed("gpu"), "failed")
    with world.database.write() as session:
        job = jobs.retry(session, world.project, first)
    assert job.id != first
    assert (job.retry_of, job.state, job.attempt) == (first, "queued", 0)
    assert (job.name, job.priority, job.spec, job.klass) == ("n", 4, {"seed": 3}, "gpu")
    assert (job.model_id, job.data) == (world.model, world.data)


def test_deleting_a_job_takes_all_that_belongs_to_it(world) -> None:
    job_id = world.submit()
    assert refused(world, jobs.delete, world.project, job_id).code == "conflict"
    claim = world.claimed()
    assert refused(world, jobs.delete, world.project, job_id).code == "conflict"
    world.finish(claim, artifacts=(NewArtifact("a", "onnx", world.blob("a")),))
    with world.database.write() as session:
        jobs.delete(session, world.project, job_id)
    assert refused(world, jobs.get, world.project, job_id).code == "not_found"
    for table in (JobEvent, JobInput, Artifact, Attempt):
        assert world.rows(table, job_id=job_id) == []


def test_artifacts_are_found_by_name(world) -> None:
    job_id = world.submit()
    with world.database.read() as session:
        assert artifacts.list_all(session, world.project, job_id) == []
    world.finish(world.claimed(), artifacts=(NewArtifact("a.onnx", "onnx", world.blob("a")),))
    with world.database.read() as session:
        found = artifacts.get(session, world.project, job_id, "a.onnx")
        assert [a.name for a in artifacts.list_all(session, world.project, job_id)] == ["a.onnx"]
    assert (found.sha256, found.bytes) == (world.blob("a").sha256, 1)
    error = refused(world, artifacts.get, world.project, job_id, "b.onnx")
    assert (error.code, error.where) == ("not_found", "artifact")


def test_counts_are_by_class_and_state(world) -> None:
    world.submit()
    world.submit(klass="gpu")
    world.claimed("gpu")
    with world.database.read() as session:
        assert jobs.counts(session) == {
            ("check", "succeeded"): 2,
            ("cpu", "queued"): 1,
            ("gpu", "running"): 1,
        }


def test_waiting_counts_jobs_nobody_answered_the_bell_for(world) -> None:
    world.submit(now=world.at(0))
    world.submit(now=world.at(1))
    world.submit(now=world.at(2), klass="gpu")
    world.submit(now=world.at(90))
    minute = timedelta(seconds=60)
    with world.database.read() as session:
        assert outbox.waiting(session, world.at(90), timedelta(seconds=88)) == {"cpu": 2}
        assert outbox.waiting(session, world.at(90), minute) == {"cpu": 2, "gpu": 1}
    world.claimed("gpu")
    with world.database.read() as session:
        assert outbox.waiting(session, world.at(90), minute) == {"cpu": 2}
