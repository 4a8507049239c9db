"""A plan as a person reads it: what enters is a Planned and what runs now, what leaves are lines. Refuses to know screens."""

from __future__ import annotations

from deployctl.core import words
from deployctl.core.diff import compare
from deployctl.core.plan import Plan
from deployctl.core.planner import Planned
from deployctl.core.release import Release
from deployctl.core.serving import ServingConfig
from deployctl.core.slo import Objective


def plan_lines(planned: Planned, current: Release | None) -> list[str]:
    """The whole plan: what will run, what it should do, what it costs, what changes, what to know."""
    plan = planned.plan
    where = "this machine" if plan.target == "local" else "Kubernetes"
    revision = f"revision {current.revision} -> {current.revision + 1}" if current else "revision 1"
    lines = [f"plan: {plan.service} in {plan.env} on {where} ({plan.device}, Triton {plan.triton_version}), {revision}"]
    lines += words.rows(
        [
            ("serves", f"{plan.entry}, variant {plan.variant or 'unresolved'}, bundle {words.short(plan.bundle)}"),
            *((f"  {name}", settings_text(s)) for name, s in plan.settings.items()),
            ("objects", objects_text(plan)),
            ("replicas", replicas_text(plan)),
            ("SLO", objective_text(plan.slo.latency)),
            ("predicted", forecast_text(plan)),
            ("cost", planned_cost_text(planned)),
        ]
    )
    comparison = compare(current.plan if current else None, plan)
    if current is not None:
        real = [c for c in comparison.changes if not c.derived]
        lines.append(f"changes against revision {current.revision}:" if real else f"no changes against revision {current.revision}")
        lines += [f"  {change}" for change in real]
    return [*lines, *(f"note: {n}" for n in planned.notices)]


def release_lines(release: Release, *, serves: bool, now_s: float) -> list[str]:
    """Why a service runs as it does: who released it, when and why, what serves, how many, and what proves it."""
    plan = release.plan
    action = f"rollback to what revision {release.rolled_back_to} served" if release.rolled_back_to else release.action
    age = words.duration(max(0.0, now_s - release.created_at_s))
    return [
        f"{plan.service} in {plan.env}: revision {release.revision} {'serves' if serves else 'is wanted and does not serve yet'}",
        *words.rows(
            [
                ("made by", f"{action}, {age} ago, by {release.by or 'somebody'}"),
                ("because", release.reason or "no reason was given"),
                ("serves", f"{plan.entry}, variant {plan.variant or 'unresolved'}, bundle {words.short(plan.bundle)}"),
                *((f"  {name}", settings_text(s)) for name, s in plan.settings.items()),
                ("replicas", replicas_text(plan)),
                ("SLO", objective_text(plan.slo.latency)),
                ("predicted", forecast_text(plan)),
                ("runs on", f"{plan.device}, Triton {plan.triton_version}" + (f", image {plan.cluster.image}" if plan.cluster else "")),
            ]
        ),
    ]


def settings_text(settings: ServingConfig) -> str:
    """`batch up to 16, wait 2 ms for mates, 2 instances`."""
    batching = f"batch up to {settings.max_batch}" if settings.max_batch > 1 else "no batching"
    wait = f", waits {words.seconds(settings.queue_delay_s)} for batch mates" if settings.queue_delay_s else ""
    queue = f", at most {settings.queue_size} waiting" if settings.queue_size else ""
    wait += f", sends {', '.join(map(str, settings.named_batches))} at once" if settings.named_batches else ""
    return f"{batching}{wait}, {words.count(settings.instances, 'instance')}{queue}"


def objects_text(plan: Plan) -> str:
    """What will exist."""
    if plan.target == "local":
        http, grpc = (port or "any free port" for port in (plan.ports.http, plan.ports.grpc))
        return f"1 supervisor, 1 front door (http {http}, grpc {grpc}), {words.count(plan.replicas, 'Triton replica')}"
    return f"1 Deployment of {words.count(plan.replicas, 'replica')} and what belongs to it (deployctl render shows all)"


def replicas_text(plan: Plan) -> str:
    """The number and what may change it."""
    policy = plan.scaling
    if policy.min_replicas == policy.max_replicas:
        return f"{plan.replicas}, fixed"
    return f"{plan.replicas}; {policy.policy} keeps {words.bounds(policy.min_replicas, policy.max_replicas)} by {policy.signal} at {policy.target:g}"


def objective_text(objective: Objective) -> str:
    """`p99 at most 100 ms, measured at the client`."""
    return f"p{objective.percentile:g} at most {words.seconds(objective.max)}, measured at the {objective.at}"


def forecast_text(plan: Plan) -> str:
    """The predicted tail with its method and its last measured error, or why there is none."""
    forecast = plan.forecast
    if forecast is None:
        return f"p99 unknown on {plan.device}: run {words.command('tune', plan.env)}"
    if not forecast.valid:
        return f"p99 unknown: {forecast.why_not}"
    error = f", last measured error {words.percent(abs(forecast.error_ratio))}" if forecast.error_ratio is not None else ", error never measured"
    load = words.rate(plan.demand.peak_rps)
    return f"p99 {words.seconds(forecast.p99_s)} at {load} ({forecast.method}{error}); proven by {words.short(plan.evidence)}"


def planned_cost_text(planned: Planned) -> str:
    """On this machine reserved cores; on a cluster what the nodes cost a day, with who said so, or why that is unknown."""
    return str(planned.cost) if planned.cost is not None else cost_text(planned.cores)


def cost_text(cores: int) -> str:
    """Local cost: reserved core-seconds."""
    return f"{words.count(cores, 'core')} reserved: {cores * 3600:,} core-seconds an hour"
