"""How often a client may show keys that are not known here."""

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pruning.errors import SecateurError

SECONDS_EACH = 3.0
"""After so long a client may show one unknown key more."""

_MOST = 10_000
"""Addresses, and known keys, that are remembered."""


@dataclass
class Attempt:
    """A look-up of a key; `known` is set by what it found."""

    known: bool | None = None


class FailedKeys:
    """A token bucket for each address, which unknown keys drain.

    With an empty bucket keys that were known lately are let in as ever: they are looked up like all
    others, and who shares an address with somebody else's mistake does not pay for it. Of other
    keys one is looked up at a time for each such address; the rest is 429 without a look-up.

    Args:
        limit: Unknown keys that an address may show at once.
        clock: Seconds.
    """

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self._clock = clock
        self._spent: dict[str, tuple[float, float]] = {}  # how much was missing, and when
        self._known: dict[bytes, None] = {}  # digests, the latest last
        self._looking: set[str] = set()

    @contextmanager
    def attempt(self, address: str, secret: str) -> Iterator[Attempt]:
        """A look-up of a secret, which runs inside.

        Raises:
            SecateurError: `too_many_requests`, before it for a key that can't be looked up now, or
                after it for one that is not known either.
        """
        mark = hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
        missing = self._missing(address)
        throttled = missing > self.limit - 1 and mark not in self._known
        if throttled:
            if address in self._looking:
                raise self._refusal(missing)
            self._looking.add(address)
        attempt = Attempt()
        try:
            yield attempt
        finally:
            if throttled:
                self._looking.discard(address)
        if attempt.known:
            self._known.pop(mark, None)
            self._known[mark] = None
            _bound(self._known)
        elif attempt.known is False:
            self._known.pop(mark, None)
            if throttled:
                raise self._refusal(missing)
            self._spent.pop(address, None)
            self._spent[address] = (missing + 1, self._clock())
            _bound(self._spent)

    def _missing(self, address: str) -> float:
        missing, since = self._spent.get(address, (0.0, 0.0))
        return max(0.0, missing - (self._clock() - since) / SECONDS_EACH) if missing else 0.0

    def _refusal(self, missing: float) -> SecateurError:
        return SecateurError(
            "too_many_requests",
            "Too many unknown API keys came from this address.",
            where="Authorization",
            hint="Correct the key; a key that is known is let in all the same.",
            retry_after=max(1, math.ceil((missing - self.limit + 1) * SECONDS_EACH)),
        )


def _bound(table: dict[Any, Any]) -> None:
    """Drops the oldest entry where there are too many."""
    if len(table) > _MOST:
        del table[next(iter(table))]
