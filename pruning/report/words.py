"""What the page says of numbers, names and checks."""

import re
from typing import Any

from pruning.catalogue import criteria
from pruning.report.numbers import (
    NONE,
    SHARES,
    asked,
    asked_share,
    count,
    limit,
    metric,
    number,
    points,
    ratio,
    seconds,
    several,
    share,
    size,
)
from pruning.report.numbers import asked as chosen
from pruning.report.schema import Check, MetricValue, Report
from pruning.report.study import Drop

__all__ = [
    "NONE",
    "SHARES",
    "asked",
    "asked_share",
    "change",
    "clean",
    "count",
    "found",
    "gates",
    "interval",
    "is_gate",
    "limit",
    "metric",
    "number",
    "points",
    "ratio",
    "seconds",
    "several",
    "share",
    "size",
    "span",
    "times",
    "title",
    "unbroken",
    "visible",
]

_UNIT = re.compile(r"(?<=\d) (?=(?:%|points?|[KMGT]iB|B|[mµ]?s|min)(?!\w))")

_COUNTS = ("target.bytes", "trust.dead_inputs")
"""Checks whose value is a number of things."""

_GATES = ("max_drop.", "max_bytes.", "latency", "layer_sparsity.", "target.")


def visible(text: str) -> str:
    """Text without control characters and marks that turn its direction; line breaks stay."""
    return "".join(c if c.isprintable() or c in "\n\u00a0" else "\ufffd" for c in text)


def unbroken(text: str) -> str:
    """Text in which no line ends between a number and its unit."""
    return _UNIT.sub("\u00a0", text)


def clean(text: str, limit: int = 60) -> str:
    """A name from a model on one line, the middle cut out where it is long."""
    shown = visible(text.replace("\n", "\ufffd"))
    half = (limit - 1) // 2
    return shown if len(shown) <= limit else f"{shown[:half]}…{shown[-half:]}"


def interval(name: str, found: MetricValue) -> str:
    """The 95 % interval of a metric."""
    if found.low is None or found.high is None:
        return NONE
    if name in SHARES:
        return f"{share(found.low).removesuffix(' %')} to {share(found.high)}"
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


def found(check: Check, value: float | None, asked: bool = False) -> str:
    """A check's value, or with `asked` its limit, in the unit of what it checks."""
    if value is None:
        return NONE
    kind, _, name = check.name.partition(".")
    if kind == "max_drop":
        return limit(name, value) if asked else points(name, value)
    if kind == "layer_sparsity":
        return asked_share(value) if asked else share(value)
    if kind == "max_bytes" or check.name in _COUNTS:
        return count(round(value))
    if asked:
        # A limit that was computed, as one sample in 450, has more digits than anybody chose.
        return chosen(value) if float(f"{value:.3g}") == value else number(value)
    return number(value)


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
