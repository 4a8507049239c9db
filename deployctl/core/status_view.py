"""The live service as a person wants to see it: what enters are records and the host's report, what leaves are a view and lines.

Every p99 says where it was measured. Unknown is said, never shown as zero. Refuses to know where the facts come from.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from deployctl.core import words
from deployctl.core.plan_view import cost_text, objective_text
from deployctl.core.planner import cores_per_replica
from deployctl.core.project import Project
from deployctl.core.release import Release

RECENT_S = 60.0
P99_WINDOW_S = 10.0
STALE_S = 30.0
_ELSEWHERE = "not known here; the cluster's Prometheus measures it"
_NOTHING_CAME = f"unknown, no traffic in the last {P99_WINDOW_S:.0f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaView:
    """One replica: its state and why it is in it."""

    name: str
    state: str
    reason: str
    revision: int
    pid: int | None
    port: int | None
    age_s: float
    restarts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """What the host reports, as values (the port's TargetStatus, which core does not know)."""

    alive: bool
    url: str | None
    grpc_url: str | None
    revision_serving: int | None
    revision_wanted: int | None
    phase: str
    message: str
    replicas: tuple[ReplicaView, ...]
    replicas_wanted: int
    policy_says: str
    recent: tuple[dict[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusView:
    """Everything that `status` shows; None where it is not known.

    Attributes:
        health: healthy, changing, degraded, failed, stopped, or unsupervised (it serves, but nobody watches over it).
        p99_s: of the newest interval with traffic; `p99_worst_s` of the last minute; both at `p99_measured_at`.
        slo_kept: whether the measured p99 is within the SLO's limit; None while unknown.
        p99_requests: requests behind `p99_s`; fewer than a percentile needs leave `slo_kept` unknown.
        p99_measured_at: empty where nothing that deployctl sees measures it: on a cluster its Prometheus does.
        cost_core_s: core-seconds reserved so far, since the first `up`.
        device: key of what a replica runs on.
    """

    service: str
    env: str
    health: Literal["healthy", "changing", "degraded", "failed", "stopped", "unsupervised"]
    phase: str
    message: str
    url: str | None
    grpc_url: str | None
    revision_serving: int | None
    revision_wanted: int | None
    variant: str | None
    bundle: str | None
    evidence: str | None
    slo: str
    slo_max_s: float
    slo_percentile: float | None
    slo_kept: bool | None
    p50_s: float | None
    p99_s: float | None
    p99_worst_s: float | None
    p99_requests: int
    p99_measured_at: str
    p99_predicted_s: float | None
    load_rps: float | None
    load_series: tuple[float, ...]
    p99_series: tuple[float | None, ...]
    errors: float
    replicas: tuple[ReplicaView, ...]
    replicas_ready: int
    replicas_wanted: int
    replicas_min: int
    replicas_max: int
    policy_says: str
    notices: tuple[str, ...]
    cores: int
    cost_core_s: float
    device: str = ""

    @property
    def exit_code(self) -> int:
        """0 healthy or changing while it serves, 4 degraded or failed, 6 nothing runs, 9 not serving yet, 11 nobody supervises."""
        if self.health == "changing":
            return 0 if self.revision_serving is not None else 9
        return {"healthy": 0, "degraded": 4, "failed": 4, "stopped": 6, "unsupervised": 11}[self.health]


def view(project: Project, env: str, live: Live, serving: Release | None, *, notices: Sequence[str], now_s: float) -> StatusView:
    """Join records and live facts.

    Args:
        project: deploy.yaml, completed.
        env: environment name.
        live: the host's report.
        serving: the release that serves, else the newest one, None before the first.
        notices: what else a person should know (overrides, holds).
        now_s: Unix time.
    """
    plan = serving.plan if serving else None
    fresh = [r for r in live.recent if now_s - r.get("at_s", 0.0) <= RECENT_S]
    tails = [r["p99_s"] for r in fresh if "p99_s" in r]
    newest = fresh[-1] if fresh and now_s - fresh[-1]["at_s"] <= STALE_S else {}
    slo = (plan.slo if plan else project.slo).latency
    cores = cores_per_replica(plan.settings) if plan else 1
    policy = plan.scaling_at(now_s) if plan else None
    p99_s = newest.get("p99_s")
    seen = _requests(fresh, now_s)
    return StatusView(
        service=project.name,
        env=env,
        health=_health(live),
        phase=live.phase,
        message=live.message,
        url=live.url,
        grpc_url=live.grpc_url,
        revision_serving=live.revision_serving,
        revision_wanted=live.revision_wanted,
        variant=plan.variant if plan else None,
        bundle=plan.bundle if plan else None,
        evidence=plan.evidence if plan else None,
        slo=objective_text(slo),
        slo_max_s=slo.max,
        slo_percentile=slo.percentile,
        slo_kept=None if p99_s is None or seen < needed(slo.percentile) else p99_s <= slo.max,
        p50_s=newest.get("p50_s"),
        p99_s=p99_s,
        p99_worst_s=max(tails, default=None),
        p99_requests=seen,
        p99_measured_at="front door" if plan is None or plan.target == "local" else "",
        p99_predicted_s=plan.forecast.p99_s if plan and plan.forecast else None,
        load_rps=newest.get("arrivals_rps"),
        load_series=tuple(r.get("arrivals_rps", 0.0) for r in live.recent),
        p99_series=tuple(r.get("p99_s") for r in live.recent),
        errors=sum(r.get("errors", 0.0) for r in fresh),
        replicas=live.replicas,
        replicas_ready=sum(r.state == "ready" for r in live.replicas),
        replicas_wanted=live.replicas_wanted,
        replicas_min=policy.min_replicas if policy else 0,
        replicas_max=policy.max_replicas if policy else 0,
        policy_says=live.policy_says,
        notices=tuple(notices),
        cores=cores * len(live.replicas),
        cost_core_s=live.recent[-1].get("core_seconds", 0.0) if live.recent else 0.0,
        device=plan.device if plan else "",
    )


def needed(percentile: float | None) -> int:
    """Requests below which a percentile cannot be told from the maximum: 100 for p99."""
    return 1 if percentile is None else math.ceil(100.0 / (100.0 - percentile))


def _requests(fresh: Sequence[dict[str, float]], now_s: float) -> int:
    """Requests that arrived in the window that the host's p99 is of."""
    counted = 0.0
    for before, row in itertools.pairwise(fresh):
        if now_s - row["at_s"] <= P99_WINDOW_S:
            counted += row.get("arrivals_rps", 0.0) * (row["at_s"] - before["at_s"])
    return round(counted)


def _health(live: Live) -> Literal["healthy", "changing", "degraded", "failed", "stopped", "unsupervised"]:
    if not live.alive:
        return "unsupervised" if live.url is not None and live.revision_serving is not None else "stopped"
    known: dict[str, Literal["healthy", "changing", "degraded", "failed", "stopped"]] = {
        "serving": "healthy",
        "starting": "changing",
        "rolling": "changing",
        "degraded": "degraded",
        "failed": "failed",
    }
    return known.get(live.phase, "stopped")


def lines(status: StatusView) -> list[str]:
    """The screen: the answer first, then the promise, the load, the replicas and what the policy waits for."""
    head = f"{status.service} in {status.env}: {status.health.upper()}"
    if status.health in ("stopped", "unsupervised", "failed", "degraded") or status.revision_wanted != status.revision_serving:
        head += f" - {status.message}"
    if status.health == "stopped":
        return [head, *words.rows([("SLO", status.slo)]), f"start it: {words.command('up', status.env)}"]
    if status.health == "unsupervised":
        head += f"; {words.command('up', status.env)} puts a supervisor back"
    pairs = [
        ("url", f"{status.url or 'none yet'}   gRPC {status.grpc_url or 'none yet'}"),
        ("revision", _revision(status)),
        ("SLO", f"{status.slo}: {_kept(status)}"),
        ("p99", _tail(status)),
        ("load", f"{words.rate(status.load_rps)}  {words.sparkline(status.load_series)}".rstrip() if status.p99_measured_at else _ELSEWHERE),
        ("replicas", _replicas(status)),
        ("policy", status.policy_says or "nothing yet"),
        ("cost", _cost(status)),
    ]
    table = [
        (r.name, r.state, f"rev {r.revision}", words.duration(r.age_s), f"{r.restarts} restarts" if r.restarts else "", r.reason)
        for r in status.replicas
    ]
    return [head, *words.rows(pairs), *_aligned(table), *(f"note: {n}" for n in status.notices)]


def _revision(status: StatusView) -> str:
    moving = f"{status.revision_serving or 'none'} -> {status.revision_wanted}" if status.revision_serving != status.revision_wanted else ""
    proof = f"proven by {words.short(status.evidence)}" if status.evidence else f"not proven: {words.command('tune', status.env)}"
    return f"{moving or status.revision_serving}, variant {status.variant or 'unknown'}, bundle {words.short(status.bundle)}, {proof}"


def _cost(status: StatusView) -> str:
    if not status.p99_measured_at:
        return f"{words.count(len(status.replicas), 'replica')} on {status.device}"
    return f"{cost_text(status.cores)}; {status.cost_core_s:,.0f} so far"


def _kept(status: StatusView) -> str:
    if not status.p99_measured_at:
        return _ELSEWHERE
    if status.slo_kept is None and status.p99_s is not None:
        return f"unknown, {words.count(status.p99_requests, 'request')} in {P99_WINDOW_S:.0f} s are too few to judge p{status.slo_percentile:g}"
    if status.slo_kept is None:
        return _NOTHING_CAME
    return f"{'within it' if status.slo_kept else 'BROKEN'} at the {status.p99_measured_at} now"


def _tail(status: StatusView) -> str:
    predicted = f"; predicted {words.seconds(status.p99_predicted_s)}" if status.p99_predicted_s is not None else ""
    worst = f", worst {words.seconds(status.p99_worst_s)} in the last minute" if status.p99_worst_s is not None else ""
    if status.p99_s is None:
        return f"{_NOTHING_CAME if status.p99_measured_at else _ELSEWHERE}{worst}{predicted}"
    seen = f"of {words.count(status.p99_requests, 'request')} in {P99_WINDOW_S:.0f} s"
    return f"{words.seconds(status.p99_s)} at the {status.p99_measured_at} {seen}{worst}{predicted}  {words.sparkline(status.p99_series)}".rstrip()


def _replicas(status: StatusView) -> str:
    span = words.bounds(status.replicas_min, status.replicas_max)
    fixed = status.replicas_min == status.replicas_max
    failed = f"; {status.errors:.0f} failed requests in the last minute" if status.errors else ""
    return f"{status.replicas_ready} of {status.replicas_wanted} ready, {'fixed at' if fixed else 'bounds'} {span}{failed}"


def _aligned(table: Sequence[tuple[str, ...]]) -> list[str]:
    if not table:
        return []
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return ["  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True) if w).rstrip() for row in table]
