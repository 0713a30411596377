"""What is uncertain about a result: everything a reader should doubt, collected in plain words."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pruning.report.schema import DataRole, Report
from pruning.report.speed import interval, speed
from pruning.report.words import count, limit, points, ratio, several, share

FEW_SAMPLES = 256
"""Calibration samples below which curvature is called thinly sampled."""

NOISY = 0.2
"""Spread of a latency, as a share of its median, above which it is called noisy."""


@dataclass(frozen=True)
class Doubt:
    """One thing that is uncertain, and what would help."""

    about: str
    text: str


def doubts(report: Report) -> list[Doubt]:
    """All that is uncertain, the result itself first."""
    return [
        *_drops(report),
        *_evaluation(report),
        *_search(report),
        *_curve(report),
        *_calibration(report),
        *_coin_tosses(report),
        *_predictions(report),
        *_comparison(report),
        *_latency(report),
    ]


def _drops(report: Report) -> Iterator[Doubt]:
    if report.stopped is not None and report.stopped.round == 0:
        return  # What is delivered is the dense network itself.
    for name, drop in report.metrics.drops.items():
        if drop.low is None or drop.high is None:
            continue
        half = (drop.high - drop.low) / 2
        holds_zero = drop.low <= 0 <= drop.high
        yield Doubt(
            f"The drop of {name}",
            f"With {several(drop.samples, 'evaluation sample')}, the drop is known to within "
            f"{points(name, half)} "
            f"({points(name, drop.low, False)} to {points(name, drop.high, False)}). "
            + (
                "They can't tell whether anything was lost at all. "
                if holds_zero and half > 0
                else ""
            )
            + f"About {count(4 * drop.samples)} samples would halve the interval.",
        )
        allowed = report.spec.gates.max_drop.get(name)  # type: ignore[call-overload]
        if allowed is not None and drop.low <= allowed < drop.high:
            yield Doubt(
                f"The gate on {name}",
                f"The allowed drop of {limit(name, allowed)} lies inside the interval: on other "
                "samples of the same kind the gate could have gone the other way.",
            )


def _evaluation(report: Report) -> Iterator[Doubt]:
    data = report.data
    if not report.metrics.dense:
        yield Doubt(
            "No metric",
            "Only the loss was measured. How well the network does its task is not known.",
        )
        return
    seen = [
        role for role in ("calibration", "training") if _same(getattr(data, role), data.evaluation)
    ]
    if data.evaluation.source == "calibration" or seen:
        used = " and ".join(seen) or "calibration"
        yield Doubt(
            "Evaluation data seen before",
            f"The metrics were measured on data that was also used for {used}, so they are "
            "probably too good. Give separate evaluation data.",
        )
    elif data.evaluation.source == "held_out" and data.training.source != "calibration":
        yield Doubt(
            "Evaluation data",
            "They were split off the calibration data. Whether the network was trained on them is "
            "not known.",
        )


def _same(one: DataRole, other: DataRole) -> bool:
    if other.source != "given" or one.source != "given":
        return False
    return one.sha256 is not None and one.sha256 == other.sha256


def _search(report: Report) -> Iterator[Doubt]:
    found = report.search
    if found is None:
        return
    if found.ended == "probes":
        upper = "" if found.high is None else f", below {share(found.high)}"
        yield Doubt(
            "The search's end",
            f"It used all its probes: the largest allowed sparsity lies above "
            f"{share(found.low)}{upper}. More probes (target.max_drop.probes) would narrow that.",
        )
    if found.ended == "none_allowed":
        yield Doubt("The search's end", "No sparsity was allowed, so the answer removes nothing.")
    if found.judged_by == "estimate":
        yield Doubt(
            "The target",
            "Probes were judged by the measured drop, not by the upper end of its interval, so the "
            "true drop may be larger than allowed. judged_by: upper_bound is the careful choice.",
        )


def _curve(report: Report) -> Iterator[Doubt]:
    names = {name for point in report.curve for name in point.metrics}
    for name in sorted(names):
        drops = [
            (p.sparsity, p.drops[name]) for p in report.curve if name in p.drops and p.removed > 0
        ]
        told = [
            (lesser, more)
            for i, (lesser, before) in enumerate(drops)
            for more, after in drops[i + 1 :]
            if before.low is not None and after.high is not None and before.low > after.high
        ]
        if told:
            low, high = told[0]
            yield Doubt(
                "A curve that is not monotone",
                f"{name} was lower at {share(low)} removed than at {share(high)}, by more than the "
                "intervals explain. The search assumes that more sparsity never helps, so there "
                "may be more than one sparsity at which the limit is met.",
            )


def _calibration(report: Report) -> Iterator[Doubt]:
    used = report.curvature.samples
    if report.curvature.kind != "none" and 0 < used < FEW_SAMPLES:
        yield Doubt(
            "Few calibration samples",
            f"The curvature of {several(report.curvature.weights, 'weight')} was estimated from "
            f"{several(used, 'sample')}. With more, the selection of weights would vary less.",
        )
    thin = [x for x in report.layer_outputs if x.columns < x.entries]
    if thin:
        yield Doubt(
            "Layers fitted to few inputs",
            f"{several(len({x.layer for x in thin}), 'layer')} saw fewer inputs than one input has "
            "entries: the remaining weights are fitted to these samples and may do worse on "
            "others.",
        )


def _coin_tosses(report: Report) -> Iterator[Doubt]:
    found = report.trust.bootstrap if report.trust else None
    criterion: Any = report.spec.criterion
    if found is None or not criterion.about.needs:
        return  # The same weights go, whichever samples were drawn.
    if not found.resamples:
        yield Doubt(
            "Which weights were removed",
            "How much the selection depends on the calibration samples is not known: "
            f"{found.reason}.",
        )
    elif found.coin_tosses:
        part = f" ({share(found.coin_tosses / found.removed)})" if found.removed else ""
        yield Doubt(
            "Which weights were removed",
            f"{count(found.coin_tosses)} of {several(found.removed, 'removal')}{part} depend on "
            "the calibration samples: with other samples of the same kind, other weights would "
            "have been removed about as often.",
        )


def _predictions(report: Report) -> Iterator[Doubt]:
    reason = next((r.not_predicted for r in report.rounds if r.not_predicted), None)
    if reason:
        yield Doubt(
            "Nothing predicted",
            f"The increase of the loss was measured but not predicted. {reason}",
        )
        return
    ladder = report.trust.ladder if report.trust else None
    reached = report.sparsity.achieved
    if ladder and not ladder.not_predicted and (ladder.holds_up_to or 0.0) < reached - 1e-9:
        steps = len(report.rounds)
        yield Doubt(
            "Predictions at this sparsity",
            "A quadratic model at the dense weights is accurate "
            + (
                f"up to {share(ladder.holds_up_to)} removed"
                if ladder.holds_up_to
                else "on no step of the ladder"
            )
            + f"; this job removed {share(reached)}"
            + (f" in {count(steps)} steps, each with its own model" if steps > 1 else "")
            + ". Beyond that, predictions are extrapolated. Measured values are not affected.",
        )
    failed = sum(c.group == "trust" and c.status != "pass" for c in report.checks)
    if failed:
        yield Doubt(
            "Assumptions of the theory",
            f"{several(failed, 'assumption')} of second-order pruning "
            f"{'does' if failed == 1 else 'do'} not hold here. The checks say which, and what "
            "follows.",
        )


def _comparison(report: Report) -> Iterator[Doubt]:
    found = report.comparison
    if found is None:
        return
    seeds = {run.seed for c in found.criteria for run in c.runs}
    if len(seeds) < 5:
        yield Doubt(
            "The comparison of criteria",
            f"It was made with {several(len(seeds), 'seed')}; with others the order of the "
            "criteria may differ. comparison.seeds: 5 would tell more.",
        )


def _latency(report: Report) -> Iterator[Doubt]:
    found = report.latency
    if found is None:
        return
    spreads = [
        (part.q75 - part.q25) / part.median
        for part in (found.dense, found.pruned)
        if part.median and part.q25 is not None and part.q75 is not None
    ]
    if max(spreads, default=0.0) > NOISY:
        yield Doubt(
            "Noisy times",
            f"The middle half of the times of one file spreads over {share(max(spreads))} of their "
            "median: the machine was probably doing other things too.",
        )
    if speed(found) == "unknown":
        yield Doubt(
            "Faster or slower",
            f"The measurement does not tell: ratio {ratio(found.ratio)}, {interval(found)}. "
            "A quieter machine, or a gate on the latency, which gets more time, would.",
        )
