"""How far evaluation data can tell a drop from chance, before anything is measured. Torch-free."""

from math import ceil
from statistics import NormalDist

LEVEL = 0.95


def quantile(simultaneous: int = 1, level: float = LEVEL) -> float:
    """Standard deviations of a two-sided interval that holds `simultaneous` times at once."""
    return NormalDist().inv_cdf(1.0 - (1.0 - level) / (2.0 * simultaneous))


def half_width(samples: int, changed: float, simultaneous: int) -> float:
    """Half the width of the interval of a drop by pairs (Agresti and Min 2005).

    Args:
        samples: Pairs.
        changed: The share of them whose answer is right before and wrong after, or the other way.
        simultaneous: How many such intervals hold at once.
    """
    n = samples + 2
    return quantile(simultaneous) * ((samples * changed + 1.0) / n / n) ** 0.5


def samples_for(half: float, changed: float, simultaneous: int) -> int:
    """Fewest samples whose interval is at most so wide, to each side."""
    z = quantile(simultaneous)
    # n from half^2 n^2 = z^2 (n changed + 1), a little more than enough.
    return ceil((z * z * changed + (z**4 * changed**2 + 4.0 * z * z * half**2) ** 0.5)
                / (2.0 * half**2))  # fmt: skip
