"""How long the latency of a job's file is measured; known without what measures it."""

from dataclasses import dataclass

from pruning.spec import Spec


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Args:
        half_width: Of the interval, as a share of the ratio, at which it is narrow enough.
        seconds: All runs together, about.
        longest: Seconds after which even the fewest ratios are given up.
    """

    half_width: float = 0.03
    seconds: float = 1.0
    longest: float = 20.0


HELD = Effort(half_width=0.01, seconds=10.0, longest=120.0)
"""Where a gate is held to the result, which then hangs on it."""


def effort_of(spec: Spec) -> Effort:
    """What a job's measurement is worth."""
    return Effort() if spec.gates.latency is None else HELD
