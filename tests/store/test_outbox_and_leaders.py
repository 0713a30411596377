import threading
from datetime import timedelta

from store import leaders, outbox
from store.clock import utcnow
from store.leaders import Lead


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


def test_a_leader_stays_until_its_beat_was_seen_for_too_long(empty) -> None:
    def lead(holder: str, over: Lead | None = None, name: str = "relay") -> Lead:
        with empty.database.write() as session:
            return leaders.lead(session, name, holder, empty.at(0), over=over)

    assert lead("a") == Lead("a", 1)
    seen = lead("b")
    assert seen == Lead("a", 1)
    assert lead("b", name="reaper") == Lead("b", 1)
    assert lead("a") == Lead("a", 2)
    # It has beat since it was seen.
    assert lead("b", over=seen) == Lead("a", 2)
    assert lead("b", over=Lead("a", 2)) == Lead("b", 3)
    assert lead("a") == Lead("b", 3)


def test_a_leader_that_resigns_is_followed_at_once(empty) -> None:
    def lead(session, holder: str) -> str:
        return leaders.lead(session, "relay", holder, empty.at(0)).holder

    with empty.database.write() as session:
        assert lead(session, "a") == "a"
        leaders.resign(session, "relay", "b")
        assert lead(session, "b") == "a"
        leaders.resign(session, "relay", "a")
        assert lead(session, "b") == "b"


def test_of_several_that_ask_at_once_one_leads(empty) -> None:
    def together(over: Lead | None) -> list[str]:
        gate = threading.Barrier(6)
        won: list[str] = []

        def ask(holder: str) -> None:
            gate.wait()
            with empty.database.write() as session:
                if leaders.lead(session, "relay", holder, utcnow(), over=over).holder == holder:
                    won.append(holder)

        threads = [threading.Thread(target=ask, args=(f"h{i}-{over}",)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return won

    [first] = together(None)
    # It fell silent after its first beat, and all of the next six have seen that.
    assert len(together(Lead(first, 1))) == 1


def test_a_leader_is_shown_as_alive_near_its_beat_whatever_the_clock_was_set_to(empty) -> None:
    def alive(at: float) -> bool:
        with empty.database.read() as session:
            return leaders.alive(session, "relay", empty.at(at), timedelta(seconds=10))

    with empty.database.write() as session:
        leaders.lead(session, "relay", "a", empty.at(1000))
    assert [alive(at) for at in (900, 995, 1005, 1100)] == [False, True, True, False]
