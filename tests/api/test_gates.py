"""How many requests are at work at the same time, and what becomes of the others."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from api.gates import Bounds, Budget, Gate
from pruning.errors import SecateurError


def run(what: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(what, 10))


class Held:
    """A task that holds a place until it is told to leave, or was refused."""

    def __init__(self, gate: Gate, project: str = "a", size: int = 0) -> None:
        self.inside = asyncio.Event()
        self.out = asyncio.Event()
        self.refused: SecateurError | None = None
        self.task = asyncio.create_task(self._hold(gate, project, size))

    async def _hold(self, gate: Gate, project: str, size: int) -> None:
        try:
            async with gate.place(project, size):
                self.inside.set()
                await self.out.wait()
        except SecateurError as error:
            self.refused = error

    async def leave(self) -> None:
        self.out.set()
        await self.task


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_over_the_places_requests_wait_and_over_that_they_are_refused_at_once() -> None:
    async def check() -> None:
        gate = Gate("things", Bounds(places=2, project_places=2, waiting=2, seconds=5))
        first, second = Held(gate), Held(gate)
        third = Held(gate)
        await turn()
        assert first.inside.is_set()
        assert second.inside.is_set()
        assert not third.inside.is_set()
        fourth = Held(gate)  # of one project at most half of those that may wait
        await fourth.task
        assert fourth.refused is not None
        assert fourth.refused.code == "overloaded"
        assert 1 <= fourth.refused.details["retry_after"] <= 30
        await first.leave()
        await turn()
        assert third.inside.is_set()
        await second.leave()
        await third.leave()
        assert not gate.inside
        assert not gate.sizes
        assert not gate.waiting

    run(check())


def test_who_waits_too_long_is_refused_and_leaves_nothing_behind() -> None:
    async def check() -> None:
        gate = Gate("things", Bounds(places=1, project_places=1, waiting=4, seconds=0.02))
        first, late = Held(gate), Held(gate, "b")
        await late.task
        assert late.refused is not None
        gone = Held(gate, "c")
        await turn()
        gone.task.cancel()
        await asyncio.gather(gone.task, return_exceptions=True)
        assert not gate.waiting
        await first.leave()
        assert not gate.inside

    run(check())


def test_a_turn_that_comes_as_its_request_is_cancelled_goes_to_the_next() -> None:
    async def check() -> None:
        gate = Gate("things", Bounds(places=1, project_places=1, waiting=4, seconds=5))
        first, second, third = Held(gate), Held(gate, "b"), Held(gate, "c")
        await turn()
        first.out.set()
        await asyncio.sleep(0)
        second.task.cancel()
        await turn()
        assert third.inside.is_set()
        await third.leave()
        assert not gate.inside

    run(check())


def test_a_request_that_is_cancelled_as_a_place_comes_free_does_not_take_it() -> None:
    async def check() -> None:
        gate = Gate("things", Bounds(places=1, project_places=1, waiting=4, seconds=5))
        first, second, third = Held(gate), Held(gate, "b"), Held(gate, "c")
        await turn()
        first.out.set()
        second.task.cancel()
        await first.task
        await turn()
        assert third.inside.is_set()
        await third.leave()
        assert not gate.inside
        assert not gate.waiting

    run(check())


def test_the_next_place_goes_to_the_project_that_has_the_fewest() -> None:
    async def check() -> None:
        gate = Gate("things", Bounds(places=3, project_places=3, waiting=10, seconds=5))
        busy = [Held(gate, "a") for _ in range(3)]
        await turn()
        more, other = Held(gate, "a"), Held(gate, "b")
        await turn()
        await busy[0].leave()
        await turn()
        assert other.inside.is_set()
        assert not more.inside.is_set()
        for held in (*busy[1:], other, more):
            await held.leave()

    run(check())


def test_one_project_never_takes_all_places() -> None:
    async def check() -> None:
        gate = Gate("things", Bounds(places=3, project_places=2, waiting=4, seconds=5))
        own = [Held(gate, "a") for _ in range(3)]
        await turn()
        assert [held.inside.is_set() for held in own] == [True, True, False]
        other = Held(gate, "b")
        await turn()
        assert other.inside.is_set()
        for held in (*own, other):
            await held.leave()

    run(check())


def test_announced_bytes_are_counted_and_one_alone_is_always_let_in() -> None:
    async def check() -> None:
        bounds = Bounds(9, 9, waiting=4, seconds=5, size=100, project_size=60)
        gate = Gate("uploads", bounds)
        large = Held(gate, "a", 500)
        small = Held(gate, "b", 1)
        await turn()
        assert large.inside.is_set()
        assert not small.inside.is_set()
        await large.leave()
        await turn()
        assert small.inside.is_set()
        own = [Held(gate, "a", 40), Held(gate, "a", 40)]
        await turn()
        assert [held.inside.is_set() for held in own] == [True, False]
        for held in (small, *own):
            await held.leave()

    run(check())


def test_a_budget_is_shared_and_a_project_has_at_most_half() -> None:
    budget = Budget(100)
    budget.take("a", 50)
    with pytest.raises(SecateurError, match="memory") as refused:
        budget.take("a", 1)
    assert refused.value.code == "overloaded"
    budget.take("b", 50)
    with pytest.raises(SecateurError):
        budget.take("c", 1)
    budget.give_back("a", 50)
    budget.take("c", 1)
    budget.give_back("c", 1)
    budget.give_back("b", 50)
    assert not budget.held
