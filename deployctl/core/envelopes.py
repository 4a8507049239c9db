"""Envelopes: ways to turn the arrivals of the past day into a number of replicas. `policies/slo.py` judges and chooses among them.

What enters is a history of load, one row a tick; what leaves is how many replicas each envelope (EXPERTS) asks for now. Refuses
to know which of them is right. Four kinds:

- `flat`: the highest load of a window, times a headroom.
- `growth`: that, plus a quantile of how much the load has grown within one start-up in the past day.
- `season`: the load one period ago, around the moment when a replica that is ordered now would be ready.
- `forecast`: a forecast for that moment, plus a quantile of the errors that the same forecast made in the past day.

The forecasts (FORECASTS) are one formula with few settings: the load now, where a straight line through the last minute leads,
and the mean of a longer window, mixed. Every one rises with the present load. Each step is an operation that PromQL has
(`core/rules.py`); the errors are kept sorted, so that a tick costs the same whatever the history.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from deployctl.core.observation_window import FloatArray, IntArray, Window, largest, quantiles, replaced

DAY_S = 86400.0
TREND_S = 60.0  # the line of a trend is fitted to the mean rates of this long
CEILING = 1.5  # no envelope asks for more than this times the largest load of the day
SLACK = 1e-6  # replicas; so that sums in another order do not start one


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The load one start-up ahead: (1 - trend_ratio - mean_ratio) x now + trend_ratio x the line's end + mean_ratio x the mean of mean_s."""

    trend_ratio: float = 0.0
    mean_ratio: float = 0.0
    mean_s: float = 0.0

    @property
    def name(self) -> str:
        """Label in series and reports."""
        parts = [f"trend{self.trend_ratio:g}"] if self.trend_ratio else []
        parts += [f"mean{self.mean_s:g}s-{self.mean_ratio:g}"] if self.mean_ratio else []
        return "-".join(parts) or "now"


FORECASTS: tuple[Forecast, ...] = (
    Forecast(),
    Forecast(trend_ratio=1.0),
    Forecast(trend_ratio=0.5, mean_ratio=0.5, mean_s=300.0),
    Forecast(trend_ratio=0.5, mean_ratio=0.5, mean_s=900.0),
    Forecast(mean_ratio=0.5, mean_s=900.0),
    Forecast(mean_ratio=0.5, mean_s=3600.0),
    Forecast(mean_ratio=0.25, mean_s=14400.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expert:
    """One envelope.

    Attributes:
        kind: flat, growth, season or forecast (module docstring).
        window_s: how far back the largest load is looked for.
        headroom_ratio: factor on it.
        quantile: of the growth within one start-up, or of the errors of the forecast.
        period_s, margin_s: for `season`: how long ago, and how exact the repetition is.
        forecast: index in FORECASTS.
    """

    kind: Literal["flat", "growth", "season", "forecast"]
    window_s: float = 15.0
    headroom_ratio: float = 1.0
    quantile: float = 0.0
    period_s: float = 0.0
    margin_s: float = 0.0
    forecast: int = 0

    @property
    def name(self) -> str:
        """Label of the envelope in series and reports."""
        if self.kind == "flat":
            return f"flat-{self.window_s:g}s-{self.headroom_ratio:g}"
        if self.kind == "growth":
            return f"growth-q{self.quantile:g}-{self.window_s:g}s"
        if self.kind == "forecast":
            return f"forecast-{FORECASTS[self.forecast].name}-q{self.quantile:g}"
        return f"season-{self.period_s:g}s-{self.margin_s:g}s"

    @property
    def held(self) -> bool:
        """Whether what it asks for is kept for one start-up. A forecast is for one moment and was judged as such."""
        return self.kind != "forecast"


# Those that are held come first.
EXPERTS: tuple[Expert, ...] = (
    *(Expert(kind="flat", window_s=w, headroom_ratio=h) for w in (60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0) for h in (1.0, 1.1, 1.25, 1.5)),
    *(Expert(kind="growth", window_s=w, quantile=q) for q in (0.9, 0.95, 0.97, 0.99, 0.999) for w in (15.0, 300.0)),
    *(
        Expert(kind="season", window_s=45.0, headroom_ratio=1.1, period_s=p, margin_s=m)
        for p in (1800.0, 3600.0, 7200.0, 14400.0, 86400.0)
        for m in (60.0, 180.0)
    ),
    *(Expert(kind="forecast", forecast=f, quantile=q) for f in range(len(FORECASTS)) for q in (0.7, 0.8, 0.9, 0.95, 0.97, 0.99, 0.995)),
)
HELD_COUNT = sum(e.held for e in EXPERTS)
LEVELS = tuple(sorted({e.quantile for e in EXPERTS if e.quantile}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticks:
    """Durations in ticks of `sync_s`; a start-up counts as begun ticks."""

    sync_s: float
    start_up: int
    day: int
    judged: int

    @property
    def lead(self) -> int:
        """Ticks until the first one that a replica ordered now serves from end to end."""
        return self.start_up + 1

    def of(self, seconds: float) -> int:
        """Ticks in a duration, at least one."""
        return max(round(seconds / self.sync_s), 1)


def season_span(expert: Expert, step: Ticks) -> tuple[int, int]:
    """Ticks back to the newest load that a season looks at, and how many ticks it looks at."""
    margin = step.of(expert.margin_s)
    newest = step.of(expert.period_s) - step.start_up - 1 - margin
    return newest, step.start_up + 1 + 2 * margin


_MARGINS = tuple(sorted({e.margin_s for e in EXPERTS if e.kind == "season"}))
_WINDOWS_S = tuple(sorted({e.window_s for e in EXPERTS} | {DAY_S}))

# Columns of the history of load. ERRORS: growth first, then one for each forecast. TOPS: the windows, then the spans of seasons.
PEAK, MEAN, SUM_MEAN, SUM_KNOWN = 0, 1, 2, 3
_F = len(FORECASTS)
_FORECASTS, _ERRORS = slice(4, 4 + _F), slice(4 + _F, 5 + 2 * _F)
_TOPS = slice(_ERRORS.stop, _ERRORS.stop + len(_WINDOWS_S) + len(_MARGINS))
_WIDTH = _TOPS.stop
_BLANK, _NO_ERRORS = np.full(_WIDTH, np.nan), np.full(1 + _F, np.nan)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A day of arrivals and what forecasts made of it; `ordered` are the known errors of each kind, sorted."""

    table: Window
    ordered: tuple[FloatArray, ...] = field(default_factory=lambda: (np.empty(0),) * (1 + _F))

    def over(self, column: int, ticks: int, *, back: int = 0) -> float:
        """How much a running sum (`SUM_MEAN`, `SUM_KNOWN`) grew in the so many ticks that end `back` ticks ago."""
        newest, old = self.table.back(column, back), self.table.back(column, back + ticks)
        return 0.0 if newest is None else float(newest) - (0.0 if old is None else float(old))


def no_load(step: Ticks) -> Load:
    """A history that has seen nothing."""
    return Load(table=Window(width=_WIDTH, depth=step.day + 2 * step.start_up + step.of(600.0) + 8))


def seen(load: Load, mean: float, peak: float, step: Ticks) -> Load:
    """The history with one more tick; NaN says that the load of the tick is not known."""
    table = load.table
    row = _BLANK.copy()
    newest = table.back(slice(0, _WIDTH), 0)
    known = not math.isnan(mean)
    row[PEAK], row[MEAN] = peak, mean
    row[SUM_MEAN] = (0.0 if newest is None else newest[SUM_MEAN]) + (mean if known else 0.0)
    row[SUM_KNOWN] = (0.0 if newest is None else newest[SUM_KNOWN]) + known
    row[_TOPS] = _tops(table, newest, peak, step)
    if known:
        row[_ERRORS] = _errors(table, peak, step)
    leaving = table.back(_ERRORS, step.day - 1)
    gone = _NO_ERRORS if leaving is None else leaving
    ordered = tuple(map(replaced, load.ordered, gone.tolist(), row[_ERRORS].tolist()))
    if known:
        row[_FORECASTS] = _forecasts(table, row, step)
    return Load(table=table.append(row), ordered=ordered)


def _tops(table: Window, newest: FloatArray | None, peak: float, step: Ticks) -> list[float]:
    """The largest load of each window: that of the tick before, unless the new one is larger or the one that leaves was it."""
    counts = layout(step).counts
    before = [math.nan] * len(counts) if newest is None else newest[_TOPS].tolist()
    leaving = table.each(layout(step).peaks, layout(step).leaving).tolist()
    tops = []
    for top, left, count in zip(before, leaving, counts, strict=True):
        if math.isnan(top) or peak >= top:
            tops.append(peak)
        elif left >= top:
            tops.append(float(np.fmax(largest(table.last(PEAK, count - 1)), peak)))
        else:
            tops.append(top)
    return tops


def _errors(table: Window, peak: float, step: Ticks) -> FloatArray:
    """How much the load grew within a start-up and two ticks, and what each forecast of one lead ago was short of."""
    errors = _NO_ERRORS.copy()
    earlier = table.back(PEAK, step.lead)
    if earlier is not None:
        errors[0] = np.maximum(peak - earlier, 0.0)
    told = table.back(_FORECASTS, step.lead - 1)
    if told is not None:
        errors[1:] = peak - told
    return errors


def _forecasts(table: Window, row: FloatArray, step: Ticks) -> FloatArray:
    plan = layout(step)
    now = float(row[MEAN])
    line = _line_end(table, now, step)
    sums = np.fmax(table.each(plan.sums, plan.means), 0.0)  # before history began: 0
    means = (row[SUM_MEAN] - sums[:_F]) / np.maximum(row[SUM_KNOWN] - sums[_F:], 1.0)
    told: FloatArray = plan.now_ratio * now + plan.trend_ratio * line + plan.mean_ratio * means
    return told


def _line_end(table: Window, now: float, step: Ticks) -> float:
    """Where the least-squares line through the last minute is one lead from now; the present load where nothing else is known."""
    values = [*table.last(MEAN, step.of(TREND_S) - 1).tolist(), now]
    points: list[tuple[int, float]] = [(at, value) for at, value in enumerate(values, start=1 - len(values)) if not math.isnan(value)]
    if all(value == now for _, value in points):
        return now
    centre = sum(at for at, _ in points) / len(points)
    middle = sum(value for _, value in points) / len(points)
    slope: float = sum((at - centre) * value for at, value in points) / sum((at - centre) ** 2 for at, _ in points)
    return middle + slope * (step.lead - centre)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """What does not change from tick to tick: windows in ticks, and which envelope uses which column."""

    counts: tuple[int, ...]
    peaks: IntArray
    leaving: IntArray
    sums: IntArray
    means: IntArray
    now_ratio: FloatArray
    trend_ratio: FloatArray
    mean_ratio: FloatArray
    top: IntArray
    headroom: FloatArray
    growth: IntArray
    growth_level: IntArray
    season: slice
    season_top: IntArray
    season_back: IntArray
    season_headroom: FloatArray
    day_top: int
    forecast: slice
    forecast_of: IntArray
    forecast_level: IntArray


@functools.lru_cache(maxsize=8)
def layout(step: Ticks) -> Layout:
    """The layout for durations in ticks."""
    growth = [i for i, e in enumerate(EXPERTS) if e.kind == "growth"]
    seasons = [e for e in EXPERTS if e.kind == "season"]
    forecasts = [e for e in EXPERTS if e.kind == "forecast"]
    first = next(i for i, e in enumerate(EXPERTS) if e.kind == "season")
    spans = [next(season_span(e, step)[1] for e in seasons if e.margin_s == m) for m in _MARGINS]
    counts = (*(step.of(w) for w in _WINDOWS_S), *spans)
    mean_ticks = [step.of(f.mean_s) - 1 for f in FORECASTS]
    return Layout(
        counts=counts,
        peaks=np.full(len(counts), PEAK),
        leaving=np.array(counts) - 1,
        sums=np.repeat([SUM_MEAN, SUM_KNOWN], _F),
        means=np.array(mean_ticks * 2),
        now_ratio=np.array([1.0 - f.trend_ratio - f.mean_ratio for f in FORECASTS]),
        trend_ratio=np.array([f.trend_ratio for f in FORECASTS]),
        mean_ratio=np.array([f.mean_ratio for f in FORECASTS]),
        top=np.array([_WINDOWS_S.index(e.window_s) for e in EXPERTS]),
        headroom=np.array([e.headroom_ratio if e.kind == "flat" else 1.0 for e in EXPERTS]),
        growth=np.array(growth),
        growth_level=np.array([LEVELS.index(EXPERTS[i].quantile) for i in growth]),
        season=slice(first, first + len(seasons)),
        season_top=np.array([len(_WINDOWS_S) + _MARGINS.index(e.margin_s) for e in seasons]),
        day_top=_WINDOWS_S.index(DAY_S),
        # A period that is over before a replica is ready has no news: its headroom is 0.
        season_back=np.array([max(season_span(e, step)[0], 0) for e in seasons]),
        season_headroom=np.array([e.headroom_ratio if season_span(e, step)[0] >= 1 else 0.0 for e in seasons]),
        forecast=slice(HELD_COUNT, len(EXPERTS)),
        forecast_of=np.array([e.forecast for e in forecasts]),
        forecast_level=np.array([LEVELS.index(e.quantile) for e in forecasts]),
    )


def asked(load: Load, capacity_rps: float, step: Ticks) -> FloatArray:
    """Replicas that each envelope asks for after the newest tick, (experts,); its load must be known."""
    plan, table = layout(step), load.table
    row = table.back(slice(0, _WIDTH), 0)
    assert row is not None
    tops = row[_TOPS]
    loads = plan.headroom * tops[plan.top]
    loads[plan.growth] += quantiles(load.ordered[:1], LEVELS)[0, plan.growth_level]
    # fmax leaves out what history does not have.
    before = table.each(_TOPS.start + plan.season_top, plan.season_back)
    loads[plan.season] = np.fmax(loads[plan.season], plan.season_headroom * before)
    told = row[_FORECASTS][plan.forecast_of] + quantiles(load.ordered[1:], LEVELS)[plan.forecast_of, plan.forecast_level]
    loads[plan.forecast] = np.maximum(told, row[PEAK])
    ceiling = CEILING * tops[plan.day_top]
    replicas: FloatArray = np.maximum(np.ceil(np.minimum(loads, ceiling) / capacity_rps - SLACK), 1.0)
    return replicas


def line_replicas(load: Load, forecast: int, headroom_ratio: float, capacity_rps: float, step: Ticks) -> int:
    """Replicas for a forecast, at least for the present load, with headroom, under the ceiling of all envelopes."""
    row = load.table.back(slice(0, _WIDTH), 0)
    assert row is not None
    ceiling = CEILING * row[_TOPS][layout(step).day_top]
    told = float(min(max(row[_FORECASTS][forecast], row[PEAK]) * headroom_ratio, ceiling))
    return max(math.ceil(told / capacity_rps - SLACK), 1)
