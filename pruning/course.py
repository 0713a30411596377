"""One progress over a whole job, out of what its processes say one after the other. Torch-free."""

import time
from collections.abc import Callable

from pruning.events import AliveEvent, Event, Phase, PhaseEvent, ProgressEvent
from pruning.workload import drifted, remaining


class Course:
    """What was told of a job so far: its fraction never falls, and its time is one clock's.

    A process estimates from what it sees itself. The second one knows nothing of the first one's
    pace, so that its estimate may begin below where the first one ended.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = self._heard_at = clock()
        self._heard: float | None = None
        self._eta: float | None = None
        self._shown: float | None = None
        self._phase: Phase | None = None

    def told(self, event: Event) -> Event:
        """The event as it is handed on."""
        if isinstance(event, PhaseEvent):
            self._phase = event.phase
        if not isinstance(event, ProgressEvent):
            return event
        now = self._clock()
        if event.eta_seconds is not None:
            self._eta = event.eta_seconds
        elif self._eta is not None:
            self._eta = max(0.0, self._eta - (now - self._heard_at))
        self._heard, self._heard_at = self._risen(event.fraction), now
        self._phase = event.phase
        return event.model_copy(update=self._fields(self._eta))

    def alive(self, quiet_seconds: float) -> AliveEvent:
        """That the job goes on, as far as the worker sees, while nothing is heard of it.

        Args:
            quiet_seconds: Since it was.
        """
        since, eta = self._clock() - self._heard_at, self._eta
        if self._heard is not None:
            self._risen(drifted(self._heard, eta, since))
        left = None if eta is None else remaining(eta, since)
        return AliveEvent(
            phase=self._phase, quiet_seconds=round(quiet_seconds, 2), **self._fields(left)
        )

    def _risen(self, fraction: float | None) -> float | None:
        known = [f for f in (fraction, self._shown) if f is not None]
        self._shown = max(known, default=None)
        return self._shown

    def _fields(self, eta: float | None) -> dict[str, float | None]:
        return {
            "fraction": None if self._shown is None else round(self._shown, 4),
            "elapsed_seconds": round(self._clock() - self._began, 2),
            "eta_seconds": None if eta is None else round(eta, 2),
        }
