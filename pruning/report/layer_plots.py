"""The plots of report.html by layer. Few layers get a row each with a name, many a column each."""

from markupsafe import Markup

from pruning.report.scale import Scale, linear, logarithmic
from pruning.report.schema import LayerReport, Report
from pruning.report.svg import Plot, room_for, rows
from pruning.report.words import asked_share, clean, number, share

MAX_ROWS = 20
"""Layers with a row of their own; more stand side by side without names."""

MAX_PANELS = 12
"""Saliency histograms shown; report.json has them all."""


def sparsity(report: Report) -> Markup | None:
    """Share of exact zeros in each layer, and in the whole; None without layers."""
    layers = report.layers
    if not layers:
        return None
    overall = report.sparsity.achieved
    label = "Sparsity of each layer"
    dashed = f"dashed: {share(overall)} of those in scope"
    across = linear([0.0, 1.0], asked_share, within=(0.0, 1.0))
    if len(layers) > MAX_ROWS:
        plot = Plot(
            label,
            _columns(len(layers)),
            across,
            height=220.0,
            x_title="layers in module order",
            y_title=f"exact zeros; {dashed}",
        )
        for i, layer in enumerate(layers):
            plot.bar((i + 0.1, i + 0.9), (0.0, 1.0), "f-track", _told(layer))
            plot.bar((i + 0.1, i + 0.9), (0.0, layer.sparsity), _colour(layer), _told(layer))
        plot.line([(0.0, overall), (len(layers), overall)], "s-ink dash")
        return plot.svg()
    plot = Plot(
        label,
        linear([0.0, 1.0], asked_share, within=(0.0, 1.0), most=2),
        rows(len(layers)),
        height=40.0 + 20.0 * len(layers),
        left=room_for([x.name for x in layers]),
        right=52.0 if all(x.in_scope for x in layers) else 92.0,
        x_title=dashed,
    )
    for row, layer in enumerate(layers):
        note = share(layer.sparsity) + ("" if layer.in_scope else " left out")
        plot.bar((0.0, 1.0), (row - 0.32, row + 0.32), "f-track", _told(layer))
        plot.bar((0.0, layer.sparsity), (row - 0.32, row + 0.32), _colour(layer), _told(layer))
        plot.beside(row, layer.name, note)
    plot.line([(overall, -0.6), (overall, len(layers) - 0.4)], "s-ink dash")
    return plot.svg()


def _columns(count: int) -> Scale:
    every = next(n for n in (5, 10, 20, 50, 100, 200, 500, 10**6) if count / n <= 8)
    ticks = [(0.5, "1"), *((i - 0.5, str(i)) for i in range(every, count + 1, every))]
    return Scale(0.0, float(count), tuple(ticks))


def _colour(layer: LayerReport) -> str:
    return "f-removed" if layer.in_scope else "f-kept"


def _told(layer: LayerReport) -> str:
    left = "" if layer.in_scope else ", left out"
    return f"{clean(layer.name, 80)}: {share(layer.sparsity)} of {layer.parameters:,}{left}"


def saliency(report: Report) -> Markup | None:
    """Range, middle half and median of each layer's saliencies; None where none is positive."""
    shown = [
        (x, s.min, s.q25, s.median, s.q75, s.max)
        for x in report.layers
        if (s := x.saliency) and s.median and s.max and s.median > 0
    ]
    if not shown:
        return None
    # The smallest are often many decades below: the axis begins where a quarter of a layer lies.
    least = min(q25 if q25 and q25 > 0 else median for _, _, q25, median, _, _ in shown)
    floor = max(least / 100.0, 1e-300)
    scale = logarithmic([floor, *(x[5] for x in shown)], margin=0.02)
    wide = len(shown) > MAX_ROWS
    label = "Saliencies of each layer"
    if wide:
        plot = Plot(
            label,
            _columns(len(shown)),
            scale,
            height=220.0,
            x_title="layers in module order",
            y_title="saliency: range, middle half, median",
        )
    else:
        plot = Plot(
            label,
            scale,
            rows(len(shown)),
            height=40.0 + 20.0 * len(shown),
            left=room_for([x[0].name for x in shown]),
            x_title="saliency: range, middle half, median",
        )
    for i, (layer, low, q25, median, q75, high) in enumerate(shown):
        start, box = max(low or 0.0, floor), max(q25 or 0.0, floor)
        note = f"{clean(layer.name, 80)}: median {number(median)}"
        end = q75 or median
        if wide:
            plot.line([(i + 0.5, start), (i + 0.5, high)], "s-kept", note)
            plot.bar((i + 0.15, i + 0.85), (box, end), "f-kept", note)
            plot.line([(i + 0.1, median), (i + 0.9, median)], "s-removed w", note)
            continue
        plot.beside(i, layer.name)
        plot.line([(start, i), (high, i)], "s-kept", note)
        plot.bar((box, end), (i - 0.28, i + 0.28), "f-kept", note)
        plot.line([(median, i - 0.34), (median, i + 0.34)], "s-removed w2", note)
    return plot.svg()


def with_histogram(report: Report) -> list[LayerReport]:
    """Layers that have a histogram with something in it."""
    return [x for x in report.layers if x.saliency_histogram and x.saliency_histogram.counts]


def histograms(report: Report) -> list[Markup]:
    """One histogram a layer, removed weights in front of all; at most `MAX_PANELS`."""
    return [_histogram(x) for x in with_histogram(report)[:MAX_PANELS]]


def _histogram(layer: LayerReport) -> Markup:
    found = layer.saliency_histogram
    assert found is not None
    edges = found.edges
    x = logarithmic([edges[0], edges[-1]], most=4, margin=0.0)
    y = linear(
        [0.0, float(max(found.counts))],
        lambda v: f"{v:,.6g}",
        most=3,
        within=(0.0, 1e300),
        whole=True,
    )
    plot = Plot(
        f"Saliencies of layer {clean(layer.name)}",
        x,
        y,
        height=140.0,
        width=250.0,
        y_title=clean(layer.name, 36),
    )
    for css, counts in (("f-kept", found.counts), ("f-removed", found.removed)):
        # One shape for each: hundreds of bars would make the page slow.
        outline = [(edges[0], 0.0)]
        for low, high, value in zip(edges[:-1], edges[1:], counts, strict=True):
            outline += [(low, float(value)), (high, float(value))]
        plot.area([*outline, (edges[-1], 0.0)], css)
    return plot.svg()
