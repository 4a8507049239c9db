"""replay: what the policy would have done on recorded traffic, beside peers and the least possible, before anything is applied.

For the command line (`scale --replay TRACE [--policy NAME] [--against hpa,keda,kpa,llmd] [--start-up 30s] [--capacity 40/s]
[--column NAME --per 60s] [--mean 256/s] [--history 24h] [--out FILE.html] [-o json]`):

    asked = Question(trace=Path("day.csv"), column="requests", per_s=60.0, against=("hpa", "keda"), out=Path("replay.html"))
    outcome = replay(project, tools, progress, asked)
    emit(outcome.document, output, lambda: columns(list(outcome.rows), Replayed.HEADER))

`project` and `tools` may be None: then capacity and start-up must be given. `trace` is a CSV file or, with `source`, what to ask it
for: a PromQL query of the total arrival rate, or the text `recent` for what the service on this machine recorded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deployctl.config import files
from deployctl.core import replay as core
from deployctl.core import traces, words
from deployctl.core.cold_start import stages_text
from deployctl.core.fluid import Plant
from deployctl.core.project import Project
from deployctl.core.replay import Run
from deployctl.core.traces import Trace
from deployctl.errors import NotFound, ProjectError
from deployctl.flows import _files
from deployctl.ports import MetricSource, Progress, Toolbox
from deployctl.report import replay as report
from deployctl.report import replay_page


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """The document of `report/replay.py`, a table for people, and the page's file if one was asked for."""

    document: dict[str, Any]
    rows: tuple[tuple[str, ...], ...]
    page: Path | None
    kept: bool

    HEADER = ("policy", "SLO", "replica-hours", "x minimum", "missed", "windows ok", "longest breach", "starts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What to replay.

    Attributes:
        trace: CSV file, or what to ask the source for when one is given.
        column, per_s: what the CSV counts (`core/traces.py`).
        policy: the one of interest.
        against: peers, each with the settings it comes with.
        capacity_rps, start_up_s: of a replica; None takes what `tune` measured.
        mean_rps: multiply the trace so that its mean is this.
        history_s: leading part that policies learn from and that is not judged.
        max_replicas: upper bound for every policy.
        seed: of arrivals within counted intervals.
        out: HTML file to write.
        command: how to repeat it, for the page.
    """

    trace: Path | str
    column: str | None = None
    per_s: float | None = None
    policy: str = "slo"
    against: Sequence[str] = ("hpa",)
    capacity_rps: float | None = None
    start_up_s: float | None = None
    mean_rps: float | None = None
    history_s: float = 0.0
    max_replicas: int = 10_000
    seed: int = 0
    out: Path | None = None
    command: str = ""


def replay(project: Project | None, tools: Toolbox | None, progress: Progress, asked: Question, *, source: MetricSource | None = None) -> Replayed:
    """Replay a trace through one policy and its peers.

    Args:
        project: for the SLO; None judges by a wait of one second.
        tools: for the measured capacity and start-up.
        progress: talk.
        asked: what to replay.
        source: of recorded arrivals: a Prometheus, or the store on this machine.

    Raises:
        ProjectError: the trace does not parse, or capacity or start-up are not known (`capacity-unknown`).
        NotFound: the source has nothing in the window (`history-empty`).
    """
    plant, slo_s = _plant(project, tools, asked)
    if plant.cold_start:
        progress.note(f"a replica takes {words.seconds(plant.cold_start.total_s)} to start: {stages_text(plant.cold_start)}")
    progress.step(f"reading {asked.trace}")
    recorded = _scaled(_recorded(source, asked, progress) if source else _read(asked), asked)
    names = [asked.policy, *(name for name in asked.against if name != asked.policy)]
    runs = []
    for name in names:
        progress.step(f"replaying {words.duration(recorded.duration_s)} through {name}")
        runs.append(core.replay(recorded, plant, core.peer(name, plant, max_replicas=asked.max_replicas)))
    progress.step("computing the least possible")
    least = core.yardstick(recorded, plant)
    document = report.document(recorded, plant, runs, least, slo_s=slo_s, command=asked.command)
    if asked.out is not None:
        files.replace(asked.out, replay_page.render(document, runs, plant).encode())
    rows = (*(_row(run, document["policies"][i]) for i, run in enumerate(runs)), *_bounds(document["bound"]))
    return Replayed(document=document, rows=rows, page=asked.out, kept=runs[0].keeps())


def _row(run: Run, f: dict[str, Any]) -> tuple[str, ...]:
    return (
        run.policy,
        "kept" if f["kept"] else "broken",
        f"{f['replica_hours']:,.1f}",
        f"{f['regret']:.2f}x",
        f"{f['miss_ratio'] * 100:.2f}%",
        f"{f['windows_ok_ratio'] * 100:.1f}%",
        f"{f['longest_breach_s']:.0f} s",
        str(f["starts"]),
    )


def _bounds(b: dict[str, Any]) -> list[tuple[str, ...]]:
    unseen = b["without_foresight_hours"]
    return [
        ("minimum possible", "", f"{b['clairvoyant_hours']:,.1f}", "1.00x", "1.00%", "", "", ""),
        (
            "without foresight",
            "",
            "-" if unseen is None else f"{unseen:,.1f}",
            "" if unseen is None or not b["clairvoyant_hours"] else f"{unseen / b['clairvoyant_hours']:.2f}x",
            f"{b['without_foresight_least_miss_ratio'] * 100:.2f}%",
            f"{(1 - b['without_foresight_least_broken_ratio']) * 100:.1f}%",
            "",
            "",
        ),
    ]


def _plant(project: Project | None, tools: Toolbox | None, asked: Question) -> tuple[Plant, float]:
    current = tools.records.history().current if tools is not None else None
    known = current.plan.scaling if current else None
    capacity = asked.capacity_rps or (known.capacity_rps if known else 0.0)
    start_up = asked.start_up_s if asked.start_up_s is not None else (known.start_up_s if known and known.start_up_s else None)
    if not capacity or start_up is None:
        missing = "the rate that one replica can serve" if not capacity else "how long a replica takes to start"
        raise ProjectError(
            f"a replay needs {missing}, and nothing measured it here",
            hint="deployctl tune   (or state it: --capacity 40/s --start-up 30s)",
            code="capacity-unknown",
        )
    proof = tools.evidence.get(current.plan.evidence) if tools and current and current.plan.evidence and asked.start_up_s is None else None
    cold = proof.profile.cold_start if proof else None
    if project is None:
        return Plant(capacity_rps=capacity, start_up_s=math.ceil(start_up)), 1.0
    limit_s = project.slo.latency.max
    forecast = current.plan.forecast if current else None
    quick = (forecast.p50_s if forecast and forecast.valid else None) or 0.0
    quick = min(quick, limit_s)
    return Plant(capacity_rps=capacity, start_up_s=math.ceil(start_up), wait_s=limit_s - quick, base_p99_s=quick, cold_start=cold), limit_s


def _recorded(source: MetricSource, asked: Question, progress: Progress) -> Trace:
    name = str(asked.trace)
    samples = source.history(name)
    if len(samples) < 2:
        raise NotFound(
            f"there is nothing recorded to replay: {name}",
            hint="call the service first, or look further back with --window; a query can be tried in Prometheus' web page",
            code="history-empty",
        )
    rates, step_s = np.array([value for _, value in samples]), samples[1][0] - samples[0][0]
    if unknown := int(np.isnan(rates).sum()):
        progress.note(f"{unknown * step_s / 60:,.0f} of {rates.size * step_s / 60:,.0f} minutes are not known; they count as no load")
    return traces.from_counts(np.nan_to_num(rates) * step_s, per_s=step_s, name=name, seed=asked.seed)


def _read(asked: Question) -> Trace:
    name = str(asked.trace)
    text = _files.read_text(Path(asked.trace), what="trace")
    column = asked.column or traces.only_column(text, name)
    return traces.parse(text, column=column, per_s=asked.per_s, name=Path(asked.trace).name, seed=asked.seed, where=name)


def _scaled(recorded: Trace, asked: Question) -> Trace:
    arrivals = recorded.arrivals
    if asked.mean_rps and recorded.mean_rps > 0:
        arrivals = arrivals * (asked.mean_rps / recorded.mean_rps)
    history = min(int(asked.history_s), max(arrivals.shape[0] - 60, 0))
    return Trace(name=recorded.name, arrivals=arrivals, resolution_s=recorded.resolution_s, history_s=history)
