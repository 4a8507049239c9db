"""The load report as one HTML file: the document of `report/load.py` enters, a page that needs nothing else leaves."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from deployctl.report.svg import Chart, horizontal, log_ticks, nice_ticks, number, vertical

TEMPLATES = Path(__file__).resolve().parent / "templates"
WORDS = {"PASS": ("✓", "the promise was kept"), "FAIL": ("✗", "the promise was broken"), "INCONCLUSIVE": ("?", "this test cannot decide")}
Rows = list[dict[str, Any]]


def render(document: dict[str, Any]) -> str:
    """One self-contained page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(seconds=seconds, share=share, number=number, rps=rps)
    verdict = document["verdict"]
    mark, words = WORDS[verdict["result"]]
    return environment.get_template("load.html.j2").render(
        d=document,
        v=verdict,
        mark=mark,
        words=words,
        headline=headline(document),
        charts=charts(document),
        stages=stage_rows(document["stages"]),
    )


def seconds(value: float | None) -> str:
    """A time for people."""
    if value is None:
        return "–"
    if value < 0.001:
        return f"{value * 1e6:.0f} µs"
    return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"


def share(ratio: float | None) -> str:
    """A ratio as per cent."""
    return "–" if ratio is None else f"{ratio * 100:.3g} %"


def rps(value: float | None) -> str:
    """A rate."""
    return "–" if value is None else f"{value:,.1f}/s"


def latency_objective(document: dict[str, Any]) -> dict[str, Any] | None:
    """The judged latency objective with the largest percentile."""
    rows = [o for o in document["verdict"]["objectives"] if o["metric"] == "latency"]
    return max(rows, key=lambda o: (o.get("percentile") or 0, -o["max"])) if rows else None


def headline(document: dict[str, Any]) -> str:
    """The promise and what was found, in one line."""
    objective = latency_objective(document)
    if objective is None:
        return str(document["name"])
    found = f"{seconds(objective['estimate'])}" if objective.get("estimate") is not None else "among unanswered requests"
    return f"p{objective['percentile']:g} {found}, promised {seconds(objective['max'])}"


def charts(document: dict[str, Any]) -> list[tuple[str, str, Markup]]:
    """(title, legend text, SVG) of every chart that has data."""
    out = []
    if document["cdf"]:
        out.append(("Latency of all requests", "share answered within a time; the shaded stretch is the 95 % interval", _cdf(document)))
        out.append(("Latency over time", "p50 dotted, p99 solid, by intended send time", _latency(document)))
    out.append(("Rate", "offered dotted, answered solid; a cross marks seconds with failures", _rate(document)))
    if document["replicas"]:
        out.append(("Ready replicas", "as the host reported them", _replicas(document)))
    return out


def _tail(ratio: float, most: float) -> float:
    """Share to a scale on which each nine is as long as the one before."""
    return min(-math.log10(max(1 - ratio, 1e-12)), most)


def _cdf(document: dict[str, Any]) -> Markup:
    points = document["cdf"]
    objective = latency_objective(document)
    limit = objective["max"] if objective else points[-1][0]
    low = max(points[0][0] * 0.8, 1e-5)
    high = max(points[-1][0], limit, (objective or {}).get("interval", {}).get("high", 0.0)) * 1.25
    most = max(math.log10(max(document["verdict"]["requests"], 10)), 2.0)
    chart = Chart(title="Latency distribution", x=horizontal(low, high, log=True), y=vertical(0, most))
    ticks = [(0.0, "0 %"), (_tail(0.5, most), "50 %"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %"), (4.0, "99.99 %")]
    chart.axes([(t, _ms(t)) for t in log_ticks(low, high)], [t for t in ticks if t[0] <= most], x_label="latency (logarithmic)", y_label="answered")
    if objective and objective.get("interval"):
        interval = objective["interval"]
        chart.band(interval["low"], interval["high"], f"95 % interval {seconds(interval['low'])} to {seconds(interval['high'])}")
    chart.line([(x, _tail(y, most)) for x, y in points], "share of requests answered within a time", "a")
    if objective:
        chart.slo(limit, f"SLO {seconds(limit)}", horizontal=False)
        if objective.get("estimate") is not None:
            at = _tail(objective["percentile"] / 100, most)
            chart.dot(objective["estimate"], at, f"p{objective['percentile']:g} {seconds(objective['estimate'])}")
    return chart.svg()


def _ms(value_s: float) -> str:
    return f"{number(value_s * 1000)} ms" if value_s < 1 else f"{number(value_s)} s"


def _time_axis(document: dict[str, Any]) -> list[tuple[float, str]]:
    return [(t, f"{t:g} s") for t in nice_ticks(0, document["duration_s"], 6)]


def _latency(document: dict[str, Any]) -> Markup:
    rows: Rows = document["series"]
    objective = latency_objective(document)
    seen = [r["p99_s"] for r in rows if r["p99_s"] is not None]
    limit = objective["max"] if objective else 0.0
    high = max([*seen, limit]) * 1.12
    chart = Chart(title="Latency over time", x=horizontal(0, document["duration_s"]), y=vertical(0, high))
    chart.axes(_time_axis(document), [(t, _ms(t)) for t in nice_ticks(0, high, 4)], x_label="since the start", y_label="latency")
    chart.line([(r["at_s"], _gap(r["p99_s"])) for r in rows], "p99 of each stretch", "b")
    chart.line([(r["at_s"], _gap(r["p50_s"])) for r in rows], "p50 of each stretch", "a dotted")
    if objective:
        chart.slo(limit, f"SLO {seconds(limit)}", horizontal=True)
    return chart.svg()


def _gap(value: float | None) -> float:
    return math.nan if value is None else value


def _rate(document: dict[str, Any]) -> Markup:
    rows: Rows = document["series"]
    high = max([1.0, *(max(r["offered_rps"], r["reached_rps"]) for r in rows)]) * 1.12
    chart = Chart(title="Offered and answered rate", x=horizontal(0, document["duration_s"]), y=vertical(0, high))
    chart.axes(_time_axis(document), [(t, number(t)) for t in nice_ticks(0, high, 4)], x_label="since the start", y_label="requests/s")
    chart.line([(r["at_s"], r["reached_rps"]) for r in rows], "answered rightly", "a")
    chart.line([(r["at_s"], r["offered_rps"]) for r in rows], "offered", "b dotted")
    chart.crosses([(r["at_s"], 0.0) for r in rows if r["failed"]], "failures")
    return chart.svg()


def _replicas(document: dict[str, Any]) -> Markup:
    points = [(t, n) for t, n in document["replicas"]]
    high = max(n for _, n in points) + 1
    chart = Chart(title="Ready replicas", x=horizontal(0, document["duration_s"]), y=vertical(0, high))
    ticks = [t for t in nice_ticks(0, high, 4) if t == int(t)]
    chart.axes(_time_axis(document), [(t, number(t)) for t in ticks], x_label="since the start", y_label="ready")
    chart.line([*points, (document["duration_s"], points[-1][1])], "ready replicas", "a", step=True)
    return chart.svg()


def stage_rows(stages: Rows) -> list[dict[str, Any]]:
    """Stages with their share of the whole, for the bars."""
    total = sum(s["mean_s"] for s in stages if s.get("mean_s") is not None) or 1.0
    return [
        {"name": s["name"], "mean": seconds(s.get("mean_s")), "note": s.get("note", ""), "width": round(100 * (s.get("mean_s") or 0.0) / total, 1)}
        for s in stages
    ]
