"""A replay as a document: what every policy cost and kept, and series short enough to draw. Runs enter, plain data leaves.

The same document is what `-o json` prints and what `replay_page.py` draws. Refuses to know files and policies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from deployctl.core import bound, fluid
from deployctl.core.fluid import Plant
from deployctl.core.replay import Run, Yardstick
from deployctl.core.traces import Trace

FloatArray = npt.NDArray[np.float64]
POINTS = 320
# What a policy's name stands for; a peer is what people run who do not tune (`core.replay.peer`).
ABOUT = {
    "slo": "deployctl's own: the fewest replicas that would have kept the SLO in the past day",
    "hpa": "Kubernetes' own autoscaler (HPA)",
    "keda": "KEDA, which drives such an HPA",
    "kpa": "Knative's autoscaler",
    "llmd": "the control law of llm-d's autoscaler",
}
_SIGNALS = {
    "busy_ratio": "{:.0%} busy",
    "arrivals_rps": "{:.4g} req/s a replica",
    "concurrency": "{:.4g} requests in progress a replica",
    "queue_s": "{:.4g} s in the queue",
}


def document(trace: Trace, plant: Plant, runs: Sequence[Run], least: Yardstick, *, slo_s: float, command: str = "") -> dict[str, Any]:
    """Everything that a reader of a replay needs.

    Args:
        trace: what arrived.
        plant: the service that was scaled.
        runs: one for each policy, the one of interest first.
        least: the bounds.
        slo_s: limit of the latency objective.
        command: how to repeat it.
    """
    return {
        "trace": {
            "name": trace.name,
            "duration_s": trace.duration_s,
            "requests": float(trace.judged.sum()),
            "mean_rps": trace.mean_rps,
            "peak_rps": float(trace.judged.max(initial=0.0)),
            "resolution_s": trace.resolution_s,
            "history_s": trace.history_s,
        },
        "plant": {
            "capacity_rps": plant.capacity_rps,
            "start_up_s": plant.start_up_s,
            "start_up_by_stage_s": plant.cold_start.by_stage if plant.cold_start else {},
            "wait_s": plant.wait_s,
            "admission": plant.admission,
        },
        "slo_s": slo_s,
        "bound": {
            "floor_hours": least.floor_s / 3600,
            "clairvoyant_hours": least.clairvoyant_s / 3600,
            "clairvoyant_waiting_hours": least.waiting_s / 3600,
            "without_foresight_hours": least.unforeseen.cost_s / 3600 if least.can_react else None,
            "without_foresight_least_miss_ratio": least.unforeseen.least_miss_ratio,
            "without_foresight_least_broken_ratio": least.unforeseen.least_broken_ratio,
        },
        "policies": [_figures(run, least) for run in runs],
        "command": command,
    }


def _figures(run: Run, least: Yardstick) -> dict[str, Any]:
    result = run.outcome
    return {
        "policy": run.policy,
        "about": ABOUT.get(run.policy, ""),
        "replica_hours": result.cost_s / 3600,
        "regret": least.regret(result),
        "miss_ratio": result.miss_ratio,
        "windows_ok_ratio": result.windows_ok_ratio,
        "longest_breach_s": result.longest_breach_s,
        "starts": result.starts,
        "peak_replicas": result.peak,
        "kept": run.keeps(),
        "settings": settings_text(run),
    }


def settings_text(run: Run) -> str:
    """The settings in one line, as people would write them down."""
    s = run.settings
    if s.policy == "slo":
        return f"{s.capacity_rps:g} req/s a replica, {s.start_up_s:g} s to start, nothing else to set"
    aim = _SIGNALS[s.signal].format(s.target) if s.signal in _SIGNALS else f"{s.signal} at {s.target:.4g}"
    down = f", goes down after {s.scale_down_window_s:g} s" if s.policy in ("hpa", "keda") else ""  # the others have windows of their own
    return f"aims at {aim}, looks every {s.sync_s:g} s{down}, at least {s.min_replicas}"


def node_hours(run: Run, *, per_node: int, node_start_s: float, node_removal_s: float) -> float:
    """Node-hours that a run costs when replicas are packed."""
    replicas = (run.flow.ready + run.flow.starting)[run.history_s :]
    return bound.nodes_needed(replicas, per_node=per_node, node_start_s=node_start_s, node_removal_s=node_removal_s) / 3600


def series(run: Run, plant: Plant) -> dict[str, Any]:
    """The judged part of a run in at most POINTS points: largest load, wait and queue of each, replicas at its end."""
    flow, skip = run.flow, run.history_s
    n = flow.arrivals.shape[0] - skip
    width = max(math.ceil(n / POINTS), 1)
    short = fluid.measured_rate(flow.arrivals, scrape_s=1, window_s=max(min(width, 60), 5))
    times = np.arange(0, n, width)
    missed, came = flow.missed[skip:], flow.arrivals[skip:]
    return {
        "t_s": times.tolist(),
        "load_rps": _bins(short[skip:], width),
        "capacity_rps": [v * plant.capacity_rps for v in _last(flow.ready[skip:], width)],
        "ready": _last(flow.ready[skip:], width),
        "wanted": _last(flow.wanted[skip:].astype(np.float64), width),
        "queue": _bins(flow.backlog[skip:], width),
        "p99_s": [v + plant.base_p99_s for v in _bins(np.where(np.isfinite(flow.wait_s[skip:]), flow.wait_s[skip:], np.nan), width)],
        "breaches": _joined(fluid.breaches(came, missed), width),
        "starts": [(at - skip, replicas) for at, replicas, _ in run.changes if at >= skip],
        "n": n,
    }


def _joined(breaches: list[tuple[int, int]], apart: int) -> list[tuple[int, int]]:
    """Breaches that would touch each other in a drawing as one."""
    out: list[tuple[int, int]] = []
    for first, last in breaches:
        if out and first - out[-1][1] <= 2 * apart:
            out[-1] = (out[-1][0], last)
        else:
            out.append((first, last))
    return out


def _bins(values: FloatArray, width: int) -> list[float]:
    return [float(np.fmax.reduce(values[i : i + width])) for i in range(0, values.shape[0], width)]


def _last(values: FloatArray, width: int) -> list[float]:
    return [float(values[min(i + width, values.shape[0]) - 1]) for i in range(0, values.shape[0], width)]
