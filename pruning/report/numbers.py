"""How numbers are written, on the page, in messages and on the command line: one way.

Shares have one decimal (80.0 %), differences of shares are points, measured values have four
significant digits, small and large ones an exponent (1.04e-4). Spaces and minus signs are plain;
the page keeps a number and its unit on one line by itself.
"""

import math

NONE = "-"
"""Written where there is no number."""

SHARES = ("accuracy", "agreement")
"""Metrics that are shares of the samples; others are numbers as they stand."""

_TIMES = ((1.0, "s"), (1e3, "ms"), (1e6, "µs"))


def share(value: float | None) -> str:
    """0.9312 as 93.1 %; more decimals where one would make it 0 or 100 % and it is neither."""
    if value is None:
        return NONE
    per_cent = 100.0 * value
    for digits in range(1, 5):
        text = f"{per_cent:.{digits}f}"
        if float(text) not in (0.0, 100.0) or abs(float(text) - per_cent) < 1e-9:
            break
    return f"{_no_minus_zero(text)} %"


def number(value: float | None) -> str:
    """A measured value: 0.1873, 1.100, 12,346, 1.04e-4."""
    if value is None:
        return NONE
    if not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    magnitude = abs(float(f"{value:.3e}"))
    if not 1e-3 <= magnitude < 1e6:
        return exponent(value, 2)
    if magnitude >= 1000:
        return f"{value:,.0f}"
    return f"{value:#.4g}".rstrip(".")


def exponent(value: float, digits: int) -> str:
    """1.48e-07 as 1.48e-7.

    Args:
        value: Any finite number.
        digits: Decimals of the mantissa.
    """
    mantissa, _, power = f"{value:.{digits}e}".partition("e")
    return f"{mantissa}e{int(power)}"


def asked(value: float | None) -> str:
    """A value that somebody chose, as short as it was written: 0.01, 2, 20,000, 1e-5."""
    if value is None:
        return NONE
    if value.is_integer() and 1000 <= abs(value) < 1e6:
        return f"{value:,.0f}"
    text = f"{value:.6g}"
    mantissa, _, power = text.partition("e")
    return f"{mantissa}e{int(power)}" if power else text


def asked_share(value: float) -> str:
    """A share that somebody chose, or a tick of an axis: 0.95 as 95 %."""
    return f"{asked(round(100.0 * value, 9))} %"


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
        return f"{value} B"
    power = min(int(math.log2(value) // 10), 4)
    return f"{value / 1024**power:.1f} {('KiB', 'MiB', 'GiB', 'TiB')[power - 1]}"


def seconds(value: float | None, least: float | None = None) -> str:
    """A duration in the unit that fits it, or that fits `least`."""
    if value is None:
        return NONE
    fits = value if least is None else least
    if fits >= 100:
        return f"{value // 60:.0f} min {value % 60:.0f} s"
    factor, unit = next(((f, u) for f, u in _TIMES if fits * f >= 1), _TIMES[-1])
    digits = f"{value * factor:#.3g}" if least is None else f"{value * factor:.6g}"
    return f"{digits.rstrip('.')} {unit}"


def metric(name: str, value: float | None) -> str:
    """A metric's value: in per cent where it is a share of the samples."""
    return share(value) if name in SHARES else number(value)


def points(name: str, value: float | None, unit: bool = True) -> str:
    """A difference of a metric: .006 of an accuracy as 0.60 points.

    Args:
        name: The metric.
        value: The difference.
        unit: Whether the unit is written, where there is one.
    """
    if value is None:
        return NONE
    if name not in SHARES:
        return number(value)
    return _no_minus_zero(f"{100.0 * value:.2f}") + (" points" if unit else "")


def limit(name: str, value: float) -> str:
    """An allowed difference, as short as it was asked for: .01 of an accuracy as 1 point."""
    if name not in SHARES:
        return asked(value)
    allowed = round(100 * value, 6)
    return f"{allowed:g} point{'' if allowed == 1 else 's'}"


def ratio(value: float | None) -> str:
    """A ratio of two like quantities: 0.98, 7.5, 12."""
    if value is None:
        return NONE
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _no_minus_zero(text: str) -> str:
    return text[1:] if text.startswith("-") and not text.strip("-0.") else text
