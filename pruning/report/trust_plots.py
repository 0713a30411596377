"""The plots of the report's section on trust, each a function from the report to an inline SVG."""

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from pruning.report import svg
from pruning.report.schema import Report
from pruning.report.trust import Ladder, Rung
from pruning.report.words import clean

MAX_LAYERS = 12
"""Layers whose saliency interval is drawn; the table has them all."""


def ladder(report: Report) -> Markup | None:
    """Predicted against measured increase, both logarithmic, with the band of the stated factor."""
    found = None if report.trust is None else report.trust.ladder
    if found is None or not _drawable(found):
        return None
    values = [v for r in found.rungs for v in (r.predicted, r.measured, r.own) if v and v > 0]
    floor = max(found.resolution, 1e-300)
    low, high = max(min(values), floor) / 2.0, max(values) * 3.0
    with svg.style():
        drawn, axes = svg.figure(4.6, 3.6)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        ends = [low, high]
        axes.fill_between(
            ends,
            [e / found.factor for e in ends],
            [e * found.factor for e in ends],
            color=svg.GRID,
            linewidth=0,
        )
        axes.plot(ends, ends, color=svg.MUTED, linewidth=0.7, linestyle=(0, (3, 2)))
        _line(axes, found.rungs, "own", svg.PREDICTED, "s")
        _line(axes, found.rungs, "predicted", svg.MEASURED, "o")
        left = _leaves(found)
        for rung in found.rungs:
            if rung.predicted and rung.measured and min(rung.predicted, rung.measured) > low:
                note = f"{rung.sparsity:.0%}" + (" leaves" if rung is left else "")
                axes.annotate(
                    note,
                    (rung.predicted, rung.measured),
                    xytext=(6, -8),
                    textcoords="offset points",
                    ha="left",
                    fontsize=7.5,
                    color=svg.REMOVED if rung is left else svg.INK,
                )
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(base=10, numticks=7))
            axis.set_major_formatter(FuncFormatter(svg.power_of_ten))
            axis.set_minor_locator(NullLocator())
            axis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("predicted increase of the loss")
        axes.set_ylabel("measured increase")
        return svg.render(drawn, "ladder", "Predicted against measured increase of the loss")


def _drawable(found: Ladder) -> bool:
    return any(
        r.predicted and r.measured and r.predicted > 0 and r.measured > 0 for r in found.rungs
    )


def _leaves(found: Ladder) -> Rung | None:
    """The first rung at which the model no longer holds."""
    beyond = [r for r in found.rungs if r.sparsity > (found.holds_up_to or 0.0)]
    return beyond[0] if beyond else None


def _line(axes: Axes, rungs: list[Rung], field: str, colour: str, marker: str) -> None:
    points = [
        (x, r.measured)
        for r in rungs
        if (x := getattr(r, field)) and x > 0 and r.measured and r.measured > 0
    ]
    if points:
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            color=colour,
            marker=marker,
            markersize=4,
            linewidth=1.1,
        )


def intervals(report: Report) -> Markup | None:
    """90 % interval of each layer's median saliency; None without a bootstrap."""
    found = None if report.trust is None else report.trust.bootstrap
    shown = [
        x
        for x in (found.layers if found is not None else [])
        if x.low and x.high and x.median and min(x.low, x.median) > 0
    ][:MAX_LAYERS]
    if not shown:
        return None
    with svg.style():
        drawn, axes = svg.figure(4.6, 0.8 + 0.3 * len(shown))
        for row, layer in enumerate(shown):
            axes.plot([layer.low or 0, layer.high or 0], [row, row], color=svg.KEPT, linewidth=5)
            axes.plot([layer.median or 0], [row], "o", color=svg.REMOVED, markersize=5)
        axes.set_xscale("log")
        low = min(x.low or 0 for x in shown)
        high = max(x.high or 0 for x in shown)
        axes.set_xlim(low / 1.5, high * 1.5)
        axes.set_yticks(range(len(shown)), [clean(x.name, 26) for x in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        subs = (1.0,) if high > 30 * low else (1.0, 2.0, 5.0)
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=subs, numticks=6))
        axes.xaxis.set_major_formatter(FuncFormatter(svg.power_of_ten))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("median saliency of the layer")
        return svg.render(drawn, "intervals", "Interval of each layer's median saliency")
