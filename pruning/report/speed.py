"""Whether the delivered file is faster than the upload: one reading of the measured ratio.

Page, command line and the section's own message say it in these words, so that none of them claims
what another leaves open.
"""

from typing import Literal

from pruning.report.numbers import ratio
from pruning.report.study import Latency

NEAR = 0.05
"""A ratio this close to 1 is called no difference, also where the interval excludes 1: where memory
happens to lie in one process alone moves times by as much (Mytkowicz et al. 2009)."""

WIDE = 0.15
"""Half the width of an interval around 1 up to which it says that nothing changed much."""

Speed = Literal["faster", "slower", "same", "unknown"]


def speed(found: Latency) -> Speed:
    """What the measurement shows.

    `faster` and `slower` need an interval that lies on one side of 1 and a ratio further than
    `NEAR` from it. `same` is a ratio near 1, or an interval around 1 that is no wider than `WIDE`.
    Anything else, and too few pairs for an interval, is `unknown`.
    """
    value, low, high = found.ratio, found.ratio_low, found.ratio_high
    if value is None or low is None or high is None:
        return "unknown"
    if low <= 1.0 <= high:
        return "same" if (high - low) / 2.0 <= WIDE else "unknown"
    if abs(value - 1.0) <= NEAR:
        return "same"
    return "faster" if value < 1.0 else "slower"


def clause(found: Latency) -> str:
    """The same in words, as part of a sentence; empty where nothing was measured."""
    if found.ratio is None:
        return ""
    shown = interval(found)
    return {
        "faster": f"a run takes {ratio(found.ratio)} of the upload's time ({shown})",
        "slower": f"a run takes {ratio(found.ratio)} times as long as the upload's ({shown})",
        "same": f"no difference in the time of a run was found (ratio {ratio(found.ratio)}, "
        f"{shown})",
        "unknown": "whether a run is faster can't be told from this measurement (ratio "
        f"{ratio(found.ratio)}, {shown})",
    }[speed(found)]


def interval(found: Latency) -> str:
    """The ratio's interval, or that there is none."""
    if found.ratio_low is None or found.ratio_high is None:
        return "too few runs fit the time for an interval"
    return f"95 % interval {ratio(found.ratio_low)} to {ratio(found.ratio_high)}"
