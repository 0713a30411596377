"""What a child is said to have died of: the limit it went over, the kernel, or a crash of its own.

Memory has one code, whoever ended the child for it. An attempt that used up its own share ends the
job, since it would do so again. One that the kernel ended below that share may have met others that
took the machine's memory, so that it counts as lost and is tried again.
"""

import signal
from dataclasses import dataclass
from typing import Any

from pruning.errors import SecateurError
from pruning.memory_errors import WORDS
from pruning.report.numbers import count, size
from worker.endings import Failed, Lost
from worker.watch import Excess

_NEAR = 0.9  # of the limit
_BETWEEN = 64 << 20  # what a process takes between one look and its end before the next
_LOG_END = 4000
_OTHERS = (*WORDS, "memoryerror")
_ADVICE = (
    "Use a smaller model, fewer samples or a smaller block; who runs the service can raise the "
    "limit (SECATEUR_CHILD_MEMORY_BYTES)."
)


@dataclass(frozen=True)
class Kept:
    """A child's memory.

    Args:
        limit: What it may keep, None for any.
        peak: The most that was seen.
        kernel_kills: Processes that the kernel ended meanwhile for want of memory, None where it
            does not count them.
    """

    limit: int | None
    peak: int
    kernel_kills: int | None

    @property
    def _used_up(self) -> bool:
        return self.limit is not None and (
            self.peak >= min(_NEAR * self.limit, self.limit - _BETWEEN)
        )

    def error(self, said: str, **details: Any) -> SecateurError:
        """That memory ran out, with what is known of it.

        Args:
            said: One sentence on how.
            details: Further facts.
        """
        may = "" if self.limit is None else f"It may keep {size(self.limit)}; "
        kept = f"the most that was seen is {size(self.peak)}." if self.peak else ""
        known: dict[str, Any] = {"limit_bytes": self.limit, "peak_bytes": self.peak or None}
        return SecateurError(
            "out_of_memory",
            " ".join(filter(None, (said, f"{may}{kept}".strip("; ") if may or kept else ""))),
            hint=_ADVICE,
            **{name: value for name, value in known.items() if value is not None},
            **details,
        )


def over(excess: Excess, kept: Kept) -> Failed:
    """The end of a child that went over a limit and was ended for it."""
    if excess.what == "memory":
        return Failed(kept.error("The job kept more memory than it may."))
    return Failed(
        SecateurError(
            "thread_limit",
            f"The job had {count(excess.found)} threads; it may have {count(excess.limit)}.",
            hint="Use fewer calibration samples.",
            limit=excess.limit,
        )
    )


def starved(returncode: int | None, log: str, kept: Kept) -> Failed | None:
    """The end of a child that died of a want of memory; None if it died of something else.

    Args:
        returncode: Exit code, minus the signal's number after a signal.
        log: What it printed.
        kept: Its memory.
    """
    if returncode == -signal.SIGKILL:
        if kept.kernel_kills:
            said = "The kernel ended the job's process because the machine's memory ran out."
            error = kept.error(said, exit_code=returncode)
            return Failed(error) if kept._used_up else Lost(error)
        if kept.kernel_kills is None and kept._used_up:
            return Failed(kept.error("The job's process was killed.", exit_code=returncode))
        return None
    end = log[-_LOG_END:].lower()
    if returncode and any(word in end for word in _OTHERS):
        said = "The job asked for more memory than it could have, and ended."
        return Failed(kept.error(said, exit_code=returncode))
    return None


def describe(returncode: int | None) -> str:
    """One sentence on how a child ended without saying so."""
    if returncode is None:
        return "The job's process stopped answering."
    if returncode >= 0:
        return f"The job's process ended early with exit code {returncode}."
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    reason = {
        "SIGKILL": " It was not the worker that did that.",
        "SIGXCPU": " It had used up its CPU time.",
        "SIGXFSZ": " It wrote a file over the size limit.",
    }.get(name, "")
    return f"The job's process was killed by {name}.{reason}"
