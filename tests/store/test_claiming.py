import multiprocessing
import threading
from collections import Counter

from store import leases
from store.db import Database
from store.queries import keys


def claim_all(world, worker: str) -> list[str]:
    taken = []
    while (claim := world.claim(worker=worker)) is not None:
        taken.append(claim.job_id)
    return taken


def test_a_class_without_jobs_gives_nothing(world) -> None:
    world.submit(klass="gpu")
    assert world.claim("cpu") is None
    assert world.claim("check") is None
    assert world.claim("gpu") is not None
    assert world.claim("gpu") is None


def test_higher_priority_first_then_in_the_order_of_arrival(world) -> None:
    low = world.submit(priority=1)
    early = world.submit(priority=5)
    late = world.submit(priority=5)
    urgent = world.submit(priority=9)
    assert claim_all(world, "w") == [urgent, early, late, low]


def test_a_clock_that_is_set_back_puts_no_job_before_another(world) -> None:
    wanted = [world.submit(now=world.at(-120 * i)) for i in range(4)]
    assert claim_all(world, "w") == wanted


def test_a_job_queued_again_keeps_its_age(world) -> None:
    first = world.submit(now=world.at(0))
    world.submit(now=world.at(1))
    claim = world.claimed()
    with world.database.write() as session:
        leases.release(session, claim, "drained", world.at(5))
    assert world.claimed(at=6).job_id == first


def test_threads_that_claim_at_once_get_each_job_once(world) -> None:
    wanted = [world.submit() for _ in range(24)]
    taken: list[str] = []
    gate = threading.Barrier(6)

    def work(name: str) -> None:
        gate.wait()
        taken.extend(claim_all(world, name))

    threads = [threading.Thread(target=work, args=(f"w{i}",)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(taken) == Counter(wanted)


def test_processes_forked_with_an_open_database_get_each_job_once(world) -> None:
    wanted = [world.submit() for _ in range(16)]
    fork = multiprocessing.get_context("fork")
    results = fork.SimpleQueue()
    gate = fork.Barrier(4)

    def work(name: str) -> None:
        gate.wait()
        results.put(claim_all(world, name))

    processes = [fork.Process(target=work, args=(f"w{i}",)) for i in range(4)]
    for process in processes:
        process.start()
    taken = [job_id for _ in processes for job_id in results.get()]
    for process in processes:
        process.join()
    assert Counter(taken) == Counter(wanted)
    # The parent's own connections are still its own.
    with world.database.read() as session:
        assert keys.first_project(session) is not None


def test_two_claims_of_a_token_that_has_moved_on_do_not_both_win(world) -> None:
    job_id = world.submit()
    other = Database(world.settings)
    world.claimed()
    with other.write() as session:
        assert leases.claim(session, "cpu", "w2", world.at(0), lease_seconds=30) is None
    other.dispose()
    assert world.job(job_id).worker_id == "w1"
