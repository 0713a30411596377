"""Numbers as people read them."""

import math
from typing import Any

from pruning.catalogue import criteria
from pruning.report.schema import Check, MetricValue, Report
from pruning.report.study import Drop

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

NONE = "\u2013"
"""Shown where there is no number."""

SHARES = ("accuracy", "agreement")
"""Metrics that are shares of the samples; others are numbers as they stand."""

_UNITS = ((1.0, "s"), (1e3, "ms"), (1e6, "µs"))

_GATES = ("max_drop.", "max_bytes.", "latency", "layer_sparsity.", "target.")


def visible(text: str) -> str:
    """Text without control characters and marks that turn its direction; line breaks stay."""
    return "".join(c if c.isprintable() or c in "\n\u00a0" else "\ufffd" for c in text)


def clean(text: str, limit: int = 60) -> str:
    """A name from a model on one line, the middle cut out where it is long."""
    shown = visible(text.replace("\n", "\ufffd"))
    half = (limit - 1) // 2
    return shown if len(shown) <= limit else f"{shown[:half]}…{shown[-half:]}"


def share(value: float | None, digits: int = 2) -> str:
    """0.9312 as 93.12 %."""
    return NONE if value is None else f"{100 * value:.{digits}f}\u00a0%".replace("-", "\u2212")


def number(value: float | None) -> str:
    """Four significant digits."""
    if value is None:
        return NONE
    text = f"{value:.4g}"
    return (scientific(value, 2) if "e" in text else text).replace("-", "\u2212")


def scientific(value: float, digits: int) -> str:
    """1.48e-07 as 1.48·10⁻⁷."""
    mantissa, _, exponent = f"{value:.{digits}e}".partition("e")
    power = "10" + str(int(exponent)).translate(_SUPERSCRIPTS)
    shown = f"{float(mantissa):g}"
    return power if shown == "1" else f"{shown}·{power}"


def count(value: int) -> str:
    """1234567 as 1,234,567."""
    return f"{value:,}"


def several(value: int, one: str, many: str | None = None) -> str:
    """3 samples, 1 sample."""
    return f"{count(value)} {one if value == 1 else many or one + 's'}"


def size(value: int | None) -> str:
    """Bytes in the unit that gives one to four digits before the point."""
    if value is None:
        return NONE
    if value < 1024:
        return f"{value}\u00a0B"
    power = min(int(math.log2(value) // 10), 4)
    return f"{value / 1024**power:.1f}\u00a0{('KiB', 'MiB', 'GiB', 'TiB')[power - 1]}"


def seconds(value: float | None, least: float | None = None) -> str:
    """A duration in the unit that fits it, or that fits `least`."""
    if value is None:
        return NONE
    size = value if least is None else least
    if size >= 100:
        return f"{value // 60:.0f}\u00a0min {value % 60:.0f}\u00a0s"
    factor, unit = next(((f, u) for f, u in _UNITS if size * f >= 1), _UNITS[-1])
    digits = f"{value * factor:#.3g}" if least is None else f"{value * factor:.6g}"
    return f"{digits.rstrip('.')}\u00a0{unit}"


def metric(name: str, value: float | None) -> str:
    """A metric's value: in per cent where it is a share."""
    return share(value) if name in SHARES else number(value)


def points(name: str, value: float | None, unit: bool = True) -> str:
    """A difference of a metric: .006 of an accuracy as 0.60 points."""
    if value is None:
        return NONE
    if name not in SHARES:
        return number(value)
    # Nothing is less than zero that would be written as zero.
    return f"{round(100 * value, 2) + 0.0:.2f}{' points' if unit else ''}".replace("-", "\u2212")


def limit(name: str, value: float) -> str:
    """An allowed difference, as short as it was asked for: .01 of an accuracy as 1 point."""
    if name not in SHARES:
        return number(value)
    asked = round(100 * value, 6)
    return f"{asked:g} point{'' if asked == 1 else 's'}"


def interval(name: str, found: MetricValue) -> str:
    """The 95 % interval of a metric."""
    if found.low is None or found.high is None:
        return NONE
    if name in SHARES:
        return f"{100 * found.low:.1f} to {100 * found.high:.1f}\u00a0%"
    return f"{number(found.low)} to {number(found.high)}"


def span(name: str, drop: Drop) -> str:
    """The interval of a drop, without its unit; of the rise where it rose."""
    low, high = drop.low, drop.high
    if drop.value is not None and drop.value < 0 and low is not None and high is not None:
        low, high = -high, -low
    return f"{points(name, low, False)} to {points(name, high, False)}"


def change(name: str, drop: Drop) -> str:
    """What became of a metric between the dense and the delivered network."""
    if drop.value is None:
        return "could not be compared"
    if drop.value == 0:
        return "stayed"
    return f"{'fell' if drop.value > 0 else 'rose'} by {points(name, abs(drop.value))}"


def title(kind: str) -> str:
    """A criterion's name for people, its kind where the catalogue does not know it."""
    known: Any = criteria().get(kind)
    return kind if known is None else known.about.title


def is_gate(check: str) -> bool:
    """Whether a check is a gate of the spec, by its name."""
    return check.startswith(_GATES)


def gates(report: Report) -> list[Check]:
    """All gates of the spec, that on the latency among them."""
    found = [c for c in report.checks if c.group == "gate" or is_gate(c.name)]
    timed = report.latency.gate if report.latency else None
    return [*found, *([timed] if timed and timed.name not in {c.name for c in found} else [])]


def times(report: Report) -> list[tuple[str, float, list[tuple[str, float]]]]:
    """Seconds of each phase, each with what parts of it took."""
    return [
        (
            phase,
            spent,
            [
                (n.partition(".")[2], s)
                for n, s in report.timings.items()
                if n.startswith(f"{phase}.")
            ],
        )
        for phase, spent in report.timings.items()
        if "." not in phase
    ]
