"""The most sparsity within an allowed drop: where a bracketing search looks next.

With x = -ln(kept share), the bracket reaches from the largest x accepted, 0 at first, to the
smallest one refused, at first that of the most sparsity tried. A probe is where the drop is
expected to be the one allowed: the logarithm of the drop is taken as linear in x between the ends
(regula falsi), below all that was tried as a power of x, and the point is moved a little towards
the bracket's middle, so that the other end follows soon (as Oliveira and Takahashi 2020, ITP).
Wherever halving alone would reach the resolution with the probes that are left, the point is held
to where it still would, whatever the drops are. Drops need not rise with sparsity: every probe lies
inside the bracket, so the answer is the largest sparsity accepted, and none above it that was tried
was accepted. Torch-free.
"""

from dataclasses import dataclass
from math import exp, inf, log, log1p

from pruning.allowed import allows
from pruning.errors import SecateurError
from pruning.report.numbers import limit, points
from pruning.schedule.step import MOST, removal_count
from pruning.spec import MaxDrop
from pruning.study import chance

DIGITS = 4
"""Sparsities are tried to so many decimals, so that they can be asked for again."""

FIRST = 0.9
"""The sparsity tried first."""

SMALLEST = 0.02
"""Drops below this share of the allowed one tell nothing of how fast they rise."""

FINEST = 1e-3
"""A drop that counts as an allowed one of zero, where drops are compared by their ratio."""

BEYOND = 1.0
"""The drop that is expected at the most sparsity until something was refused."""

OVERSHOOT = 0.45
"""By how much of the resolution a probe is moved towards the middle of the bracket."""

EDGE, ROUNDING = 0.94, 1.25
"""What is left of the reach of halving since sparsities are rounded; and how much wider than it a
bracket may be and still be halved."""

MARGIN = 0.05
"""The least distance of an end's drop from the allowed one, by their logarithms."""

POWER, POWERS = 2.0, (0.7, 8.0)
"""By which power of x a drop rises from the dense network: guessed, and the bounds of what two
refused probes show."""

INSIDE = 0.2
"""The least share of the bracket to either side of a probe where there are too few for halving."""


@dataclass(frozen=True)
class Probe:
    """One sparsity that was tried.

    Args:
        sparsity: Asked for.
        drop: What is held to the allowed drop: the estimate or the upper end of its interval;
            infinite where the network could not be measured at all.
    """

    sparsity: float
    drop: float


@dataclass(frozen=True)
class Bracket:
    """What the probes say so far; None where none was accepted, or refused."""

    accepted: Probe | None
    refused: Probe | None


def bracket(asked: MaxDrop, probes: list[Probe]) -> Bracket:
    """The largest sparsity accepted, and the smallest refused."""
    good = [p for p in probes if allows(asked.drop, p.drop)]
    bad = [p for p in probes if not allows(asked.drop, p.drop)]
    return Bracket(
        max(good, key=lambda p: p.sparsity, default=None),
        min(bad, key=lambda p: p.sparsity, default=None),
    )


def resolved(asked: MaxDrop, ends: Bracket) -> bool:
    """Whether the weights kept at both ends differ by the resolution or less."""
    a, b = _ends(ends)
    return b - a <= _width(asked)


def following(asked: MaxDrop, probes: list[Probe], total: int, unit: int = 1) -> float | None:
    """The next sparsity to try; None where the search is over.

    Args:
        asked: The target.
        probes: Those made, in any order.
        total: Weights in scope.
        unit: How many go at once.
    """
    left = asked.probes - len(probes)
    if left <= 0:
        return None
    ends = bracket(asked, probes)
    low = 0.0 if ends.accepted is None else ends.accepted.sparsity
    high = MOST if ends.refused is None else ends.refused.sparsity
    (a, b), width = _ends(ends), _width(asked)
    if probes and resolved(asked, ends):
        return None
    if not probes:
        wanted = _depth(FIRST)
    else:
        wanted = _expected(asked, probes, ends, b)
        middle, step = (a + b) / 2.0, OVERSHOOT * min(width, b - a)
        wanted = middle if abs(wanted - middle) <= step else (
            wanted + step if wanted < middle else wanted - step
        )  # fmt: skip
    return _on_grid(_held(wanted, a, b, width, left - 1), low, high, total, unit)


def _ends(ends: Bracket) -> tuple[float, float]:
    """Depths of the bracket's ends."""
    low = 0.0 if ends.accepted is None else ends.accepted.sparsity
    high = MOST if ends.refused is None else ends.refused.sparsity
    return _depth(low), _depth(high)


def _width(asked: MaxDrop) -> float:
    return inf if asked.resolution >= 1.0 else -log1p(-asked.resolution)


def _depth(sparsity: float) -> float:
    return -log1p(-sparsity)


def _expected(asked: MaxDrop, probes: list[Probe], ends: Bracket, b: float) -> float:
    """Where the drop is expected to be the allowed one; `b` is the depth of the upper end."""
    allowed = max(asked.drop, FINEST)

    def height(drop: float) -> float:
        return log(min(max(drop / allowed, SMALLEST), BEYOND / FINEST))

    above = max(height(BEYOND if ends.refused is None else ends.refused.drop), MARGIN)
    if ends.accepted is not None:
        below, a = min(height(ends.accepted.drop), -MARGIN), _depth(ends.accepted.sparsity)
        return a + (b - a) * below / (below - above)
    # Nothing but the dense network is known to be allowed, whose depth has no logarithm.
    power, refused = POWER, sorted(probes, key=lambda p: p.sparsity)
    if len(refused) > 1:
        depths = [_depth(p.sparsity) for p in refused[:2]]
        rise = height(refused[1].drop) - height(refused[0].drop)
        power = min(max(rise / log(depths[1] / depths[0]), POWERS[0]), POWERS[1])
    return b * exp(-above / power)


def _held(wanted: float, a: float, b: float, width: float, after: int) -> float:
    """The point nearest to the one wanted from which halving reaches `width` in `after` probes."""
    reach = EDGE * width * 2.0**after
    least, most = b - reach, a + reach
    if least > most:
        # Out of reach by the rounding of sparsities alone, or with the probes that were given.
        share = 0.5 if b - a <= ROUNDING * 2.0 * reach else INSIDE
        least, most = a + share * (b - a), b - share * (b - a)
    return min(max(wanted, least), most)


def _on_grid(x: float, low: float, high: float, total: int, unit: int) -> float | None:
    """The nearest sparsity of `DIGITS` decimals that is neither of the ends in whole weights."""
    ends = {removal_count(low, total, unit), removal_count(high, total, unit)}
    step = 10.0**-DIGITS
    first, last = round(low / step) + 1, round(high / step) - 1
    near = min(max(round((1.0 - exp(-x)) / step), first), last)
    # Few weights give many sparsities the same count: on to the nearest that has its own.
    for away in range(max(last - first, 0) + 1):
        for place in (near - away, near + away):
            sparsity = round(place * step, DIGITS)
            if first <= place <= last and removal_count(sparsity, total, unit) not in ends:
                return sparsity
    return None


def check_drop(
    asked: MaxDrop, metrics: tuple[str, ...], samples: int, *, whole: bool = True
) -> None:
    """Refuses what no result could keep.

    Args:
        asked: The target.
        metrics: Those that have a meaning for the objective.
        samples: Of the evaluation data.
        whole: Whether a sample is one answer, right or wrong; of others no width is predicted.

    Raises:
        SecateurError: `spec_conflict` for a metric that has none, `target_unreachable` where the
            interval of any drop reaches beyond the allowed one.
    """
    if asked.metric not in metrics:
        raise SecateurError(
            "spec_conflict",
            f"The drop of {asked.metric} is to be held, and it has no meaning for the objective.",
            where="spec.target.max_drop.metric",
            hint="accuracy is of class labels, agreement and cosine of objective match_dense.",
        )
    least = chance.half_width(samples, 0.0, asked.probes)
    if asked.judged_by == "estimate" or not whole or least <= asked.drop:
        return
    more = ""
    if asked.drop:
        more = f", give at least {chance.samples_for(asked.drop, 0.0, asked.probes):,} samples"
    raise SecateurError(
        "target_unreachable",
        f"With {samples:,} evaluation samples the upper end of a drop's interval is at least "
        f"{points(asked.metric, least)}, even where not one answer changes; the drop may be "
        f"at most {limit(asked.metric, asked.drop)}.",
        where="spec.target.max_drop",
        hint=f"Ask for judged_by: estimate{more}, or allow a larger drop.",
        samples=samples,
    )
