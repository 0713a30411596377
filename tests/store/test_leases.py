import pytest

from pruning.events import (
    AliveEvent,
    CheckpointEvent,
    DoneEvent,
    FailedEvent,
    MetricEvent,
    PhaseEvent,
    ProgressEvent,
    StateEvent,
)
from store import leases
from store.claims import NewArtifact, Outcome
from store.queries import datasets, jobs, keys
from store.queries import events as event_rows
from store.tables import Artifact, Attempt, Checkpoint, Job, JobEvent, Outbox

CRASH = {"code": "child_crashed", "message": "Killed by signal 9."}


def everything(world):
    tables = (Job, JobEvent, Artifact, Attempt, Checkpoint, Outbox)
    return [
        {c.key: getattr(row, c.key) for c in table.__table__.columns}
        for table in tables
        for row in world.rows(table)
    ]


def test_a_claim_carries_all_that_the_attempt_needs(world) -> None:
    job_id = world.submit(spec={"seed": 7}, name="tidy")
    claim = world.claimed(worker="w7")
    assert (claim.job_id, claim.kind, claim.klass, claim.name) == (job_id, "prune", "cpu", "tidy")
    assert (claim.attempt, claim.token, claim.worker_id) == (1, 1, "w7")
    assert claim.spec == {"seed": 7}
    assert claim.model is not None
    assert claim.model.sha256 == world.blob("net").sha256
    assert claim.model.facts == world.facts
    assert {role: i.name for role, i in claim.data.items()} == {"calibration": "data.npz"}
    assert (claim.subject, claim.checkpoints) == (None, ())


def test_a_check_carries_its_upload(empty) -> None:
    with empty.database.write() as session:
        project = keys.create_project(session, "p").id
        row, _ = datasets.create(session, project, "d.npz", empty.blob("d"), empty.at(0))
    claim = empty.claimed("check")
    assert claim.kind == "check_dataset"
    assert claim.subject is not None
    assert (claim.subject.id, claim.subject.name) == (row.id, "d.npz")
    assert (claim.model, claim.data) == (None, {})


def test_a_renewal_counts_the_beat_up_and_tells_of_a_cancel(world) -> None:
    job_id = world.submit()
    claim = world.claimed()
    with world.database.read() as session:
        [first] = leases.held(session)
    assert (first.job_id, first.sign, first.lease_seconds) == (job_id, (1, 0), 30)
    with world.database.write() as session:
        lease = leases.renew(session, claim, world.at(20))
    assert (lease.valid, lease.cancel_requested) == (True, False)
    with world.database.read() as session:
        [second] = leases.held(session)
    assert second.sign == (1, 1)
    with world.database.write() as session:
        jobs.request_cancel(session, world.project, job_id, world.at(21))
    with world.database.write() as session:
        assert leases.renew(session, claim, world.at(22)).cancel_requested


def test_what_a_child_says_becomes_phase_progress_and_events(world) -> None:
    job_id = world.submit()
    claim = world.claimed()
    said = [
        PhaseEvent(phase="scoring"),
        ProgressEvent(phase="scoring", done=3, total=10, message="fc1"),
        MetricEvent(name="accuracy", stage="dense", value=0.97),
        DoneEvent(),
        FailedEvent(error=CRASH),
        StateEvent(state="succeeded"),
    ]
    with world.database.write() as session:
        assert leases.report(session, claim, said, world.at(3))
    job = world.job(job_id)
    assert (job.state, job.phase) == ("running", "scoring")
    assert job.progress == {"phase": "scoring", "done": 3, "total": 10, "message": "fc1"}
    events = world.rows(JobEvent, job_id=job_id)
    assert [e.body["type"] for e in events[2:]] == ["phase", "progress", "metric"]
    with world.database.write() as session:
        leases.report(session, claim, [PhaseEvent(phase="pruning")], world.at(4))
    assert world.job(job_id).progress is None


def test_finishing_records_artifacts_and_summary(world) -> None:
    job_id = world.submit()
    artifacts = (
        NewArtifact("net.onnx", "onnx", world.blob("pruned")),
        NewArtifact("report.json", "json", world.blob("report")),
    )
    assert world.finish(world.claimed(), summary={"achieved": 0.5}, artifacts=artifacts, at=9)
    with world.database.read() as session:
        job = jobs.get(session, world.project, job_id)
    assert (job.state, job.summary) == ("succeeded", {"achieved": 0.5})
    assert [(a.name, a.format, a.sha256) for a in job.artifacts] == [
        ("net.onnx", "onnx", world.blob("pruned").sha256),
        ("report.json", "json", world.blob("report").sha256),
    ]


def test_a_result_that_misses_a_gate_keeps_its_artifacts(world) -> None:
    job_id = world.submit()
    artifacts = (NewArtifact("net.onnx", "onnx", world.blob("pruned")),)
    assert world.finish(world.claimed(), "rejected", artifacts=artifacts)
    assert world.job(job_id).state == "rejected"
    assert len(world.rows(Artifact, job_id=job_id)) == 1


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_failed_job_can_not_have_artifacts(world, state) -> None:
    artifacts = (NewArtifact("net.onnx", "onnx", world.blob("pruned")),)
    with pytest.raises(ValueError, match="no artifacts"):
        Outcome(state, error=CRASH, artifacts=artifacts)
    with pytest.raises(ValueError, match="needs an error"):
        Outcome("failed")


@pytest.mark.parametrize("how", ["reaped", "claimed again", "finished", "released", "deleted"])
def test_a_stale_claim_writes_nothing(world, how) -> None:
    job_id = world.submit()
    stale = world.claimed()
    if how in ("reaped", "claimed again"):
        assert len(world.reap(at=31)) == 1
    if how == "claimed again":
        assert world.claimed(at=32, worker="w2").token == stale.token + 1
    if how in ("finished", "deleted"):
        assert world.finish(stale)
    if how == "released":
        with world.database.write() as session:
            assert leases.release(session, stale, "drained", world.at(1))
    if how == "deleted":
        with world.database.write() as session:
            jobs.delete(session, world.project, job_id)
    before = everything(world)

    said = [ProgressEvent(phase="pruning", done=1, total=2)]
    artifact = NewArtifact("net.onnx", "onnx", world.blob("late"))
    late = Outcome("succeeded", artifacts=(artifact,))
    checkpoints = {"round-9": world.blob("r9")}
    now = world.at(33)
    with world.database.write() as session:
        assert not leases.renew(session, stale, now).valid
        assert not leases.report(session, stale, said, now, checkpoints=checkpoints)
        assert not leases.finish(session, stale, late, now)
        assert not leases.release(session, stale, "drained", now)
        assert leases.lose(session, stale, CRASH, now, max_attempts=3) is None
    assert everything(world) == before


def test_a_holder_that_renewed_meanwhile_is_not_reaped(world) -> None:
    world.submit()
    claim = world.claimed()
    with world.database.read() as session:
        [silent] = leases.held(session)
    with world.database.write() as session:
        assert leases.renew(session, claim, world.at(1000)).valid
    with world.database.write() as session:
        assert leases.reap(session, silent, world.at(1000), max_attempts=3) is None
    assert world.job(claim.job_id).state == "running"


def test_a_drain_queues_the_job_and_does_not_count(world) -> None:
    job_id = world.submit()
    for number in range(1, 6):
        claim = world.claimed(at=number)
        assert claim.attempt == number
        with world.database.write() as session:
            assert leases.release(session, claim, "drained", world.at(number))
    job = world.job(job_id)
    assert (job.state, job.attempts_without_checkpoint, job.phase) == ("queued", 0, None)
    assert {a.outcome for a in world.rows(Attempt, job_id=job_id)} == {"drained"}


def test_a_drain_of_a_job_that_shall_be_cancelled_ends_it(world) -> None:
    job_id = world.submit()
    claim = world.claimed()
    with world.database.write() as session:
        jobs.request_cancel(session, world.project, job_id)
        leases.release(session, claim, "drained", world.at(2))
    assert world.job(job_id).state == "cancelled"


def test_a_crash_is_tried_again_and_the_third_is_the_last(world) -> None:
    job_id = world.submit()
    states = []
    for number in range(3):
        claim = world.claimed(at=number)
        with world.database.write() as session:
            states.append(leases.lose(session, claim, CRASH, world.at(number), max_attempts=3))
    assert states == ["queued", "queued", "failed"]
    error = world.job(job_id).error
    assert error["code"] == "attempts_exhausted"
    assert "attempts 1, 2 and 3" in error["message"]
    assert error["details"]["last_error"] == CRASH


def test_a_new_checkpoint_is_handed_on_and_forgives_lost_attempts(world) -> None:
    job_id = world.submit()
    for number in range(5):
        claim = world.claimed(at=number)
        assert [c.name for c in claim.checkpoints] == [f"round-{i}" for i in range(number)]
        name = f"round-{number}"
        said = [CheckpointEvent(name=name, bytes=2)]
        with world.database.write() as session:
            saved = {name: world.blob(name)}
            assert leases.report(session, claim, said, world.at(number), checkpoints=saved)
        with world.database.write() as session:
            leases.lose(session, claim, CRASH, world.at(number), max_attempts=2)
    assert world.job(job_id).state == "queued"
    assert world.job(job_id).attempts_without_checkpoint == 1


def test_the_same_checkpoint_again_is_no_progress(world) -> None:
    job_id = world.submit()
    for content in ("one", "two"):
        claim = world.claimed()
        with world.database.write() as session:
            leases.report(session, claim, [], world.at(1), checkpoints={"r": world.blob(content)})
            leases.lose(session, claim, CRASH, world.at(2), max_attempts=5)
    assert world.job(job_id).attempts_without_checkpoint == 2
    [row] = world.rows(Checkpoint, job_id=job_id)
    assert row.sha256 == world.blob("two").sha256


def test_events_bear_the_time_at_which_they_were_received(world) -> None:
    job_id = world.submit()
    claim = world.claimed()
    said = [PhaseEvent(phase="loading"), DoneEvent(), PhaseEvent(phase="checking")]
    received = [world.at(3), world.at(4), world.at(5)]
    with world.database.write() as session:
        assert leases.report(session, claim, said, world.at(9), received=received)
    with world.database.read() as session:
        found = event_rows.after(session, world.project, job_id, seq=2).items
        assert [(e.body["phase"], e.at) for e in found] == [
            ("loading", world.at(3)),
            ("checking", world.at(5)),
        ]


def test_the_first_sign_of_life_is_kept_before_any_progress(world) -> None:
    job_id = world.submit()
    claim = world.claimed()
    said = [AliveEvent(quiet_seconds=4.0, elapsed_seconds=4.0, fraction=0.0)]
    with world.database.write() as session:
        assert leases.report(session, claim, said, world.at(4))
    assert world.job(job_id).progress == {"elapsed_seconds": 4.0, "fraction": 0.0}
    assert world.job(job_id).phase is None
