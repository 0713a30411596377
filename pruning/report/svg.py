"""Matplotlib figures as SVG that sits inside an HTML page and takes its colours from it.

Figures are drawn in stand-in colours which become CSS variables, so one plot serves light and
dark. Text stays text, never mathematics: names in it come from strangers.
"""

import io
import math
import re
import warnings
from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, GRID = "#010101", "#020202", "#030303"
KEPT, REMOVED, PREDICTED, MEASURED, PANEL = "#040404", "#050505", "#060606", "#070707", "#080808"

_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "rule",
    KEPT: "kept",
    REMOVED: "removed",
    PREDICTED: "predicted",
    MEASURED: "measured",
    PANEL: "panel",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "secateur",
    "text.parse_math": False,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 8.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.labelcolor": MUTED,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "axes.unicode_minus": True,
}
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def figure(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure of this size in inches, and its axes."""
    drawn = Figure(figsize=(width, height), layout="constrained")
    return drawn, drawn.subplots()


def style() -> AbstractContextManager[None]:
    """The context in which figures are made and rendered."""
    return mpl.rc_context(_STYLE)


def power_of_ten(value: float, _position: int | None = None) -> str:
    """Tick label of a logarithmic axis, without mathematics: 10⁻³."""
    if not 0 < value < math.inf:
        return ""
    text = f"{value:.0e}"
    mantissa, exponent = text.split("e")
    power = "10" + str(int(exponent)).translate(_SUPERSCRIPTS)
    return power if mantissa == "1" else f"{mantissa}·{power}"


def render(drawn: Figure, name: str, label: str) -> Markup:
    """The figure as an inline `<svg>` element.

    Args:
        drawn: The figure.
        name: Prefix of the ids inside, unique in the page.
        label: What it shows, for those who can't see it.
    """
    out = io.StringIO()
    with warnings.catch_warnings():
        # Only the layout misses the glyph; the browser draws the text with its own fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        drawn.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r"<style type=\"text/css\">.*?</style>", "", text, count=1, flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]*"', text)
    opening = f'<svg role="img" aria-label="{escape(label)}" {box.group() if box else ""}>'
    text = re.sub(r"<svg[^>]*>", lambda _: opening, text, count=1)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'href="#{name}-')
    text = re.sub(r"(font: (?:[\w.]+ )*[\d.]+px) [^;\"]*", r"\1 system-ui, sans-serif", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(f": {colour}", f": var(--{variable})")
    return Markup(re.sub(r"\n\s*", "\n", text))
