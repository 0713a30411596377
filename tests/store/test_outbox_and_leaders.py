import threading
from datetime import timedelta

from store import leaders, outbox
from store.clock import utcnow

TTL = timedelta(seconds=10)


def test_messages_leave_in_order_until_they_are_marked(empty) -> None:
    with empty.database.write() as session:
        for i in range(5):
            outbox.enqueue(session, "doorbell", {"n": i}, empty.at(i))
    with empty.database.write() as session:
        first = outbox.due(session, limit=3)
        assert [m.payload["n"] for m in first] == [0, 1, 2]
        outbox.mark_sent(session, [first[0].id, first[2].id])
        outbox.mark_sent(session, [])
    with empty.database.read() as session:
        assert [m.payload["n"] for m in outbox.due(session)] == [1, 3, 4]


def test_a_leader_stays_until_its_time_is_over(empty) -> None:
    def lead(holder: str, at: float, name: str = "relay") -> bool:
        with empty.database.write() as session:
            return leaders.lead(session, name, holder, TTL, empty.at(at))

    assert lead("a", 0)
    assert not lead("b", 9.9)
    assert lead("b", 9.9, "reaper")
    assert lead("a", 9.9)
    assert not lead("b", 19.8)
    assert lead("b", 19.9)
    assert not lead("a", 20)


def test_a_leader_that_resigns_is_followed_at_once(empty) -> None:
    with empty.database.write() as session:
        assert leaders.lead(session, "relay", "a", TTL, empty.at(0))
        leaders.resign(session, "relay", "b")
        assert not leaders.lead(session, "relay", "b", TTL, empty.at(1))
        leaders.resign(session, "relay", "a")
        assert leaders.lead(session, "relay", "b", TTL, empty.at(1))


def test_of_several_that_ask_at_once_one_leads(empty) -> None:
    gate = threading.Barrier(6)
    won: list[str] = []
    now = utcnow()

    def ask(holder: str) -> None:
        gate.wait()
        with empty.database.write() as session:
            if leaders.lead(session, "relay", holder, TTL, now):
                won.append(holder)

    threads = [threading.Thread(target=ask, args=(f"h{i}",)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
