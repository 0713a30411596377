"""What a scenario is given, and what it hands back."""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from tests.faults.service import NotHeldError, Service


class SkippedError(Exception):
    """The machine can't do what the scenario needs; the text says what."""


@dataclass
class Stage:
    """One scenario on one service: how many rounds, chance, and the record of what did not hold.

    Args:
        service: Running, with nothing amiss.
        rounds: How many there shall be.
        random: Seeded.
        long: Whether the long form was asked for.
        seconds: How long a soak lasts.
        say: Prints a line of progress.
    """

    service: Service
    rounds: int
    random: random.Random
    long: bool
    seconds: float = 0.0
    done: int = 0
    wrong: list[str] = field(default_factory=list)
    longest: float = 0.0
    notes: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def hold(self, held: object, what: str) -> None:
        """Record `what` as wrong unless it held."""
        if not held:
            self.wrong.append(what)
            self.say(f"NOT HELD: {what}")

    def note(self, text: str) -> None:
        """A figure for the table."""
        self.notes.append(text)

    def say(self, text: str) -> None:
        print(f"    {time.monotonic() - self.began:6.1f} s  {text}", flush=True)

    def recovered(self, since: float) -> None:
        """What was disturbed at `since` (monotonic) is well again."""
        self.longest = max(self.longest, time.monotonic() - since)

    @contextmanager
    def round(self, what: str) -> Iterator[None]:
        """One round; what does not hold in it is recorded, and the next one goes on."""
        began = time.monotonic()
        before = len(self.wrong)
        try:
            yield
        except NotHeldError as error:
            self.hold(False, f"{what}: {error}")
        self.done += 1
        ended = "" if len(self.wrong) == before else "  WRONG"
        self.say(f"{self.done}/{self.rounds} {what} {time.monotonic() - began:.1f} s{ended}")

    def each(self, *kinds: str) -> Iterator[str]:
        """Kinds for the rounds: each in turn, in an order that chance shuffles anew each time."""
        given = 0
        while True:
            order = list(kinds)
            if given or self.long:
                self.random.shuffle(order)
            for kind in order:
                if given == self.rounds:
                    return
                given += 1
                yield kind


class Scenario(Protocol):
    """A module under `scenarios/`."""

    __name__: str
    SHORT: int
    """Rounds in the short form."""
    LONG: int
    """Rounds in the long form."""

    def run(self, stage: Stage) -> None:
        """Disturb the service and check what holds."""
