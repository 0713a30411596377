"""Plots as SVG that sits inside an HTML page and takes colours and letters from its style.

No plotting library: a page's dozen plots are rectangles, lines, dots and words, each with a class
that report.css gives a colour in light and in dark. Coordinates are those of a phone's width, so
that letters stay readable there.
"""

from collections.abc import Sequence

from markupsafe import Markup, escape

from pruning.report.scale import Scale
from pruning.report.words import clean

WIDTH = 340.0
"""Of every plot, in units of the letters' 11."""

LETTER = 6.7
"""Average width of a letter."""

NAME = 18
"""Letters of a layer's name beside its row."""

Point = tuple[float, float]


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


class Plot:
    """Axes, and marks between them.

    Args:
        label: What it shows, for those who can't see it.
        x: The horizontal scale.
        y: The vertical one, its beginning below.
        height: In the same units as `WIDTH`.
        left: Room for the labels on the left; None: as the ticks of `y` need it.
        right: Room on the right.
        top: Room above.
        x_title: Below the horizontal axis.
        y_title: Above the vertical axis.
        width: Where it is not a plot of its own width.
    """

    def __init__(
        self,
        label: str,
        x: Scale,
        y: Scale,
        *,
        height: float,
        left: float | None = None,
        right: float = 12.0,
        top: float | None = None,
        x_title: str = "",
        y_title: str = "",
        width: float = WIDTH,
    ) -> None:
        if left is None:
            left = 12.0 + LETTER * max((len(text) for _, text in y.ticks), default=0)
        self._label, self._x, self._y = label, x, y
        self._size = (width, height)
        self._left, self._right = left, width - right
        self._top = (25.0 if y_title else 8.0) if top is None else top
        self._bottom = height - (8.0 + (14.0 if x.ticks else 0.0) + (15.0 if x_title else 0.0))
        self._marks: list[str] = []
        if x_title:
            half = LETTER * len(x_title) / 2
            middle = min(max((self._left + self._right) / 2, half), width - half)
            self._word(middle, height - 4, x_title, "middle", "t m")
        if y_title:
            self._word(2, 11, y_title, "start", "t m")
        self._axes()

    def _axes(self) -> None:
        for value, text in self._y.ticks:
            at = self.place_y(value)
            self._line_of([(self._left, at), (self._right, at)], "g")
            self._word(self._left - 6, at + 3.8, text, "end", "t m")
        for value, text in self._x.ticks:
            at = self.place_x(value)
            self._line_of([(at, self._bottom), (at, self._bottom + 3)], "a")
            half = LETTER * len(text) / 2
            inside = min(max(at, half), self._size[0] - half)
            self._word(inside, self._bottom + 15, text, "middle", "t m")
        if self._x.ticks:
            self._line_of([(self._left, self._bottom), (self._right, self._bottom)], "a")

    def place_x(self, value: float) -> float:
        """The coordinate of a value."""
        return self._left + self._x.share(value) * (self._right - self._left)

    def place_y(self, value: float) -> float:
        """The coordinate of a value."""
        return self._bottom - self._y.share(value) * (self._bottom - self._top)

    def bar(self, x: Point, y: Point, css: str, title: str = "") -> None:
        """A rectangle from and to these values."""
        x0, x1 = sorted(self.place_x(v) for v in x)
        y0, y1 = sorted(self.place_y(v) for v in y)
        self._marks.append(
            f'<rect class="{css}" x="{_number(x0)}" y="{_number(y0)}" '
            f'width="{_number(max(x1 - x0, 0.4))}" height="{_number(max(y1 - y0, 0.4))}"'
            + self._closed(title, "rect")
        )

    def line(self, points: Sequence[Point], css: str, title: str = "") -> None:
        """A line through values."""
        self._line_of([(self.place_x(x), self.place_y(y)) for x, y in points], css, title)

    def area(self, points: Sequence[Point], css: str) -> None:
        """A closed shape."""
        path = self._path([(self.place_x(x), self.place_y(y)) for x, y in points])
        self._marks.append(f'<path class="{css}" d="{path}Z"/>')

    def whisker(
        self, at: float, low: float, high: float, css: str, *, across: bool = False
    ) -> None:
        """An interval with its ends marked, upright or across."""
        if across:
            x0, x1, y = self.place_x(low), self.place_x(high), self.place_y(at)
            path = [((x0, y), (x1, y)), *(((x, y - 3.5), (x, y + 3.5)) for x in (x0, x1))]
        else:
            y0, y1, x = self.place_y(low), self.place_y(high), self.place_x(at)
            path = [((x, y0), (x, y1)), *(((x - 3.5, y), (x + 3.5, y)) for y in (y0, y1))]
        drawn = "".join(self._path(part) for part in path)
        self._marks.append(f'<path class="{css}" d="{drawn}"/>')

    def dot(self, x: float, y: float, css: str, title: str = "", radius: float = 3.5) -> None:
        """A round mark."""
        self._marks.append(
            f'<circle class="{css}" cx="{_number(self.place_x(x))}" '
            f'cy="{_number(self.place_y(y))}" r="{_number(radius)}"' + self._closed(title, "circle")
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        anchor: str = "start",
        css: str = "t",
        by: Point = (0, 0),
    ) -> None:
        """Words at a value, moved by so much."""
        self._word(self.place_x(x) + by[0], self.place_y(y) + by[1], text, anchor, css)

    def beside(self, y: float, name: str, note: str = "") -> None:
        """A row's name on the left of the axis and what is known of it on the right."""
        at = self.place_y(y) + 3.8
        self._word(self._left - 6, at, clean(name, NAME), "end", "t")
        if note:
            self._word(self._right + 6, at, note, "start", "t m")

    def svg(self) -> Markup:
        """The plot as an inline `<svg>` element."""
        width, height = (_number(v) for v in self._size)
        return Markup(
            f'<svg role="img" aria-label="{escape(self._label)}" viewBox="0 0 {width} {height}">\n'
            + "\n".join(self._marks)
            + "\n</svg>"
        )

    def _word(self, x: float, y: float, text: str, anchor: str, css: str) -> None:
        where = "" if anchor == "start" else f' text-anchor="{anchor}"'
        self._marks.append(
            f'<text class="{css}" x="{_number(x)}" y="{_number(y)}"{where}>{escape(text)}</text>'
        )

    def _line_of(self, points: Sequence[Point], css: str, title: str = "") -> None:
        self._marks.append(
            f'<path class="{css}" d="{self._path(points)}"' + self._closed(title, "path")
        )

    @staticmethod
    def _path(points: Sequence[Point]) -> str:
        return "M" + "L".join(f"{_number(x)} {_number(y)}" for x, y in points)

    @staticmethod
    def _closed(title: str, tag: str) -> str:
        return f"><title>{escape(title)}</title></{tag}>" if title else "/>"


def rows(count: int) -> Scale:
    """A vertical scale of rows, the first on top."""
    return Scale(count - 0.4, -0.6)


def room_for(names: Sequence[str]) -> float:
    """What names beside rows need on the left."""
    return 10.0 + LETTER * min(NAME, max((len(name) for name in names), default=0))
