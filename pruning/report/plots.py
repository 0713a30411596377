"""The plots of report.html on metrics, steps and damping, each from the report to an inline SVG."""

import math

from markupsafe import Markup

from pruning.report.scale import Scale, linear, logarithmic
from pruning.report.schema import Report
from pruning.report.svg import Plot, rows
from pruning.report.words import SHARES, asked, asked_share, metric, number

MAX_STEPS = 16
"""Steps drawn as pairs of bars; more are lines."""


def known(values: list[float | None]) -> list[float]:
    """Those that are there."""
    return [v for v in values if v is not None]


def metric_stages(report: Report, name: str) -> Markup:
    """One metric and its interval before, after and recovered, with the gate where there is one."""
    stages = [
        ("dense", report.metrics.dense, "muted"),
        ("pruned", report.metrics.pruned, "removed"),
    ]
    if report.metrics.recovered is not None:
        stages.append(("recovered", report.metrics.recovered, "measured"))
    shown = [(stage, found[name], css) for stage, found, css in stages if name in found]
    values = known([v for _, m, _ in shown for v in (m.value, m.low, m.high)]) or [0.0, 1.0]
    dense = report.metrics.dense[name].value
    gate = report.spec.gates.max_drop.get(name)  # type: ignore[call-overload]
    limit = None if gate is None or dense is None else dense - gate
    if limit is not None:
        values.append(limit)
    shares = name in SHARES
    x = linear(
        values,
        asked_share if shares else asked,
        within=(0.0, 1.0) if shares else (-math.inf, math.inf),
    )
    plot = Plot(
        f"{name} before, after and recovered",
        x,
        rows(len(shown)),
        height=44.0 + 30.0 * len(shown),
        left=72.0,
        right=62.0,
        x_title=f"{name}, with its 95 % interval" + ("" if gate is None else "; dashed: the gate"),
    )
    for row in range(len(shown)):
        plot.bar((x.low, x.high), (row - 0.27, row + 0.27), "f-track")
    if limit is not None:
        plot.line([(limit, -0.6), (limit, len(shown) - 0.4)], "s-ink dash")
    for row, (stage, found, css) in enumerate(shown):
        plot.beside(row, stage, metric(name, found.value))
        if found.low is not None and found.high is not None:
            plot.whisker(row, found.low, found.high, f"s-{css} w", across=True)
        if found.value is not None:
            plot.dot(found.value, row, f"f-{css}", metric(name, found.value), 5.0)
    return plot.svg()


def loss_by_step(report: Report) -> Markup | None:
    """Increase of the loss in each step as predicted and as measured; None for a single step."""
    pairs = [(x.index, x.predicted_increase, x.measured_increase) for x in report.rounds]
    values = known([v for _, p, m in pairs for v in (p, m)])
    if not values or len(pairs) < 2:
        return None
    count = len(pairs)
    every = -(-count // 8)
    x = Scale(0.4, count + 0.6, tuple((i, str(i)) for i in range(1, count + 1, every)))
    plot = Plot(
        "Loss increase of each step, predicted and measured",
        x,
        linear([*values, 0.0], within=(0.0 if min(values) >= 0 else -math.inf, math.inf)),
        height=210.0,
        x_title="step",
        y_title="increase of the calibration loss",
    )
    plot.line([(x.low, 0.0), (x.high, 0.0)], "a")
    for part, (css, shift) in enumerate((("predicted", -0.38), ("measured", 0.02))):
        places = [(pair[0], pair[1 + part]) for pair in pairs]
        told = [(i, v) for i, v in places if v is not None]
        if count > MAX_STEPS:
            plot.line(told, f"s-{css} w")
            continue
        for i, v in told:
            plot.bar((i + shift, i + shift + 0.36), (0.0, v), f"f-{css}", f"{css} {number(v)}")
    return plot.svg()


def steps_legend(report: Report) -> list[str]:
    """Which of predicted and measured the plot of the steps shows."""
    predicted = any(x.predicted_increase is not None for x in report.rounds)
    return ["predicted", "measured"] if predicted else ["measured"]


def damping(report: Report) -> Markup | None:
    """Held-out loss against the damping tried, one line a step; None without a sweep."""
    sweep = [t for t in report.damping_sweep if t.loss is not None and t.damping > 0]
    if not sweep:
        return None
    losses = known([t.loss for t in sweep])
    wide = min(losses) > 0 and max(losses) > 20 * min(losses)
    last = max(t.round for t in sweep)
    plot = Plot(
        "Held-out loss for each damping tried",
        logarithmic([t.damping for t in sweep]),
        logarithmic(losses) if wide else linear(losses),
        height=220.0,
        x_title="damping, in units of the mean diagonal",
        y_title="held-out loss after pruning",
    )
    for step in sorted({t.round for t in sweep}):
        trials = sorted((t for t in sweep if t.round == step), key=lambda t: t.damping)
        strength = 2 if step == last else 1 if 2 * step > last else 0
        places = [(t.damping, t.loss) for t in trials if t.loss is not None]
        plot.line(places, f"s-measured w o{strength}", f"step {step}")
        for trial in trials:
            if trial.loss is not None:
                css = "f-removed" if trial.chosen else f"f-measured o{strength}"
                note = f"step {step}: damping {asked(trial.damping)}, loss {number(trial.loss)}"
                plot.dot(trial.damping, trial.loss, css, note, 4.5 if trial.chosen else 2.0)
    return plot.svg()
