"""Options that stand before the sub-command, and exit codes: all that costs no import."""

from dataclasses import dataclass

SUCCEEDED, FAILED, USAGE, REJECTED, CANCELLED = 0, 1, 2, 3, 130


@dataclass
class State:
    """Options that stand before the sub-command."""

    url: str | None = None
    debug: bool = False


state = State()
