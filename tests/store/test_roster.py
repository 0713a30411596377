"""Who lives, as far as a wall clock tells."""

from store import roster


def levels(world, at: float) -> dict[str, int]:
    with world.database.read() as session:
        return roster.levels(session, world.at(at))


def seen(world, name: str, at: float) -> None:
    with world.database.write() as session:
        roster.seen(session, name, "landlock", world.at(at))


def test_who_fell_silent_is_not_counted_on_either_side_of_a_clock_that_is_set(empty) -> None:
    seen(empty, "a", 10_000)
    seen(empty, "b", 10_000)
    assert levels(empty, 10_060) == {"landlock": 2}
    assert levels(empty, 10_000 + 3600) == {}
    assert levels(empty, 10_000 - 3600) == {}
    # The one that lives says so again, and the row of the other goes.
    seen(empty, "a", 10_000 - 3600)
    assert levels(empty, 10_000 - 3600) == {"landlock": 1}
    assert levels(empty, 10_000) == {}
