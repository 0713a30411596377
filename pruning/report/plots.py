"""The plots of report.html, each a function from the report to an inline SVG."""

import math
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
    PercentFormatter,
)

from pruning.report import svg
from pruning.report.schema import LayerReport, Report
from pruning.report.words import clean

MAX_PANELS = 12
"""Saliency histograms shown; report.json has them all."""

MAX_BARS = 40
"""Layers in the sparsity plot; the table has them all."""

_WIDTH = 4.6


def sparsity_by_layer(report: Report) -> Markup:
    """Share of exact zeros in each layer, and in the whole."""
    layers = report.layers[:MAX_BARS]
    with svg.style():
        drawn, axes = svg.figure(_WIDTH, 0.75 + 0.26 * len(layers))
        rows = range(len(layers))
        axes.barh(rows, [1.0] * len(layers), height=0.62, color=svg.GRID)
        axes.barh(rows, [x.sparsity for x in layers], height=0.62, color=svg.REMOVED)
        for row, layer in zip(rows, layers, strict=True):
            note = "" if layer.in_scope else "  left out"
            axes.text(
                1.02, row, f"{layer.sparsity:.1%}{note}", va="center", fontsize=8, color=svg.INK
            )
        overall = report.sparsity.achieved
        axes.axvline(overall, color=svg.INK, linewidth=0.8, linestyle=(0, (3, 2)))
        axes.set_yticks(rows, [clean(x.name, 26) for x in layers])
        axes.set_ylim(len(layers) - 0.4, -0.6)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"weights that are exactly zero; dashed: {overall:.1%} of those in scope")
        return svg.render(drawn, "sparsity", "Sparsity of each layer")


def saliency_panels(report: Report) -> list[Markup]:
    """One histogram a layer, removed weights in front of all; at most `MAX_PANELS`."""
    shown = [x for x in report.layers if x.saliency_histogram and x.saliency_histogram.counts]
    return [_saliency(x, i) for i, x in enumerate(shown[:MAX_PANELS])]


def _saliency(layer: LayerReport, number: int) -> Markup:
    histogram = layer.saliency_histogram
    assert histogram is not None
    with svg.style():
        drawn, axes = svg.figure(3.2, 1.75)
        edges = histogram.edges
        for counts, colour in ((histogram.counts, svg.KEPT), (histogram.removed, svg.REMOVED)):
            axes.stairs(counts, edges, fill=True, color=colour, linewidth=0)
        axes.set_xscale("log")
        decades = math.log10(edges[-1] / edges[0])
        subs = (1.0,) if decades > 1.5 else (1.0, 2.0, 5.0)
        _log(axes.xaxis, LogLocator(base=10, subs=subs, numticks=5))
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.set_xlim(edges[0], edges[-1])
        axes.set_title(clean(layer.name, 34))
        return svg.render(drawn, f"saliency{number}", f"Saliencies of layer {clean(layer.name)}")


def _log(axis: Axis, locator: LogLocator) -> None:
    """Ticks of a logarithmic axis; Matplotlib's own labels would be mathematics."""
    axis.set_major_locator(locator)
    axis.set_major_formatter(FuncFormatter(svg.power_of_ten))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def loss_predicted_and_measured(report: Report) -> Markup:
    """Increase of the loss in each step as predicted and as measured."""
    with svg.style():
        drawn, axes = svg.figure(_WIDTH, 2.7)
        steps = [x.index for x in report.rounds]
        predicted = [x.predicted_increase for x in report.rounds]
        measured = [x.measured_increase for x in report.rounds]
        axes.axhline(0, color=svg.MUTED, linewidth=0.6)
        if len(steps) <= 12:
            axes.bar([s - 0.19 for s in steps], _numbers(predicted), 0.36, color=svg.PREDICTED)
            axes.bar([s + 0.19 for s in steps], _numbers(measured), 0.36, color=svg.MEASURED)
        else:
            line: dict[str, Any] = {"marker": "o", "markersize": 3, "linewidth": 1.2}
            axes.plot(steps, _numbers(predicted), color=svg.PREDICTED, **line)
            axes.plot(steps, _numbers(measured), color=svg.MEASURED, **line)
        axes.grid(axis="y")
        _steps_axis(axes, len(steps))
        axes.set_ylabel("increase of the calibration loss")
        return svg.render(drawn, "loss", "Loss increase of each step, predicted and measured")


def _numbers(values: list[float | None]) -> list[float]:
    return [math.nan if v is None else v for v in values]


def _steps_axis(axes: Axes, count: int) -> None:
    axes.set_xlim(0.4, count + 0.6)
    axes.xaxis.set_major_locator(
        FixedLocator(range(1, count + 1)) if count <= 12 else MaxNLocator(10, integer=True)
    )
    axes.set_xlabel("step")


def metric_stages(report: Report, name: str) -> Markup:
    """One metric before, after and recovered, with the gate where there is one."""
    stages = [("dense", report.metrics.dense), ("pruned", report.metrics.pruned)]
    if report.metrics.recovered is not None:
        stages.append(("recovered", report.metrics.recovered))
    values = [(stage, found[name].value) for stage, found in stages if name in found]
    with svg.style():
        drawn, axes = svg.figure(_WIDTH, 0.75 + 0.36 * len(values))
        rows = range(len(values))
        heights = _numbers([v for _, v in values])
        axes.barh(rows, [1.0] * len(values), height=0.6, color=svg.GRID)
        colours = [svg.MUTED, svg.REMOVED, svg.MEASURED]
        axes.barh(rows, heights, height=0.6, color=colours[: len(values)])
        for row, value in zip(rows, heights, strict=True):
            axes.text(1.02, row, f"{value:.2%}", va="center", fontsize=8.5, color=svg.INK)
        drop = report.spec.gates.max_drop.get(name)  # type: ignore[call-overload]
        if drop is not None:
            axes.axvline(heights[0] - drop, color=svg.INK, linewidth=0.8, linestyle=(0, (3, 2)))
        axes.set_yticks(rows, [stage for stage, _ in values])
        axes.set_ylim(len(values) - 0.4, -0.6)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(name + ("" if drop is None else "; dashed: the gate"))
        return svg.render(drawn, f"metric-{name}", f"{name} before, after and recovered")


def damping(report: Report) -> Markup | None:
    """Held-out loss against the damping tried, one line a step; None without a sweep."""
    sweep = [t for t in report.damping_sweep if t.loss is not None and t.damping > 0]
    if not sweep:
        return None
    with svg.style():
        drawn, axes = svg.figure(_WIDTH, 2.7)
        last = max(t.round for t in sweep)
        for number in sorted({t.round for t in sweep}):
            trials = sorted((t for t in sweep if t.round == number), key=lambda t: t.damping)
            axes.plot(
                [t.damping for t in trials],
                _numbers([t.loss for t in trials]),
                color=svg.MEASURED,
                linewidth=1.2,
                alpha=0.25 + 0.75 * number / last,
            )
            for trial in trials:
                if trial.chosen:
                    at = (trial.damping, *_numbers([trial.loss]))
                    axes.plot(*at, "o", color=svg.REMOVED, markersize=5, zorder=3)
        axes.set_xscale("log")
        losses = [t.loss for t in sweep if t.loss is not None]
        if min(losses) > 0 and max(losses) > 20 * min(losses):
            axes.set_yscale("log")
            _log(axes.yaxis, LogLocator(base=10, numticks=5))
        _log(axes.xaxis, LogLocator(base=10, numticks=9))
        axes.grid(axis="y")
        axes.set_xlabel("damping, in units of the mean diagonal")
        axes.set_ylabel("held-out loss after pruning")
        return svg.render(drawn, "damping", "Held-out loss for each damping tried")
