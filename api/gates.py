"""How many requests of a kind may be at work at the same time, and how many may wait for that.

What is not let in is refused at once with 503 and the time after which to try again: a request that
waits costs memory, and one that waits longer than its client does is done for nobody.
"""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pruning.errors import SecateurError
from store.settings import Settings

BODY_BYTES = 64 << 20
"""What bodies that are no uploads may hold together."""

_LONGEST_RETRY = 30


@dataclass(frozen=True)
class Bounds:
    """What a gate lets in.

    Args:
        places: Requests at the same time.
        project_places: The same of one project.
        waiting: Requests that wait for a place; of one project at most half of them.
        seconds: Longest wait.
        size: Bytes that those inside may have announced together; 0 for any number.
        project_size: The same of one project.
    """

    places: int
    project_places: int
    waiting: int = 0
    seconds: float = 0.0
    size: int = 0
    project_size: int = 0


@dataclass(eq=False)
class _Waiter:
    project: str
    size: int
    turn: asyncio.Future[None]


class Gate:
    """Counts who is inside. For one event loop.

    The next to come in is of the project that has the fewest inside; among those, who came first.

    Args:
        what: What is counted, for messages, such as `uploads`.
        bounds: How many.
    """

    def __init__(self, what: str, bounds: Bounds) -> None:
        self.what, self.bounds = what, bounds
        self.inside: Counter[str] = Counter()
        self.sizes: Counter[str] = Counter()
        self.waiting: list[_Waiter] = []
        self.refused = 0
        self._places = 0
        self._size = 0
        self._seconds = 0.05  # that one stays inside, on average of late

    @asynccontextmanager
    async def place(self, project: str, size: int = 0) -> AsyncIterator[None]:
        """Waits for a place and holds it.

        Args:
            project: Whose request it is.
            size: Bytes that it announces.

        Raises:
            SecateurError: `overloaded`.
        """
        await self._enter(project, size)
        since = asyncio.get_running_loop().time()
        try:
            yield
        finally:
            stayed = asyncio.get_running_loop().time() - since
            self._seconds += (stayed - self._seconds) / 20
            self._leave(project, size)

    async def _enter(self, project: str, size: int) -> None:
        if self._has_room(project, size):
            self._take(project, size)
            return
        own = sum(waiter.project == project for waiter in self.waiting)
        if len(self.waiting) >= self.bounds.waiting or own >= (self.bounds.waiting + 1) // 2:
            raise self._refusal()
        waiter = _Waiter(project, size, asyncio.get_running_loop().create_future())
        self.waiting.append(waiter)
        try:
            async with asyncio.timeout(self.bounds.seconds):
                await waiter.turn
        except BaseException as error:
            if waiter in self.waiting:
                self.waiting.remove(waiter)
            else:  # its turn came at the same moment
                self._leave(project, size)
            if isinstance(error, TimeoutError):
                raise self._refusal() from None
            raise

    def _has_room(self, project: str, size: int) -> bool:
        bounds = self.bounds
        if self._places >= bounds.places or self.inside[project] >= bounds.project_places:
            return False
        # One alone is let in whatever its size: the limit of a single request is another matter.
        whole = not bounds.size or not self._size or self._size + size <= bounds.size
        own = self.sizes[project]
        return whole and (not bounds.project_size or not own or own + size <= bounds.project_size)

    def _take(self, project: str, size: int) -> None:
        self._places += 1
        self._size += size
        self.inside[project] += 1
        self.sizes[project] += size

    def _leave(self, project: str, size: int) -> None:
        self._places -= 1
        self._size -= size
        self.inside[project] -= 1
        self.sizes[project] -= size
        if not self.inside[project]:
            del self.inside[project], self.sizes[project]
        while self._places < self.bounds.places:
            # One that was cancelled in this turn of the loop is still in the list.
            able = [
                w for w in self.waiting if not w.turn.done() and self._has_room(w.project, w.size)
            ]
            if not able:
                return
            following = min(able, key=lambda waiter: self.inside[waiter.project])
            self.waiting.remove(following)
            self._take(following.project, following.size)
            following.turn.set_result(None)

    def _refusal(self) -> SecateurError:
        self.refused += 1
        ahead = (len(self.waiting) + 1) * self._seconds / self.bounds.places
        return SecateurError(
            "overloaded",
            f"There are as many {self.what} as the service takes at the same time.",
            hint="Send the request again after the seconds of Retry-After.",
            retry_after=min(max(1, math.ceil(ahead)), _LONGEST_RETRY),
        )


class Budget:
    """Bytes that requests hold in memory, and those of one project: at most half.

    Args:
        size: Bytes of all together.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.held: Counter[str] = Counter()

    def take(self, project: str, size: int) -> None:
        """Counts bytes that arrived.

        Raises:
            SecateurError: `overloaded`.
        """
        if self.held.total() + size > self.size or self.held[project] + size > self.size // 2:
            raise SecateurError(
                "overloaded",
                "The bodies of requests that are at work take as much memory as they may.",
                hint="Send the request again after the seconds of Retry-After.",
                retry_after=2,
            )
        self.held[project] += size

    def give_back(self, project: str, size: int) -> None:
        """The bytes are held no more."""
        self.held[project] -= size
        if not self.held[project]:
            del self.held[project]


def half(places: int) -> int:
    """Rounded up: what one project may have of places that several share."""
    return places - places // 2


def uploads_of_a_project(settings: Settings) -> int:
    """Uploads of one project that may be in progress at the same time."""
    return half(settings.uploads_limit)


class Gates:
    """The gates of a process.

    Args:
        settings: How many of each.
    """

    def __init__(self, settings: Settings) -> None:
        s = settings
        self.uploads = Gate(
            "uploads",
            Bounds(
                places=s.uploads_limit,
                project_places=uploads_of_a_project(s),
                waiting=s.uploads_waiting_limit,
                seconds=s.gate_seconds,
                size=s.upload_bytes_limit,
                project_size=s.upload_bytes_limit // 2,
            ),
        )
        # Apart from other reads: one takes as long as its client likes to.
        self.downloads = Gate(
            "downloads",
            Bounds(s.downloads_limit, half(s.downloads_limit), s.downloads_limit, s.gate_seconds),
        )
        self.streams = Gate(
            "event streams", Bounds(s.event_streams_limit, s.project_event_streams_limit)
        )
        self.bodies = Budget(BODY_BYTES)
        # Threads of the pool are 40: all that is let in finds one.
        self.writes = Gate("writes", Bounds(12, 8, waiting=400, seconds=s.gate_seconds))
        self.reads = Gate("reads", Bounds(12, 8, waiting=400, seconds=s.gate_seconds))
        self.operations = Gate("such requests", Bounds(4, 4, waiting=100, seconds=s.gate_seconds))
