"""The replay as one HTML file: document and series enter, a page that needs nothing else leaves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from deployctl.core import words
from deployctl.core.fluid import Plant
from deployctl.core.replay import Run
from deployctl.report.replay import series
from deployctl.report.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Chart, linear, nice_ticks, number

TEMPLATES = Path(__file__).resolve().parent / "templates"


def render(document: dict[str, Any], runs: Sequence[Run], plant: Plant) -> str:
    """One self-contained page: a table of policies, and four charts for each."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(number=number, share=lambda v: f"{v * 100:.2f} %", hours=lambda v: f"{v:,.1f}", duration=words.duration)
    panels = [{"figures": f, "charts": charts(series(run, plant), document["slo_s"])} for run, f in zip(runs, document["policies"], strict=True)]
    return environment.get_template("replay.html.j2").render(d=document, panels=panels, headline=headline(document))


def headline(document: dict[str, Any]) -> str:
    """What the first policy did, in one sentence."""
    first = document["policies"][0]
    kept = "kept the SLO" if first["kept"] else "did not keep the SLO"
    return f"{first['policy']} {kept} at {first['replica_hours']:,.1f} replica-hours, {first['regret']:.2f}x the minimum possible"


def charts(rows: dict[str, Any], slo_s: float) -> list[dict[str, Any]]:
    """Load, replicas, queue and latency over time, breaches shaded."""
    return [
        {
            "title": "Load and what the ready replicas can serve",
            "legend": "solid: requests a second; dotted: capacity",
            "svg": _pair(rows, "load_rps", "capacity_rps", "req/s"),
        },
        {
            "title": "Replicas wanted and ready",
            "legend": "solid: ready; dotted: wanted; circles: the policy asked for more",
            "svg": _pair(rows, "ready", "wanted", "replicas", step=True, marks=True),
        },
        {"title": "Queue", "legend": "requests that wait", "svg": _single(rows, "queue", "requests", None)},
        {
            "title": "p99, estimated",
            "legend": "response time without waiting, plus the wait of the fluid model",
            "svg": _single(rows, "p99_s", "seconds", slo_s),
        },
    ]


def _frame(rows: dict[str, Any], title: str, top: float, y_label: str) -> Chart:
    chart = Chart(title=title, x=linear(0.0, float(rows["n"]), LEFT, WIDTH - RIGHT), y=linear(0.0, top or 1.0, HEIGHT - BOTTOM, TOP))
    hours = rows["n"] / 3600
    unit, label = (3600.0, "hours") if hours > 2 else (60.0, "minutes")
    x_ticks = [(t * unit, number(t)) for t in nice_ticks(0.0, rows["n"] / unit, 8)]
    chart.axes(x_ticks, [(t, number(t)) for t in nice_ticks(0.0, top or 1.0)], x_label=label, y_label=y_label)
    for first, last in rows["breaches"]:
        chart.band(float(first), float(last + 1), f"SLO broken within {last - first + 1} s")
    return chart


def _points(rows: dict[str, Any], key: str) -> list[tuple[float, float]]:
    return list(zip(rows["t_s"], rows[key], strict=True))


def _pair(rows: dict[str, Any], first: str, second: str, unit: str, *, step: bool = False, marks: bool = False) -> Markup:
    chart = _frame(rows, f"{first} and {second}", max([*rows[first], *rows[second], 1.0]) * 1.05, unit)
    chart.line(_points(rows, second), second, "b dotted", step=step)
    chart.line(_points(rows, first), first, "a", step=step)
    if marks:
        risen = [(at, n) for (_, before), (at, n) in zip([(0, 0), *rows["starts"]], rows["starts"], strict=False) if n > before]
        for at, replicas in risen[:: max(len(risen) // 60, 1)]:
            chart.dot(float(at), float(replicas), "")
    return chart.svg()


def _single(rows: dict[str, Any], key: str, unit: str, limit: float | None) -> Markup:
    values = [v for v in rows[key] if math.isfinite(v)]
    chart = _frame(rows, key, max([*values, (limit or 0.0) * 1.2, 0.001]) * 1.05, unit)
    chart.line(_points(rows, key), key, "a")
    if limit:
        chart.slo(limit, f"SLO {limit:g} s", horizontal=True)
    return chart.svg()
