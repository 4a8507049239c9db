"""Charts as inline SVG text: arrays enter, markup leaves. No script, no library, no colour that carries meaning alone.

Lines differ by dash and by a label at their end; colours come from CSS variables, so that one file serves light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

WIDTH, HEIGHT = 640.0, 270.0
LEFT, RIGHT, TOP, BOTTOM = 62.0, 16.0, 30.0, 42.0
Points = Sequence[tuple[float, float]]


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that cover [low, high] in about `count` steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within [low, high]; only the powers where that would be too many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [m * 10.0**p for p in powers for m in (1, 2, 5) if low * 0.999 <= m * 10.0**p <= high * 1.001]
    return ticks if len(ticks) <= 9 else [t for t in ticks if math.isclose(math.log10(t) % 1, 0, abs_tol=1e-9)]


def number(value: float) -> str:
    """A short number for an axis."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


@dataclass(kw_only=True)
class Chart:
    """One chart that is drawn in order; `x` and `y` map values to pixels.

    Attributes:
        title: for screen readers and for the hover text.
        x, y: scales.
        parts: markup so far.
    """

    title: str
    x: Callable[[float], float]
    y: Callable[[float], float]
    parts: list[Markup] = field(default_factory=list)

    def axes(self, x_ticks: Sequence[tuple[float, str]], y_ticks: Sequence[tuple[float, str]], *, x_label: str, y_label: str) -> None:
        """Grid lines, tick texts and the two axis labels."""
        right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
        for value, text in y_ticks:
            at = self.y(value)
            self._add('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>', LEFT, right, at, at)
            self._add('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>', LEFT - 6, at + 4, text)
        for value, text in x_ticks:
            at = self.x(value)
            self._add('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>', at, at, bottom, bottom + 4)
            self._add('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>', at, bottom + 17, text)
        self._add('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>', LEFT, right, bottom, bottom)
        self._add('<text class="label" x="{}" y="{}" text-anchor="end">{}</text>', right, HEIGHT - 5, x_label)
        self._add('<text class="label" x="{}" y="{}">{}</text>', 2, 13, y_label)

    def line(self, points: Points, name: str, css: str, *, step: bool = False) -> None:
        """A line with gaps where a value is not finite."""
        path, pen, last = [], False, 0.0
        for px, py in points:
            if not math.isfinite(py):
                pen = False
                continue
            x, y = self.x(px), self.y(py)
            if step and pen:
                path.append(f"L{x:.1f} {last:.1f}")
            path.append(f"{'L' if pen else 'M'}{x:.1f} {y:.1f}")
            pen, last = True, y
        if path:
            self._add('<path class="line {}" d="{}"><title>{}</title></path>', css, " ".join(path), name)

    def band(self, low: float, high: float, name: str) -> None:
        """A shaded stretch of the x axis."""
        x0, x1 = self.x(low), self.x(high)
        self._add(
            '<rect class="band" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>',
            x0,
            TOP,
            max(x1 - x0, 1.5),
            HEIGHT - BOTTOM - TOP,
            name,
        )

    def slo(self, value: float, text: str, *, horizontal: bool) -> None:
        """The promise: a dashed line across the chart with its text on it."""
        if horizontal:
            at = self.y(value)
            self._add('<line class="slo" x1="{}" x2="{}" y1="{}" y2="{}"/>', LEFT, WIDTH - RIGHT, at, at)
            self._add('<text class="slo-text" x="{}" y="{}" text-anchor="end">{}</text>', WIDTH - RIGHT - 2, at - 4, text)
            return
        at = self.x(value)
        self._add('<line class="slo" x1="{}" x2="{}" y1="{}" y2="{}"/>', at, at, TOP, HEIGHT - BOTTOM)
        left_of = at > WIDTH - 130
        self._add(
            '<text class="slo-text" x="{}" y="{}" text-anchor="{}">{}</text>',
            at - 5 if left_of else at + 5,
            HEIGHT - BOTTOM - 7,
            "end" if left_of else "start",
            text,
        )

    def dot(self, x: float, y: float, text: str, *, anchor: str = "start") -> None:
        """A marked point with its text beside it."""
        px, py = self.x(x), self.y(y)
        self._add('<circle class="dot" cx="{}" cy="{}" r="4"/>', px, py)
        self._add('<text class="mark" x="{}" y="{}" text-anchor="{}">{}</text>', px + (8 if anchor == "start" else -8), py + 14, anchor, text)

    def crosses(self, points: Points, name: str) -> None:
        """Crosses, for things that should not be."""
        for px, py in points:
            x, y = self.x(px), self.y(py)
            self._add('<path class="cross" d="M{} {}l6 6m0 -6l-6 6"><title>{}</title></path>', x - 3, y - 3, name)

    def svg(self) -> Markup:
        """The whole element."""
        body = Markup("").join(self.parts)
        head = Markup('<svg viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, self.title)
        return head + Markup("<title>{}</title>").format(self.title) + body + Markup("</svg>")

    def _add(self, template: str, *values: object) -> None:
        texts = [f"{v:.1f}" if isinstance(v, float) else escape(v) for v in values]
        self.parts.append(Markup(template).format(*texts))


def linear(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Values to pixels; values outside are held at the edge."""
    span = (high - low) or 1.0
    return lambda v: start + (min(max(v, low), high) - low) / span * (end - start)


def logarithmic(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """The same on a logarithmic scale; 0 < low < high."""
    scale = linear(math.log10(low), math.log10(high), start, end)
    return lambda v: scale(math.log10(max(v, low)))


def horizontal(low: float, high: float, *, log: bool = False) -> Callable[[float], float]:
    """A scale over the width of the plot."""
    return (logarithmic if log else linear)(low, high, LEFT, WIDTH - RIGHT)


def vertical(low: float, high: float, *, log: bool = False) -> Callable[[float], float]:
    """A scale over the height of the plot, upwards."""
    return (logarithmic if log else linear)(low, high, HEIGHT - BOTTOM, TOP)
