import pytest

from pruning.errors import SecateurError
from store import leases, outbox, states
from store.queries import datasets, events, models
from store.tables import Attempt, Checkpoint, Job, Outbox

LEGAL = {
    ("queued", "running"),
    ("queued", "cancelled"),
    ("queued", "failed"),
    ("running", "queued"),
    ("running", "succeeded"),
    ("running", "failed"),
    ("running", "cancelled"),
    ("running", "rejected"),
}
ERROR = {"code": "stalled", "message": "It stood still."}


@pytest.mark.parametrize("start", states.STATES)
def test_only_the_steps_of_the_design_are_made(world, start: str) -> None:
    for to in (*states.STATES, "paused"):
        job_id = world.submit()
        if start == "cancelled":
            with world.database.write() as session:
                states.transition(session, session.get_one(Job, job_id), start, now=world.at(0))
        elif start != "queued":
            claim = world.claimed()
            if start != "running":
                world.finish(claim, start)
        with world.database.write() as session:
            before = session.get_one(Job, job_id).last_seq
            job = session.get_one(Job, job_id)
            if (start, to) in LEGAL:
                states.transition(session, job, to, now=world.at(9), error=ERROR)
            else:
                with pytest.raises(SecateurError) as refused:
                    states.transition(session, job, to, now=world.at(9))
                assert refused.value.code == "conflict"
        job = world.job(job_id)
        assert job.state == (to if (start, to) in LEGAL else start)
        assert job.last_seq == before + ((start, to) in LEGAL)
        if job.state not in states.FINAL_STATES:
            with world.database.write() as session:
                session.delete(session.get_one(Job, job_id))


def test_a_jobs_life_leaves_its_times_attempts_and_events(world) -> None:
    job_id = world.submit()
    claim = world.claimed(at=1)
    assert world.job(job_id).started_at == world.at(1)
    assert world.finish(claim, "failed", at=7, error=ERROR)

    job = world.job(job_id)
    assert (job.created_at, job.started_at, job.finished_at) == (
        world.at(0),
        world.at(1),
        world.at(7),
    )
    assert (job.worker_id, job.lease_seconds, job.error) == (None, None, ERROR)
    [attempt] = world.rows(Attempt, job_id=job_id)
    assert (attempt.number, attempt.outcome, attempt.error) == (1, "failed", ERROR)
    assert (attempt.started_at, attempt.finished_at) == (world.at(1), world.at(7))
    with world.database.read() as session:
        said = events.after(session, world.project, job_id)
    assert [e.body for e in said.items] == [
        {"type": "state", "state": "queued", "attempt": 0, "error": None},
        {"type": "state", "state": "running", "attempt": 1, "error": None},
        {"type": "state", "state": "failed", "attempt": 1, "error": ERROR},
    ]
    assert said.ended


def test_a_new_job_and_one_queued_again_ring(world) -> None:
    with world.database.write() as session:
        outbox.mark_sent(session, [m.id for m in outbox.due(session)])
    job_id = world.submit(klass="gpu")
    claim = world.claimed("gpu")
    with world.database.write() as session:
        states.transition(session, session.get_one(Job, claim.job_id), "queued", now=world.at(2))
    bells = world.rows(Outbox)
    assert [(b.topic, b.payload) for b in bells] == [
        ("doorbell", {"klass": "gpu", "job_id": job_id})
    ] * 2


@pytest.mark.parametrize(("queries", "kind"), [(models, "model"), (datasets, "dataset")])
def test_a_check_that_passes_makes_its_upload_ready(empty, queries, kind: str) -> None:
    project, model, data = empty.project_with_inputs()
    row_id = model if kind == "model" else data["calibration"]
    with empty.database.read() as session:
        row = queries.get(session, project, row_id)
    assert (row.state, row.facts, row.format, row.error) == ("ready", empty.facts, "onnx", None)


@pytest.mark.parametrize("code", ["model_truncated", "attempts_exhausted", "child_crashed"])
def test_a_check_that_fails_rejects_its_upload_with_the_reason(world, code: str) -> None:
    error = {"code": code, "message": "So it is."}
    with world.database.write() as session:
        model, _ = models.create(session, world.project, "b", world.blob("bad"), world.at(0))
    assert world.finish(world.claimed("check"), "failed", error=error)
    with world.database.read() as session:
        row = models.get(session, world.project, model.id)
    assert (row.state, row.error, row.facts) == ("rejected", error, None)


def test_the_end_of_a_job_drops_its_checkpoints(world) -> None:
    job_id = world.submit()
    claim = world.claimed()
    with world.database.write() as session:
        leases.report(session, claim, [], world.at(0), checkpoints={"round-0": world.blob("r0")})
    assert len(world.rows(Checkpoint, job_id=job_id)) == 1
    world.finish(claim)
    assert world.rows(Checkpoint, job_id=job_id) == []
