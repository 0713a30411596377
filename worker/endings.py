"""The ways an attempt ends before its child is done, as exceptions that carry what to write."""

from typing import Any

from pruning.errors import SecateurError
from worker.bounds import shortened


class Ending(Exception):  # noqa: N818 - not an error: a reason to stop
    """Why the attempt stops."""


class Stale(Ending):
    """The lease was lost: somebody else may hold the job, so nothing is written."""


class Cancelled(Ending):
    """The user asked for it."""


class Drained(Ending):
    """The worker stops; the job goes back to the queue."""


class Failed(Ending):
    """The job can't succeed: it ends with this error.

    Args:
        error: What the user is told.
    """

    def __init__(self, error: SecateurError) -> None:
        super().__init__(str(error))
        self.error: dict[str, Any] = shortened(error)


class PutOff(Failed):
    """The service can't work on the job now, as its disk is full: it waits, and is tried again."""


class Lost(Failed):
    """This attempt is over, another may succeed: it is tried again, up to the limit."""
