import threading

from pruning.events import MetricEvent
from store.queries import events
from store.tables import JobEvent


def metric(value: float) -> MetricEvent:
    return MetricEvent(name="loss", stage="dense", value=value)


def test_numbers_have_no_gaps_whoever_writes(world) -> None:
    job_id = world.submit()
    gate = threading.Barrier(4)
    last: list[int] = []

    def write(start: int) -> None:
        gate.wait()
        for i in range(6):
            with world.database.write() as session:
                said = [metric(start), metric(i)]
                last.append(events.append(session, job_id, said, world.at(0)))

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = sorted(world.rows(JobEvent, job_id=job_id), key=lambda e: e.seq)
    assert [e.seq for e in rows] == list(range(1, 50))
    assert sorted(last) == list(range(3, 50, 2))
    assert {e.project_id for e in rows} == {world.project}


def test_a_rollback_gives_its_numbers_back(world) -> None:
    job_id = world.submit()
    try:
        with world.database.write() as session:
            events.append(session, job_id, [metric(1)])
            raise KeyError
    except KeyError:
        pass
    with world.database.write() as session:
        assert events.append(session, job_id, [metric(2)]) == 2


def test_events_are_read_on_from_a_number_until_the_job_is_over(world) -> None:
    job_id = world.submit()
    claim = world.claimed()
    with world.database.write() as session:
        events.append(session, job_id, [metric(i) for i in range(5)])
    with world.database.read() as session:
        first = events.after(session, world.project, job_id, 0, limit=4)
        rest = events.after(session, world.project, job_id, first.next_after)
        none = events.after(session, world.project, job_id, rest.next_after)
    assert [e.seq for e in first.items] == [1, 2, 3, 4]
    assert [e.seq for e in rest.items] == [5, 6, 7]
    assert (none.items, none.next_after) == ([], 7)
    assert [p.ended for p in (first, rest, none)] == [False] * 3
    world.finish(claim)
    with world.database.read() as session:
        assert not events.after(session, world.project, job_id, 0, limit=7).ended
        assert events.after(session, world.project, job_id, 7).ended
        assert events.after(session, world.project, job_id, 8).ended
