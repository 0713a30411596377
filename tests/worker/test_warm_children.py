"""A child started ahead serves one job, dies with its worker, and is replaced when it has died."""

import os
import signal

from bench import Bench, alive, until

from worker.supervisor import Attempt
from worker.workplace import CHECKS_PROGRAM, PROGRAM, VERIFY_PROGRAM, discard


def warm(bench: Bench):
    # Outside a sandbox, where a child knows its own pid.
    place = bench.place(warm_children=True, sandbox="off")
    place.prepare()
    return place, place._warm[0]


def test_the_child_started_ahead_gets_the_job(bench: Bench):
    place, child = warm(bench)
    _, job = bench.attempt("succeed", place)
    assert job.summary["pid"] == child.pid
    assert not alive(child.pid)


def test_a_job_finds_both_of_its_children_started(bench: Bench):
    place, first = warm(bench)
    second = place._warm[1]
    bench.attempt("succeed", place)
    assert place._warm == []
    assert not alive(first.pid)
    assert not alive(second.pid)
    assert not list(place.house.folder.glob("slot-*"))


def test_a_pool_of_intake_checks_has_one_ahead(bench: Bench):
    place = bench.place(CHECKS_PROGRAM, warm_children=True)
    place.prepare()
    assert len(place._warm) == 1


def test_it_serves_one_job_only(bench: Bench):
    place, child = warm(bench)
    bench.attempt("succeed", place)
    place.prepare()
    _, job = bench.attempt("succeed", place)
    assert job.summary["pid"] != child.pid


def test_a_dead_one_is_replaced(bench: Bench):
    place, child = warm(bench)
    os.kill(child.pid, signal.SIGKILL)
    until(lambda: child.returncode is not None)
    became, job = bench.attempt("succeed", place)
    assert became == "succeeded"
    assert job.summary["pid"] != child.pid


def test_without_a_job_it_exits_by_itself(bench: Bench):
    _, child = warm(bench)
    child._stdin.close()
    assert until(lambda: child.returncode == 0)


def test_closing_the_workplace_ends_it_and_its_folder(bench: Bench):
    place, child = warm(bench)
    bench.places.remove(place)
    place.close()
    assert not alive(child.pid)
    assert not place.house.folder.exists()


def test_a_draining_worker_starts_none(bench: Bench):
    place = bench.place(warm_children=True)
    (bench.folder / "drain").touch()
    place.prepare()
    assert place._warm == []


def test_a_job_after_a_crash_gets_a_fresh_slot(bench: Bench):
    place = bench.place()
    bench.attempt("crash_until_saved", place, steps=1)
    job = bench.submit("succeed")
    first = bench.claim()  # the crashed job, queued again and older
    assert first.checkpoints
    second = bench.claim()
    assert second.job_id == job
    Attempt(place, second).run()
    assert bench.job(job).summary["checkpoints"] == []


def test_what_a_failed_job_left_over_is_kept_and_completed(bench: Bench):
    place = bench.place(PROGRAM, warm_children=True)
    place.prepare()
    first, verifying = place._warm
    assert (first.program, verifying.program) == (PROGRAM, VERIFY_PROGRAM)
    assert place.child() is first
    discard(first)
    place.prepare()
    assert [child.program for child in place._warm] == [VERIFY_PROGRAM, PROGRAM]
    assert place._warm[0] is verifying
    again = place.child()
    assert again.program == PROGRAM
    assert place.child(second=True) is verifying
    for child in (again, verifying):
        discard(child)


def test_the_next_jobs_child_imports_while_a_job_runs_if_one_waits(bench: Bench):
    place = bench.place(warm_children=True)
    place.prepare()
    started = set(place._warm)
    waiting = bench.submit("succeed")
    claim = bench.claim()
    assert claim.job_id == waiting
    later = bench.submit("succeed")
    Attempt(place, claim).run()
    (ready,) = place._warm
    assert ready not in started
    assert ready.returncode is None
    bench.claim()
    assert bench.job(later).state == "running"
    bench.attempt("succeed", place)
    assert len(place._warm) == 0
