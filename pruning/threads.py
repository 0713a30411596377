"""How many threads a process that computes may use, and how they wait: the one place that knows.

A thread that has nothing to do spins by default, in libgomp, libiomp and onnxruntime alike, for as
long as a tenth of a second each time. On a machine with other work that takes the core from the
very thread that is waited for, so ours sleep instead. Numbers do not depend on it.

All variables must be set before torch or NumPy is loaded. Free of both.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from pruning.control_groups import folders, lines
from pruning.errors import SecateurError

OWN = "SECATEUR_THREADS"
"""The variable that decides, before every other."""

_COUNTS = (
    "OMP_NUM_THREADS",  # torch, and the pool of Arrow
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",  # NumPy
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",  # tokenizers
    "POLARS_MAX_THREADS",
)

_SLEEP = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "KMP_BLOCKTIME": "0",  # libiomp and libomp: of MKL, and of torch on macOS
    "OPENBLAS_THREAD_TIMEOUT": "4",  # 2^4 turns of its loop, the fewest there are
}

_USERS = (
    "GOMP_SPINCOUNT",
    "GOMP_CPU_AFFINITY",
    "KMP_AFFINITY",
    "OMP_DYNAMIC",
    "OMP_PLACES",
    "OMP_PROC_BIND",
    "OMP_THREAD_LIMIT",
)
"""What else of a user's settings says how threads wait and where they run."""


def cpus() -> frozenset[int]:
    """The processors that this process may run on, by number."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def cores(root: Path = Path("/")) -> int:
    """Processors that this process can keep busy: those it may run on, within its quota.

    Args:
        root: Where `proc` and the control groups' file systems are looked for.
    """
    found = float(len(cpus()))
    limit = quota(root)
    return max(1, int(found if limit is None else min(found, limit)))


def quota(root: Path = Path("/")) -> float | None:
    """Processors' worth of time that the control groups of this process allow, None for no limit.

    The smallest of its own group's and of all groups around it, as far as they can be seen, in
    version 2 (`cpu.max`) and version 1 (`cpu.cfs_quota_us`).

    Args:
        root: Where `proc` and the control groups' file systems are looked for.
    """
    limits = [
        limit
        for folder in folders("cpu", root)
        for limit in (_limit_of_version_2(folder), _limit_of_version_1(folder))
        if limit is not None
    ]
    return min(limits, default=None)


def _limit_of_version_2(folder: Path) -> float | None:
    allowed, _, period = "".join(lines(folder / "cpu.max")[:1]).partition(" ")
    return _ratio(allowed, period)


def _limit_of_version_1(folder: Path) -> float | None:
    allowed = "".join(lines(folder / "cpu.cfs_quota_us")[:1])
    return _ratio(allowed, "".join(lines(folder / "cpu.cfs_period_us")[:1]))


def _ratio(allowed: str, period: str) -> float | None:
    try:
        part, whole = int(allowed), int(period)
    except ValueError:
        return None  # no such file, or "max"
    return part / whole if part > 0 and whole > 0 else None


def asked(outer: Mapping[str, str] | None = None) -> int | None:
    """Threads that the environment asks for: SECATEUR_THREADS, else OMP_NUM_THREADS, else None.

    Args:
        outer: The environment; this process's where left out.

    Raises:
        SecateurError: `usage` where SECATEUR_THREADS is no positive number.
    """
    outer = os.environ if outer is None else outer
    found = own(outer)
    return _number(outer, "OMP_NUM_THREADS") if found is None else found


def own(outer: Mapping[str, str] | None = None) -> int | None:
    """Threads that SECATEUR_THREADS asks for, None where it is not set.

    Args:
        outer: The environment; this process's where left out.

    Raises:
        SecateurError: `usage` where it is no positive number.
    """
    text = (os.environ if outer is None else outer).get(OWN, "").strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise SecateurError(
            "usage", f"{OWN} is {text!r}, which is no number of threads.", where=OWN,
            hint="Set it to 1 or more, or unset it for all cores.",
        )  # fmt: skip
    return int(text)


def _number(outer: Mapping[str, str], name: str) -> int | None:
    # A list holds the numbers of nested levels; the first is the outermost.
    text = outer.get(name, "").partition(",")[0].strip()
    return int(text) if text.isdecimal() and int(text) > 0 else None


def share(processes: int = 1, outer: Mapping[str, str] | None = None) -> int:
    """Threads for each of several processes that compute side by side.

    Args:
        processes: How many there are.
        outer: The environment, whose word counts for each of them.

    Raises:
        SecateurError: `usage`, as `asked`.
    """
    found = asked(outer) or max(1, cores() // max(1, processes))
    # Libraries keep to it without a word, and the report would name threads that there are not.
    limit = _number(os.environ if outer is None else outer, "OMP_THREAD_LIMIT")
    return found if limit is None else min(found, limit)


def variables(threads: int, outer: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables of a process whose libraries shall use so many threads, which sleep as they wait.

    Args:
        threads: How many.
        outer: The environment, whose own settings of how threads wait and where they run go on
            unchanged; this process's where left out.
    """
    outer = os.environ if outer is None else outer
    found = dict.fromkeys(_COUNTS, str(threads))
    found |= {name: outer[name] for name in _USERS if name in outer}
    for name, value in _SLEEP.items():
        if name in outer:
            found[name] = outer[name]
        elif name != "KMP_BLOCKTIME" or "OMP_WAIT_POLICY" not in outer:
            # Where it is not set, the policy says it for these libraries too.
            found[name] = value
    return found


def prepare(threads: int) -> None:
    """Puts `variables` into this process's environment, for what it has yet to import."""
    os.environ.update(variables(threads))
