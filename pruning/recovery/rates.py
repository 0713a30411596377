"""How the learning rate changes over the steps, as a factor of the optimizer's own."""

import math

from pruning.spec import Constant, Cosine, OneCycle

START = 1 / 25
"""Of the rate, where one cycle begins (Smith 2018; the value of torch's OneCycleLR)."""


def factor(rates: Constant | Cosine | OneCycle, step: int, total: int) -> float:
    """The factor in one step.

    With w = warmup * total steps of warm-up, rounded, the factor is (t + 1) / w in step t < w.
    After it `constant` is 1, and `cosine` is f + (1 - f) (1 + cos(pi (t - w) / (T - w))) / 2 for
    the final factor f (Loshchilov, Hutter 2017, eq. 5). `one_cycle` has its own warm-up: half a
    cosine from 1/25 to 1 that ends in step warmup * T - 1, then one to f in step T - 1.

    Args:
        rates: The spec's part.
        step: t, from 0.
        total: T, steps in all.
    """
    if isinstance(rates, OneCycle):
        top, last = rates.warmup * total - 1.0, total - 1.0
        if step < top:
            return _cosine(START, 1.0, step / top)
        top = max(top, 0.0)
        return _cosine(1.0, rates.final, (step - top) / (last - top)) if last > top else 1.0
    warm = round(rates.warmup * total)
    if step < warm:
        return (step + 1) / warm
    if isinstance(rates, Cosine):
        return _cosine(1.0, rates.final, (step - warm) / (total - warm))
    return 1.0


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1.0 + math.cos(math.pi * share)) / 2.0
