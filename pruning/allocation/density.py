"""Densities that an allocation wishes for, made to add up."""

from collections.abc import Callable

STEPS = 200


def scaled(wishes: list[float], sizes: list[int], kept: float) -> list[float]:
    """min(1, e * wish) of each layer, with the e at which `kept` weights stay in all."""
    most = max(1.0 / w for w in wishes)
    return _solve(lambda e: [min(1.0, e * w) for w in wishes], 0.0, most, sizes, kept)


def shifted(wishes: list[float], sizes: list[int], kept: float) -> list[float]:
    """Wish + c of each layer, within 0 and 1, with the c at which `kept` weights stay in all."""
    low, high = -max(wishes), 1.0 - min(wishes)
    return _solve(lambda c: [min(1.0, max(0.0, w + c)) for w in wishes], low, high, sizes, kept)


def _solve(
    densities: Callable[[float], list[float]],
    low: float,
    high: float,
    sizes: list[int],
    kept: float,
) -> list[float]:
    for _ in range(STEPS):
        middle = (low + high) / 2.0
        stay = sum(n * d for n, d in zip(sizes, densities(middle), strict=True))
        low, high = (middle, high) if stay < kept else (low, middle)
    return densities(high)
