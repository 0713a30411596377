"""Workers are shared among projects by the time that their jobs take."""

import random
import threading
from collections import Counter
from dataclasses import replace

import pytest
import sqlalchemy as sa

from store import leases
from store.claims import Claim
from store.queries import datasets, events
from store.tables import Share

CRASH = {"code": "child_crashed", "message": "Killed by signal 9."}
# The arithmetic is the same everywhere; what the databases do differently is tested on both.
ON_SQLITE = pytest.mark.parametrize("empty", ["sqlite"], indirect=True)
FULL = {"code": "storage_full", "message": "The disk is full."}


def held_for(claim: Claim, seconds: float) -> Claim:
    """The claim, as it is after so many seconds."""
    return replace(claim, since=claim.since - seconds)


def run(world, seconds: float, klass: str = "cpu") -> str:
    """One worker runs the next job for so long; the job's project."""
    claim = world.claimed(klass)
    assert world.finish(held_for(claim, seconds))
    return claim.project_id


def lose(world, claim: Claim) -> None:
    with world.database.write() as session:
        leases.lose(session, claim, CRASH, world.at(1), max_attempts=3)


def test_the_only_job_of_a_project_waits_for_the_running_one_alone(world) -> None:
    for _ in range(50):
        world.submit(priority=9)
    running = world.claimed()
    theirs = world.other("b")
    only = world.submit(**theirs, priority=0)
    world.finish(held_for(running, 60))
    assert world.claimed().job_id == only


@ON_SQLITE
def test_it_does_so_too_after_its_project_has_long_had_the_workers_alone(world) -> None:
    theirs = world.other("b")
    for _ in range(3):
        world.submit(**theirs)
        run(world, 10_000)
    for _ in range(20):
        world.submit()
    running = world.claimed()
    only = world.submit(**theirs)
    world.finish(held_for(running, 1))
    assert world.claimed().job_id == only


@ON_SQLITE
def test_priority_counts_within_a_project_only(world) -> None:
    theirs = world.other("b")
    for _ in range(6):
        world.submit(priority=9)
        world.submit(**theirs, priority=0)
    ran = Counter(run(world, 10) for _ in range(8))
    assert ran == {world.project: 4, theirs["project"]: 4}


@ON_SQLITE
def test_time_is_shared_whatever_the_jobs_take(world) -> None:
    theirs = world.other("b")
    for _ in range(40):
        world.submit()
        world.submit(**theirs)
    used: Counter[str] = Counter()
    for _ in range(45):
        claim = world.claimed()
        seconds = 30.0 if claim.project_id == world.project else 7.0
        world.finish(held_for(claim, seconds))
        used[claim.project_id] += seconds
        assert abs(used[world.project] - used[theirs["project"]]) <= 30 + 7


@ON_SQLITE
def test_who_was_away_has_saved_nothing_up(world) -> None:
    second, third = world.other("b"), world.other("c")
    for _ in range(12):
        world.submit()
        world.submit(**second)
    for _ in range(10):
        run(world, 100)
    for _ in range(12):
        world.submit(**third)
    ran = Counter(run(world, 100) for _ in range(12))
    assert len(ran) == 3
    assert set(ran.values()) <= {3, 4, 5}


def test_a_running_job_counts_at_once_so_that_free_workers_go_to_different_projects(world) -> None:
    theirs = world.other("b")
    for _ in range(8):
        world.submit()
    for _ in range(3):
        world.submit(**theirs)
    taken = [world.claimed(worker=f"w{i}").project_id for i in range(6)]
    assert Counter(taken) == {world.project: 3, theirs["project"]: 3}


def test_a_running_job_counts_with_what_it_has_taken_so_far(world) -> None:
    theirs = world.other("b")
    for _ in range(4):
        world.submit()
        world.submit(**theirs)
    first = world.claimed()
    with world.database.write() as session:
        leases.renew(session, held_for(first, 50), world.at(50))
    others = [run(world, 10) for _ in range(4)]
    assert set(others) == {world.project, theirs["project"]} - {first.project_id}


def test_shares_of_one_class_do_not_count_in_another(world) -> None:
    theirs = world.other("b")
    for _ in range(3):
        world.submit(klass="gpu")
        world.submit(**theirs, klass="gpu")
    while world.claim("gpu"):
        pass
    assert {row.klass for row in world.rows(Share)} >= {"gpu"}
    ours = world.submit()
    world.submit(**theirs)
    shares = {(row.project_id, row.klass) for row in world.rows(Share)}
    assert (world.project, "cpu") not in shares
    # Neither has used anything: the ids of the projects decide.
    first = world.claimed().job_id
    assert (first == ours) == (world.project < theirs["project"])


@ON_SQLITE
def test_a_lost_job_goes_behind_those_that_were_never_tried(world) -> None:
    poison = world.submit()
    others = [world.submit() for _ in range(3)]
    lose(world, world.claimed())
    later = world.submit()
    assert [world.claimed().job_id for _ in range(5)] == [*others, poison, later]


@ON_SQLITE
def test_a_job_given_back_or_put_off_keeps_its_place(world) -> None:
    first, second = world.submit(), world.submit()
    with world.database.write() as session:
        leases.release(session, world.claimed(), "drained", world.at(1))
    claim = world.claimed()
    assert claim.job_id == first
    with world.database.write() as session:
        leases.put_off(session, claim, FULL, world.at(1), world.settings)
    assert world.claimed(at=10).job_id == first
    assert world.claimed(at=10).job_id == second


@ON_SQLITE
def test_a_project_whose_jobs_are_all_lost_takes_no_more_than_its_share(world) -> None:
    theirs = world.other("b")
    for _ in range(10):
        world.submit(priority=9)
        world.submit(**theirs)
    ran: Counter[str] = Counter()
    for _ in range(10):
        claim = held_for(world.claimed(), 100)
        ran[claim.project_id] += 1
        if claim.project_id == world.project:
            lose(world, claim)
        else:
            world.finish(claim)
    assert ran == {world.project: 5, theirs["project"]: 5}


def test_a_job_whose_worker_died_is_charged_for_as_long_as_it_was_held(world) -> None:
    theirs = world.other("b")
    for _ in range(4):
        world.submit()
        world.submit(**theirs)
    dead = world.claimed()
    with world.database.write() as session:
        leases.renew(session, held_for(dead, 70), world.at(70))
    world.reap(at=100)
    used = {row.project_id: row.used for row in world.rows(Share, klass="cpu")}
    assert used[dead.project_id] == pytest.approx(100, abs=1)


def test_a_project_of_which_all_is_put_off_is_passed_over(world) -> None:
    mine = world.submit()
    theirs = world.other("b")
    with world.database.write() as session:
        leases.put_off(session, world.claimed(), FULL, world.at(0), world.settings)
    for _ in range(3):
        world.submit(**theirs)
    assert [world.claimed(at=1).project_id for _ in range(3)] == [theirs["project"]] * 3
    assert world.claim(at=1) is None
    assert world.claimed(at=6).job_id == mine


def upload(world, name: str, megabytes: int) -> str:
    blob = replace(world.blob(name), bytes=megabytes << 20)
    with world.database.write() as session:
        return datasets.create(session, world.project, name, blob, world.at(0))[0].id


def checked(world) -> str:
    claim = world.claimed("check")
    assert claim.subject is not None
    return claim.subject.id


def test_small_checks_go_before_large_ones_but_not_for_ever(world) -> None:
    large = upload(world, "large", 80)
    small = [upload(world, f"small-{i}", 1) for i in range(20)]
    order = [checked(world) for _ in range(21)]
    assert order[0] == small[0]
    # It counts as if it had come as many arrivals later as it has times 8 MiB.
    assert order.index(large) in (9, 10)
    assert [upload for upload in order if upload != large] == small


def test_workers_that_claim_at_once_share_as_those_that_claim_in_turn(world) -> None:
    theirs = world.other("b")
    for _ in range(20):
        world.submit()
    for _ in range(4):
        world.submit(**theirs)
    taken: list[Claim] = []
    gate = threading.Barrier(8)

    def work(name: str) -> None:
        gate.wait()
        taken.append(world.claimed(worker=name))

    threads = [threading.Thread(target=work, args=(f"w{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({claim.job_id for claim in taken}) == 8
    assert Counter(c.project_id for c in taken) == {world.project: 4, theirs["project"]: 4}


def outlook(world, job_ids: list[str], at: float = 0) -> dict[str, int]:
    with world.database.read() as session:
        found = events.waiting_all(session, job_ids, world.at(at))
    return {job_id: event.ahead for job_id, event in found.items()}


def test_a_single_job_waits_for_nobody(world) -> None:
    job_id = world.submit()
    with world.database.read() as session:
        event = events.waiting(session, world.project, job_id, world.at(2))
        assert events.waiting(session, "prj_other", job_id, world.at(2)) is None
    assert (event.ahead, event.running, event.waited_seconds) == (0, 0, 2.0)
    world.claimed()
    with world.database.read() as session:
        assert events.waiting(session, world.project, job_id, world.at(2)) is None


@ON_SQLITE
@pytest.mark.parametrize("seed", range(3))
def test_as_many_jobs_start_first_as_a_stream_says(world, seed: int) -> None:
    pick = random.Random(seed)
    projects = [{}, world.other("b"), world.other("c")]
    jobs = [
        world.submit(**pick.choices(projects, [6, 3, 1])[0], priority=pick.randrange(3))
        for _ in range(30)
    ]
    for _ in range(pick.randrange(6)):
        claim = world.claimed()
        jobs.remove(claim.job_id)
        with world.database.write() as session:
            leases.renew(session, held_for(claim, 5), world.at(0))
    told = outlook(world, jobs)
    started = []
    while (claim := world.claim()) is not None:
        started.append(claim.job_id)
        world.finish(held_for(claim, 5))
    # Exact within a project; between projects as far as all jobs take equally long.
    assert sorted(started) == sorted(jobs)
    for index, job_id in enumerate(started):
        assert abs(told[job_id] - index) <= 4
    assert [told[job_id] for job_id in started[:1]] == [0]


def test_jobs_that_are_put_off_are_ahead_of_nobody(world) -> None:
    world.submit()
    second = world.submit()
    with world.database.write() as session:
        leases.put_off(session, world.claimed(), FULL, world.at(0), world.settings)
    assert outlook(world, [second], at=1) == {second: 0}


def test_many_are_answered_as_each_alone(world) -> None:
    theirs = world.other("b")
    jobs = [world.submit(**(theirs if i % 3 == 0 else {}), priority=i % 2) for i in range(12)]
    jobs.append(world.submit(klass="gpu"))
    together = outlook(world, jobs)
    assert together == {job_id: outlook(world, [job_id])[job_id] for job_id in jobs}
    assert outlook(world, []) == {}


@ON_SQLITE
def test_a_claim_reads_the_same_few_rows_whatever_waits(world) -> None:
    world.submit()
    said: list[tuple[str, object]] = []

    @sa.event.listens_for(world.database.engine, "before_cursor_execute")
    def note(_connection, _cursor, statement, parameters, _context, _many) -> None:
        said.append((statement, parameters))

    world.claimed()
    sa.event.remove(world.database.engine, "before_cursor_execute", note)
    looked = [s for s in said if s[0].lstrip().startswith(("SELECT", "WITH", "UPDATE"))]
    assert len(looked) > 5
    with world.database.engine.connect() as connection:
        for statement, parameters in looked:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            for *_, step in plan:
                assert not step.startswith(("SCAN job", "SCAN attempt")), statement
                assert "AUTOMATIC" not in step or "job" not in step, statement
