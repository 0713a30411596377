"""One supervised attempt: what it leaves in the store, whatever the child does."""

import hashlib
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from bench import MODEL, Bench, alive, until

from store import leases
from store.clock import utcnow
from store.queries import datasets, models
from store.tables import Artifact, Attempt, Blob, Checkpoint, Dataset, Job, Model
from worker import memory, processes, supervisor
from worker.answer import answer


def test_a_good_run_delivers_its_artifacts_summary_and_events(bench: Bench):
    became, job = bench.attempt("succeed")
    assert became == job.state == "succeeded"
    assert job.summary["checkpoints"] == []
    found = {a.name: a for a in bench.rows(Artifact, job_id=job.id)}
    assert found.keys() == {"pruned.onnx", "report.json"}
    content = bench.blobs.open(found["pruned.onnx"].sha256).read()
    assert content == MODEL[::-1]
    # The second child saw the file as stored, and nothing else of the first's.
    report = json.loads(bench.blobs.open(found["report.json"].sha256).read())
    assert report == {"pruned.onnx": len(content)}
    # What the child said of size and digest is not believed.
    for artifact in found.values():
        stored = bench.blobs.open(artifact.sha256).read()
        digest = hashlib.sha256(stored).hexdigest()
        assert (artifact.sha256, artifact.bytes) == (digest, len(stored))
    kinds = [(e["type"], e.get("phase") or e.get("state")) for e in bench.events(job.id)]
    assert [k for k in kinds if k[0] not in ("progress", "alive")] == [
        ("state", "queued"),
        ("state", "running"),
        ("phase", "loading"),
        ("phase", "pruning"),
        ("metric", None),
        ("state", "succeeded"),
    ]
    assert not list(bench.places[0].house.folder.glob("slot-*"))


def test_a_missed_gate_is_rejected_with_its_artifacts(bench: Bench):
    became, job = bench.attempt("reject")
    assert became == job.state == "rejected"
    assert job.error["code"] == "gate_missed"
    assert len(bench.rows(Artifact, job_id=job.id)) == 2


def test_a_failure_is_final_and_leaves_no_artifact(bench: Bench):
    became, job = bench.attempt("fail")
    assert became == job.state == "failed"
    assert job.error == {"code": "scope_empty", "message": "Nothing left.", "where": "scope"}
    assert bench.rows(Artifact) == []


def test_a_failure_of_the_second_child_is_final_and_leaves_no_artifact(bench: Bench):
    became, job = bench.attempt("succeed", then="fail")
    assert became == job.state == "failed"
    assert job.error["code"] == "scope_empty"
    assert bench.rows(Artifact) == []
    assert not list(bench.places[0].house.folder.glob("slot-*"))


@pytest.mark.parametrize(
    ("then", "says"),
    [
        ("crash", "exit code 3"),
        ("killed", "SIGKILL"),
        ("second_writes_a_model", "two files of one name"),
        ("missing", "can't be read"),
    ],
)
def test_a_second_child_that_dies_or_misbehaves_is_tried_again(bench: Bench, then: str, says: str):
    became, job = bench.attempt("succeed", then=then)
    assert became == job.state == "queued"
    assert says in bench.events(job.id)[-1]["error"]["message"]
    assert bench.rows(Artifact) == []
    assert not list(bench.places[0].house.folder.glob("slot-*"))


@pytest.mark.parametrize(
    ("do", "says"),
    [
        ("no_draft", "can't be read"),
        ("draft_elsewhere", "can't be read"),
        ("nothing", "wrote no files"),
        ("endless_draft", "is larger than"),
        ("odd_kind", "no known kind"),
    ],
)
def test_a_first_child_that_hands_nothing_on_is_tried_again(bench: Bench, do: str, says: str):
    became, job = bench.attempt(do)
    assert became == job.state == "queued"
    assert says in bench.events(job.id)[-1]["error"]["message"]
    assert not list(bench.places[0].house.folder.glob("slot-*"))


def test_the_limits_hold_in_the_second_child(bench: Bench):
    _, job = bench.attempt("succeed", bench.place(wall_seconds=1.0), then="stand")
    assert (job.state, job.error["code"]) == ("failed", "wall_limit")
    place = bench.place(child_memory_bytes=100 << 20)
    _, job = bench.attempt("succeed", place, then="eat", bytes=400 << 20)
    assert (job.state, job.error["code"]) == ("failed", "out_of_memory")
    _, job = bench.attempt("succeed", bench.place(stall_seconds=0.5), then="stand")
    assert bench.events(job.id)[-1]["error"]["code"] == "stalled"


def test_a_failure_that_makes_no_sense_is_an_internal_error(bench: Bench):
    _, job = bench.attempt("fail_oddly")
    assert (job.state, job.error["code"]) == ("failed", "internal_error")


def test_intake_checks_pass_their_facts_on(bench: Bench):
    model = bench.upload(models, "b.onnx", b"another")
    data = bench.upload(datasets, "b.npz", b"more")
    assert answer(bench.place(), "check") == 2
    with bench.db.read() as session:
        assert session.get_one(Model, model).facts == {"format": "onnx", "kind": "check_model"}
        assert session.get_one(Dataset, data).facts["kind"] == "check_dataset"


@pytest.mark.parametrize(
    ("do", "says"),
    [
        ("crash", "exit code 3"),
        ("killed", "SIGKILL. It was not the worker"),
        ("noise", "exit code 4"),
        ("no_json", "no event"),
        ("long_line", "a line of more than"),
        ("state_event", "an event state, which only the service may write"),
        ("alive_event", "an event alive, which only the service may write"),
        ("spam", "more than 20000 events"),
        ("symlink", "can't be read"),
        ("hard_link", "not a regular file of its own"),
        ("linked_folder", "can't be read"),
        ("pipe", "not a regular file of its own"),
        ("elsewhere", "unusable artifact names"),
        ("twice", "unusable artifact names"),
        ("missing", "can't be read"),
        ("checkpoint_elsewhere", "not a plain file name"),
    ],
)
def test_a_child_that_dies_or_misbehaves_is_tried_again(bench: Bench, do: str, says: str):
    became, job = bench.attempt(do)
    assert became == job.state == "queued"
    assert bench.attempts(job.id) == ["lost"]
    error = bench.events(job.id)[-1]["error"]
    assert error["code"] == "child_crashed"
    assert says in error["message"]
    assert bench.rows(Artifact) == []
    assert bench.rows(Checkpoint) == []
    assert len(bench.rows(Blob)) == 2


def test_the_end_of_the_output_is_logged_and_not_shown_to_the_user(
    bench: Bench, caplog: pytest.LogCaptureFixture
):
    _, job = bench.attempt("noise")
    error = bench.events(job.id)[-1]["error"]
    assert error["details"] == {"exit_code": 4}
    logged = next(r.getMessage() for r in caplog.records if job.id in r.getMessage())
    assert logged.endswith("the end\n")
    assert len(logged) <= 4200


def test_a_job_that_always_crashes_fails_after_three_attempts(bench: Bench):
    job = bench.submit("crash")
    assert answer(bench.place(), "cpu") == 3
    assert bench.job(job).state == "failed"
    assert bench.job(job).error["code"] == "attempts_exhausted"
    assert bench.job(job).error["details"]["last_error"]["code"] == "child_crashed"


def test_checkpoints_reach_the_next_attempt_and_reset_the_count(bench: Bench):
    job = bench.submit("crash_until_saved", steps=4)
    assert answer(bench.place(), "cpu") == 5
    assert bench.job(job).state == "succeeded"
    assert bench.job(job).summary["checkpoints"] == [f"round-{i}.safetensors" for i in range(4)]
    assert bench.rows(Checkpoint) == []


def test_a_child_that_does_not_exit_when_done_is_made_to(bench: Bench, monkeypatch):
    monkeypatch.setattr("worker.supervisor._EXIT_SECONDS", 0.2)
    became, _ = bench.attempt("linger")
    assert became == "succeeded"


def test_processes_left_behind_by_a_good_run_are_ended(bench: Bench):
    _, job = bench.attempt("orphans", bench.place(sandbox="off"))
    assert job.state == "succeeded"
    assert not alive(job.summary["left"])


def test_the_wall_limit_is_final(bench: Bench):
    _, job = bench.attempt("stand", bench.place(wall_seconds=0.5))
    assert (job.state, job.error["code"]) == ("failed", "wall_limit")


def test_a_stall_ends_the_attempt(bench: Bench):
    became, job = bench.attempt("stand", bench.place(stall_seconds=0.5))
    assert became == "queued"
    assert bench.events(job.id)[-1]["error"]["code"] == "stalled"


def test_the_same_progress_again_is_told_and_is_no_progress(bench: Bench):
    became, job = bench.attempt("repeat", bench.place(stall_seconds=2.0))
    assert became == "queued"
    found = bench.events(job.id)
    assert found[-1]["error"]["code"] == "stalled"
    assert sum(event["type"] == "progress" for event in found) >= 2


@pytest.mark.parametrize("do", ["stand", "stop"])
def test_while_a_child_says_nothing_the_worker_does_and_that_hides_no_stall(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, do: str
):
    monkeypatch.setattr(supervisor, "_ALIVE_SECONDS", 0.2)
    began = time.monotonic()
    became, job = bench.attempt(do, bench.place(stall_seconds=1.5))
    assert became == "queued"
    assert time.monotonic() - began < 30
    found = bench.events(job.id)
    assert found[-1]["error"]["code"] == "stalled"
    heard = next(i for i, event in enumerate(found) if event["type"] == "progress")
    alive = [event for event in found[heard:] if event["type"] == "alive"]
    assert len(alive) >= 3
    assert all(event["phase"] == "pruning" for event in alive)
    quiet = [event["quiet_seconds"] for event in alive]
    assert quiet == sorted(quiet)
    assert quiet[-1] <= 1.5 + 0.5


def test_one_fraction_rises_through_both_halves(bench: Bench):
    _, job = bench.attempt("tell", told=[0.1, 0.4, 0.8], then="tell_on", more=[0.2, 0.5, 0.9, 1.0])
    found = [e for e in bench.events(job.id) if e["type"] in ("progress", "alive")]
    fractions = [event["fraction"] for event in found if event["fraction"] is not None]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert 0.8 in fractions
    assert not {0.2, 0.5} & set(fractions), "the second half knows less, and does not fall back"
    elapsed = [event["elapsed_seconds"] for event in found]
    assert elapsed == sorted(elapsed)


def test_memory_over_the_limit_is_out_of_memory(bench: Bench):
    place = bench.place(child_memory_bytes=100 << 20)
    _, job = bench.attempt("eat", place, bytes=400 << 20)
    assert (job.state, job.error["code"]) == ("failed", "out_of_memory")


def when_running(
    bench: Bench, act: Callable[[str], None]
) -> tuple[threading.Thread, dict[str, Any]]:
    """From another thread, do something to the job once its child has said something."""
    seen: dict[str, Any] = {}

    def speaking() -> str | None:
        jobs = [job.id for job in bench.rows(Job, kind="prune")]
        return next((job for job in jobs if bench.progress(job)), None)

    def wait() -> None:
        job = until(speaking, what="progress")
        seen["said"] = bench.progress(job)
        seen["at"] = time.monotonic()
        act(job)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread, seen


@pytest.mark.parametrize("do", ["stand", "ignore_term", "family", "quiet"])
def test_cancel_ends_every_process_before_it_is_written(bench: Bench, do: str):
    """`quiet` does well in the first child, and the second stands."""
    thread, seen = when_running(bench, bench.cancel)
    became, job = bench.attempt(do, bench.place(sandbox="off"), then="stand")
    took = time.monotonic() - seen["at"]
    thread.join()
    assert became == job.state == "cancelled"
    assert not any(alive(int(pid)) for pid in seen["said"].split())
    assert took < 3.0
    assert job.error is None


@pytest.mark.parametrize("do", ["stand", "ignore_term"])
def test_cancel_ends_a_child_in_its_sandbox(bench: Bench, do: str):
    living: list[int] = []

    def cancel(job: str) -> None:
        living.extend(processes.of_folder(bench.settings.slots_dir))
        bench.cancel(job)

    thread, _ = when_running(bench, cancel)
    became, job = bench.attempt(do)
    thread.join()
    assert became == job.state == "cancelled"
    assert living
    assert not any(alive(pid) for pid in living)


@pytest.mark.parametrize("do", ["stand", "quiet"])
def test_a_drain_gives_the_job_back_without_counting(bench: Bench, do: str):
    thread, seen = when_running(bench, lambda _: (bench.folder / "drain").touch())
    became, job = bench.attempt(do, bench.place(sandbox="off"), then="stand")
    thread.join()
    assert became == "drained"
    assert (job.state, job.attempts_without_checkpoint) == ("queued", 0)
    assert not alive(int(seen["said"]))
    assert answer(bench.places[0], "cpu") == 0


@pytest.mark.parametrize("do", ["stand", "quiet"])
def test_a_stale_token_writes_nothing(bench: Bench, do: str):
    """Somebody else takes the job while either child runs: reaped, then claimed again."""

    def steal(job_id: str) -> None:
        with bench.db.write() as session:
            [silent] = leases.held(session)
            assert leases.reap(session, silent, utcnow(), bench.settings.max_attempts)
        bench.claim()

    thread, seen = when_running(bench, steal)
    became, job = bench.attempt(do, bench.place(sandbox="off"), then="stand")
    thread.join()
    assert became == "stale"
    assert (job.state, job.attempt, job.token) == ("running", 2, 2)
    assert bench.rows(Artifact) == []
    assert not alive(int(seen["said"]))


def test_the_lease_is_renewed_while_the_child_lives(bench: Bench):
    thread, _ = when_running(bench, lambda job: renewed(job))
    before: list[object] = []

    def renewed(job: str) -> None:
        first = bench.job(job).beat
        until(lambda: bench.job(job).beat > first, what="a renewal")
        before.append(first)
        bench.cancel(job)

    bench.attempt("stand")
    thread.join()
    assert before


@pytest.mark.parametrize("wanted", ["best", "off"])
def test_each_attempt_keeps_the_level_that_its_child_ran_at(bench: Bench, wanted: str):
    place = bench.place(sandbox=wanted)
    job = bench.submit("confess", limits=[])
    assert answer(place, "cpu") == 1
    (attempt,) = bench.rows(Attempt, job_id=job)
    assert attempt.sandbox == place.sandbox.level
    assert bench.job(job).summary["environ"]["SECATEUR_SANDBOX"] == attempt.sandbox


def test_without_a_setting_an_attempt_gets_a_share_of_the_machines_memory(bench: Bench):
    whole = memory.machine_bytes()
    place = bench.place(child_memory_bytes=None)
    place.processes = 4
    assert whole is not None
    assert place.memory_bytes == int(whole * 0.8) // 4
    assert bench.place(child_memory_bytes=5).memory_bytes == 5
