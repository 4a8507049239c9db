"""The report of a load test: samples and a verdict enter, a document (for JSON) and one offline HTML page leave.

Refuses to know files, clocks and the network; every figure on the page is in the document too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from deployctl.core import codec
from deployctl.core.bootstrap import percentile
from deployctl.core.demand import Demand
from deployctl.core.load_samples import Samples
from deployctl.core.slo import Slo
from deployctl.core.verdict import Verdict

PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9)
MAX_BINS = 120
MAX_CDF = 300
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Mean seconds that a request spent somewhere; None where that is unknown."""

    name: str
    mean_s: float | None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """Everything that the page tells.

    Attributes:
        name: service or model.
        at: date and time of the start, as text.
        verdict, slo: the judgement.
        samples: exact samples of the judged part.
        demand, duration_s: what was planned.
        stages: where the time went, in the order a request passes them.
        replicas: (seconds since the start, ready replicas); empty where unknown.
        environment: machine and versions.
        command: repeats the test.
        warnings: sentences that qualify the result.
        batch: mean executed batch size by model; empty where unknown.
    """

    name: str
    at: str
    verdict: Verdict
    slo: Slo
    samples: Samples
    demand: Demand
    duration_s: float
    stages: tuple[Stage, ...] = ()
    replicas: tuple[tuple[float, float], ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    command: str = ""
    warnings: tuple[str, ...] = ()
    batch: dict[str, float] = field(default_factory=dict)


def document(report: LoadReport) -> dict[str, Any]:
    """The report as plain data: what `-o json` prints and what the page draws."""
    samples = report.samples
    latencies = np.sort(samples.latency_s[samples.ok])
    return {
        "name": report.name,
        "at": report.at,
        "verdict": codec.to_data(report.verdict),
        "slo": codec.to_data(report.slo),
        "demand": {k: v for k, v in codec.to_data(report.demand).items() if k != "times_s"},
        "duration_s": report.duration_s,
        "percentiles": percentiles(samples),
        "mean_s": float(latencies.mean()) if latencies.size else None,
        "max_s": float(latencies[-1]) if latencies.size else None,
        "pieces": pieces(samples),
        "cdf": cdf(samples),
        "series": series(samples, report.demand, report.duration_s),
        "sizes": by_size(samples),
        "errors": errors(samples),
        "stages": [codec.to_data(stage) for stage in report.stages],
        "batch": report.batch,
        "replicas": [list(row) for row in report.replicas],
        "environment": report.environment,
        "command": report.command,
        "warnings": list(report.warnings),
    }


def percentiles(samples: Samples) -> list[dict[str, float | None]]:
    """Order statistics over all requests; one that lies among unanswered requests is None."""
    values = np.where(samples.ok, samples.latency_s, np.inf)
    return [{"percentile": p, "latency_s": _finite(percentile(values, p / 100)) if values.size else None} for p in PERCENTILES]


def pieces(samples: Samples) -> list[dict[str, Any]]:
    """Of answers that came in pieces: time to the first one, mean time between them, and how many there were; empty where they came whole."""
    if samples.first_s is None or samples.gap_s is None or samples.pieces is None:
        return []
    rows = {"time to the first piece": samples.first_s[samples.ok], "time between pieces": samples.gap_s[~np.isnan(samples.gap_s)]}
    found: list[dict[str, Any]] = [
        {"name": name, "unit": "s", **{f"p{p:g}": percentile(values, p / 100) if values.size else None for p in (50.0, 99.0)}}
        for name, values in rows.items()
    ]
    counts = samples.pieces[samples.ok].astype(np.float64)
    number = {f"p{p:g}": percentile(counts, p / 100) if counts.size else None for p in (50.0, 99.0)}
    return [*found, {"name": "pieces of an answer", "unit": "", **number}]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def cdf(samples: Samples) -> list[list[float]]:
    """(latency_s, share of all requests answered within it), denser towards the tail."""
    values = np.sort(samples.latency_s[samples.ok])
    n = samples.ok.size
    if values.size == 0:
        return []
    tail = 1 - np.logspace(0, -math.log10(n) if n > 1 else 0, MAX_CDF)
    ranks = np.unique(np.clip(np.ceil(tail * n).astype(np.int64), 1, values.size))
    ranks = np.unique(np.append(ranks, values.size))
    return [[float(values[r - 1]), float(r / n)] for r in ranks]


def series(samples: Samples, demand: Demand, duration_s: float) -> list[dict[str, float | None]]:
    """Per stretch of time (by intended send time): offered and reached rate, p50, p99, failures."""
    count = int(min(MAX_BINS, max(math.ceil(duration_s), 1)))
    width = duration_s / count
    sent_in = np.clip((samples.intended_s / width).astype(np.int64), 0, count - 1)
    done = (samples.intended_s + samples.latency_s)[samples.ok]
    reached = np.bincount(np.clip((done / width).astype(np.int64), 0, count), minlength=count + 1)[:count] / width
    order = np.argsort(sent_in, kind="stable")
    edges = np.searchsorted(sent_in[order], np.arange(count + 1))
    rows: list[dict[str, float | None]] = []
    for i in range(count):
        part = order[edges[i] : edges[i + 1]]
        good = samples.latency_s[part][samples.ok[part]]
        rows.append(
            {
                "at_s": round((i + 0.5) * width, 6),
                "planned_rps": _planned_rps(demand, i * width, (i + 1) * width),
                "offered_rps": part.size / width,
                "reached_rps": float(reached[i]),
                "p50_s": percentile(good, 0.5) if good.size else None,
                "p99_s": percentile(good, 0.99) if good.size else None,
                "failed": float(part.size - good.size),
            }
        )
    return rows


def _planned_rps(demand: Demand, begin_s: float, end_s: float) -> float | None:
    """Mean of the rate curve over a stretch; None for a trace, whose plan is its arrivals."""
    if demand.arrivals == "trace":
        return None
    grid = np.linspace(begin_s, end_s, 21)[:-1] + (end_s - begin_s) / 40
    return float(np.mean([demand.rate_rps(float(t)) for t in grid]))


def by_size(samples: Samples) -> list[dict[str, float | None]]:
    """Count, p50, p99 and failures of each input size bucket."""
    rows: list[dict[str, float | None]] = []
    for size in np.unique(samples.size):
        at = samples.size == size
        values = np.where(samples.ok, samples.latency_s, np.inf)[at]
        rows.append(
            {
                "size": int(size),
                "requests": values.size,
                "p50_s": _finite(percentile(values, 0.5)),
                "p99_s": _finite(percentile(values, 0.99)),
                "failed": int(np.isinf(values).sum()),
            }
        )
    return rows


def errors(samples: Samples) -> list[dict[str, Any]]:
    """Distinct error texts with counts, most frequent first."""
    codes = samples.error[samples.error >= 0]
    counts = np.bincount(codes, minlength=len(samples.errors))
    rows = [{"error": text, "count": int(n)} for text, n in zip(samples.errors, counts, strict=True) if n]
    return sorted(rows, key=lambda row: -row["count"])
