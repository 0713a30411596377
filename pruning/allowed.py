"""Whether a drop of a metric is an allowed one: for gates, rounds that stop, and searches."""

ROUNDING = 1e-12


def allows(most: float, drop: float) -> bool:
    """A drop of exactly the allowed size is allowed, whatever the subtraction rounds to."""
    return drop <= most + ROUNDING
