"""Identifiers: a prefix and 26 base32 characters whose order is the order of creation."""

import secrets
import threading
import time

# Crockford's alphabet in ASCII order, so that comparing strings compares times.
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
PREFIXES = {
    "project": "prj",
    "key": "key",
    "model": "mdl",
    "dataset": "ds",
    "job": "job",
    "attempt": "att",
    "artifact": "art",
}

_lock = threading.Lock()
_last = 0


def new_id(kind: str) -> str:
    """A new identifier, for example `job_01k9…`: 48 bits of milliseconds and 80 random bits.

    Identifiers made by one process increase strictly, also within a millisecond.

    Args:
        kind: A key of `PREFIXES` (`job`) or one of its values (`mdl`).
    """
    prefix = PREFIXES.get(kind, kind)
    if prefix not in PREFIXES.values():
        raise ValueError(f"unknown kind of identifier: {kind!r}")
    global _last
    with _lock:
        value = max(time.time_ns() // 1_000_000 << 80 | secrets.randbits(80), _last + 1)
        _last = value
    return f"{prefix}_{_base32(value)}"


def _base32(value: int) -> str:
    return "".join(ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))
