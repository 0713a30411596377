"""The plots of the report's section on trust, each a function from the report to an inline SVG."""

from markupsafe import Markup

from pruning.report.scale import logarithmic
from pruning.report.schema import Report
from pruning.report.svg import Plot, room_for, rows
from pruning.report.trust import Ladder, Rung
from pruning.report.words import asked, clean, number, share

MAX_LAYERS = 20
"""Layers whose saliency interval is drawn; the table has them all."""


def ladder(report: Report) -> Markup | None:
    """Predicted against measured increase, both logarithmic, with the band of the stated factor."""
    found = None if report.trust is None else report.trust.ladder
    if found is None or not _drawable(found):
        return None
    values = [v for r in found.rungs for v in (r.predicted, r.measured, r.own) if v and v > 0]
    floor = max(found.resolution, 1e-300)
    low, high = max(min(values), floor), max(max(values), 2.0 * floor)
    scale = logarithmic([low, high], margin=0.08)
    low, high = scale.low, scale.high
    plot = Plot(
        "Predicted against measured increase of the loss",
        scale,
        scale,
        height=300.0,
        x_title="predicted increase of the loss",
        y_title="measured increase",
    )
    # The band, cut where it leaves the square.
    factor = found.factor
    plot.area(
        [
            (low, low),
            (low, min(low * factor, high)),
            (max(high / factor, low), high),
            (high, high),
            (high, max(high / factor, low)),
            (min(low * factor, high), low),
        ],
        "f-track",
    )
    plot.line([(low, low), (high, high)], "s-muted dash")
    for field, css in (("own", "predicted"), ("predicted", "measured")):
        points = _points(found, field)
        for part in _runs(found, points):
            plot.line([(x, y) for x, y, _ in part], f"s-{css} w")
        for x, y, rung in points:
            note = f"{share(rung.sparsity)} removed: predicted {number(x)}, measured {number(y)}"
            plot.dot(x, y, f"f-{css}", note)
    left, last = _leaves(found), 1e9
    for x, y, rung in _points(found, "predicted"):
        # From below upwards, where there is room between labels.
        at = plot.place_y(y)
        if last - at < 12 and rung is not left:
            continue
        last = at
        leaves = rung is left
        beside = -7 if plot.place_x(x) > (205 if leaves else 250) else 7
        plot.text(
            x,
            y,
            share(rung.sparsity) + (": no longer holds" if leaves else ""),
            "end" if beside < 0 else "start",
            "t bad" if leaves else "t m",
            by=(beside, -4 if beside < 0 else 11),
        )
    return plot.svg()


def undrawn(report: Report) -> list[float]:
    """Sparsities of the rungs that logarithmic axes have no place for."""
    found = None if report.trust is None else report.trust.ladder
    if found is None or not _drawable(found):
        return []
    drawn = [rung for _, _, rung in _points(found, "predicted")]
    return [rung.sparsity for rung in found.rungs if rung not in drawn]


def ladder_legend(found: Ladder) -> list[tuple[str, str]]:
    """Colour and words of each kind of mark that the ladder shows."""
    marks = [
        ("measured", "quadratic model", bool(_points(found, "predicted"))),
        ("predicted", "criterion's own prediction", bool(_points(found, "own"))),
        ("track", f"within a factor of {asked(found.factor)}", True),
    ]
    return [(css, words) for css, words, there in marks if there]


def _runs(
    found: Ladder, points: list[tuple[float, float, Rung]]
) -> list[list[tuple[float, float, Rung]]]:
    """The points in stretches of neighbouring rungs: no line leads over one that is not drawn."""
    parts: list[list[tuple[float, float, Rung]]] = []
    place = {id(rung): number for number, rung in enumerate(found.rungs)}
    for point in points:
        at = place[id(point[2])]
        if parts and place[id(parts[-1][-1][2])] == at - 1:
            parts[-1].append(point)
        else:
            parts.append([point])
    return [part for part in parts if len(part) > 1]


def _drawable(found: Ladder) -> bool:
    return bool(_points(found, "predicted"))


def _leaves(found: Ladder) -> Rung | None:
    """The first rung at which the model no longer holds."""
    beyond = [r for r in found.rungs if r.sparsity > (found.holds_up_to or 0.0)]
    return beyond[0] if beyond else None


def _points(found: Ladder, field: str) -> list[tuple[float, float, Rung]]:
    floor = max(found.resolution, 1e-300)
    return [
        (x, r.measured, r)
        for r in found.rungs
        if (x := getattr(r, field)) and r.measured and min(x, r.measured) >= floor
    ]


def intervals(report: Report) -> Markup | None:
    """90 % interval of each layer's median saliency; None without a bootstrap."""
    found = None if report.trust is None else report.trust.bootstrap
    shown = [
        (x.name, x.low, x.median, x.high)
        for x in (found.layers if found is not None else [])
        if x.low and x.high and x.median and min(x.low, x.median) > 0
    ][:MAX_LAYERS]
    if not shown:
        return None
    plot = Plot(
        "Interval of each layer's median saliency",
        logarithmic([v for _, low, _, high in shown for v in (low, high)], margin=0.08),
        rows(len(shown)),
        height=40.0 + 20.0 * len(shown),
        left=room_for([x[0] for x in shown]),
        x_title="median saliency of the layer",
    )
    for row, (name, low, median, high) in enumerate(shown):
        plot.beside(row, name)
        plot.bar((low, high), (row - 0.2, row + 0.2), "f-kept", clean(name, 80))
        plot.dot(median, row, "f-removed", f"{clean(name, 80)}: {number(median)}", 4.0)
    return plot.svg()
