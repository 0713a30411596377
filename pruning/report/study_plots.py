"""The plots of report.html on more than one run: trade-off curve, comparison, latency."""

from markupsafe import Markup

from pruning.report import study_words
from pruning.report.plots import known
from pruning.report.scale import linear, logarithmic, of_sparsity
from pruning.report.schema import Report
from pruning.report.study import Point
from pruning.report.svg import Plot, room_for, rows
from pruning.report.words import SHARES, asked, asked_share, clean, seconds, share


def curve(report: Report) -> Markup | None:
    """The metric over sparsity with its intervals, what was delivered and what was allowed.

    None for fewer than two points.
    """
    name = study_words.curve_metric(report)
    points = [(p, v) for p in report.curve if (v := _value(p, name)) is not None]
    if len(points) < 2:
        return None
    dense = report.metrics.dense[name].value if name in report.metrics.dense else report.loss.dense
    allowed = study_words.allowed_drop(report, name)
    limit = None if allowed is None or dense is None else dense - allowed[0]
    spans = {id(p): s for p, _ in points if (s := _span(p, name, dense)) is not None}
    ends = [
        *known([dense, limit]),
        *(v for _, v in points),
        *(v for s in spans.values() for v in s),
    ]
    shares = name in SHARES
    losses = name is None and min(ends) > 0 and max(ends) > 20 * min(ends)
    y = (
        logarithmic(ends)
        if losses
        else linear(
            ends, asked_share if shares else asked, within=(0.0, 1.0) if shares else (-1e300, 1e300)
        )
    )
    x = of_sparsity([p.sparsity for p, _ in points])
    plot = Plot(
        f"{name or 'loss'} over sparsity",
        x,
        y,
        height=270.0,
        x_title="weights in scope removed",
        y_title=name or "calibration loss",
    )
    if dense is not None:
        plot.line([(x.low, dense), (x.high, dense)], "s-muted")
        plot.text(x.high, dense, "dense", "end", "t m", by=(0, -4))
    if limit is not None:
        plot.line([(x.low, limit), (x.high, limit)], "s-bad dash")
        plot.text(x.low, limit, "allowed", css="t bad", by=(4, 12))
    plot.line([(p.sparsity, v) for p, v in points], "s-measured thin")
    for point, value in points:
        if id(point) in spans:
            plot.whisker(point.sparsity, *spans[id(point)], "s-measured")
        css = {"target": "f-measured", "probe": "f-panel s-measured w", "curve": "f-measured"}
        note = f"{share(point.sparsity)} removed: {study_words.value(name, value)}"
        plot.dot(point.sparsity, value, css[point.source], note)
        if point.delivered:
            plot.dot(point.sparsity, value, "f-removed", f"{note}, delivered", 5.5)
    return plot.svg()


def curve_legend(report: Report) -> list[tuple[str, str]]:
    """Colour and words of each kind of mark that the curve shows."""
    name = study_words.curve_metric(report)
    shown = [p for p in report.curve if _value(p, name) is not None]
    others = [p for p in shown if not p.delivered]
    marks = [
        ("removed round", "delivered", any(p.delivered for p in shown)),
        (
            "measured round",
            "asked for",
            any(p.source == "curve" for p in others),
        ),
        ("hollow round", "probe", any(p.source == "probe" for p in others)),
        ("bar", "interval of the drop", any(_span(p, name, 0.0) for p in shown)),
    ]
    return [(css, words) for css, words, there in marks if there]


def _value(point: Point, name: str | None) -> float | None:
    return point.loss if name is None else point.metrics.get(name)


def _span(point: Point, name: str | None, dense: float | None) -> tuple[float, float] | None:
    """The interval of the drop, as values of the metric."""
    drop = point.drops.get(name) if name is not None else None
    if drop is None or drop.low is None or drop.high is None or dense is None:
        return None
    return dense - drop.high, dense - drop.low


def comparison(report: Report) -> Markup | None:
    """Every run of every criterion, and their medians, without recovery and with it."""
    found = report.comparison
    name = study_words.comparison_metric(report)
    if found is None:
        return None
    values = known(
        [r.loss if name is None else r.metrics.get(name) for c in found.criteria for r in c.runs]
    )
    if not values:
        return None
    shares = name in SHARES
    wide = name is None and min(values) > 0 and max(values) > 20 * min(values)
    both = any(r.recovered for c in found.criteria for r in c.runs)
    names = [c.criterion for c in found.criteria]
    x = (
        logarithmic(values)
        if wide
        else linear(
            values,
            asked_share if shares else asked,
            within=(0.0, 1.0) if shares else (-1e300, 1e300),
        )
    )
    plot = Plot(
        "Criteria at the same sparsity",
        x,
        rows(len(names)),
        height=46.0 + (44.0 if both else 30.0) * len(names),
        left=room_for(names),
        x_title=name or "calibration loss",
    )
    for row, compared in enumerate(found.criteria):
        plot.beside(row, names[row])
        plot.bar((x.low, x.high), (row - 0.4, row + 0.4), "f-track")
        for recovered, css in ((False, "predicted"), (True, "measured")):
            at = row + (0.0 if not both else 0.2 if recovered else -0.2)
            for run in compared.runs:
                value = run.loss if name is None else run.metrics.get(name)
                if run.recovered == recovered and value is not None:
                    note = f"seed {run.seed}: {study_words.value(name, value)}"
                    plot.dot(value, at, f"f-{css} o1", clean(note), 3.2)
            middle = study_words.shown_value(compared, recovered, name)
            if middle is not None:
                half = 0.17 if both else 0.3
                plot.line([(middle, at - half), (middle, at + half)], f"s-{css} w2")
    return plot.svg()


def latency(report: Report) -> Markup | None:
    """Median and middle half of the times of the upload and of the result."""
    found = report.latency
    if found is None or found.dense.median is None or found.pruned.median is None:
        return None
    parts = (("dense", found.dense, "muted"), ("pruned", found.pruned, "measured"))
    ends = known([v for _, p, _ in parts for v in (p.median, p.q75)])
    plot = Plot(
        "Time of a run, dense and pruned",
        linear([0.0, *ends], lambda v: seconds(v, max(ends)), within=(0.0, 1e300), most=4),
        rows(2),
        height=104.0,
        left=60.0,
        right=66.0,
        x_title="median and middle half of the runs",
    )
    for row, (name, part, css) in enumerate(parts):
        if part.median is None:
            continue
        plot.bar((0.0, part.median), (row - 0.3, row + 0.3), f"f-{css}", seconds(part.median))
        if part.q25 is not None and part.q75 is not None:
            plot.whisker(row, part.q25, part.q75, "s-ink", across=True)
        plot.beside(row, name, seconds(part.median))
    return plot.svg()
