"""A Project back to the words of deploy.yaml: what enters is the completed project, what leaves is one row a key with its origin.

Written values and defaults alike, in the spelling that deploy.yaml accepts, so that a row can be copied into the file.
"""

from __future__ import annotations

from dataclasses import dataclass

from deployctl.config import units
from deployctl.core.project import Environment, Project, Traffic
from deployctl.core.slo import Slo

Value = str | int | bool | list[str] | list[dict[str, str]] | dict[str, str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One key: `value` None means that deployctl decides; `origin` is `deploy.yaml:4:17` or `default`."""

    key: str
    value: Value
    origin: str


def rows(project: Project) -> list[Row]:
    """Every key in the order of the grammar."""
    return [Row(key=key, value=value, origin=project.origins.get(key, "default")) for key, value in values(project).items()]


def values(project: Project) -> dict[str, Value]:
    """Key -> value of the completed project."""
    model = project.model
    found: dict[str, Value] = {
        "version": project.version,
        "name": project.name,
        "model.source": f"{model.kind}:{model.value}",
        "model.sample": model.sample,
        "model.tokenizer": model.tokenizer,
        "model.pooling": model.pooling,
        "model.environment": model.environment,
        **_slo(project.slo),
        **_traffic(project.traffic, traced="traffic.trace" in project.origins),
        "compress.fidelity.metric": project.compress.metric,
        "compress.fidelity.min": f"{project.compress.gate:g}",
        "compress.distill.keep": units.show_ratio(project.compress.distill.keep_ratio),
        "compress.distill.steps": project.compress.distill.steps,
        "compress.distill.learning_rate": units.show_number(project.compress.distill.learning_rate),
        "compress.distill.seed": project.compress.distill.seed,
        "compress.distill.time": units.show_seconds(project.compress.distill.limit_s),
        "compress.try": list(project.compress.methods),
    }
    for environment in project.environments:
        found |= {f"environments.{environment.name}.{key}": value for key, value in _environment(environment).items()}
    return found


def _slo(slo: Slo) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for row in slo.objectives:
        if row.percentile is not None:
            found[f"slo.{row.metric}.{units.show_percentile(row.percentile)}"] = units.show_seconds(row.max)
    first = slo.objectives[0]
    return {**found, "slo.errors": units.show_ratio(slo.error_max_ratio), "slo.at": first.at, "slo.window": units.show_seconds(first.window_s)}


def _traffic(traffic: Traffic, *, traced: bool) -> dict[str, Value]:
    found: dict[str, Value] = {}
    peak = units.show_rate(max(step.rate_rps for step in traffic.steps))
    if traffic.trace_times_s is not None:
        found["traffic.trace"] = f"{len(traffic.trace_times_s)} send times over {units.show_seconds(traffic.trace_times_s[-1])}"
    elif traced:
        found["traffic.trace"] = f"{len(traffic.steps)} intervals, peak {peak}"
    elif len(traffic.steps) == 1:
        found["traffic.rate"] = peak
    else:
        found["traffic.steps"] = [{"at": units.show_seconds(s.start_s), "rate": units.show_rate(s.rate_rps)} for s in traffic.steps]
    if traffic.arrivals != "trace":
        found["traffic.arrivals"] = traffic.arrivals
    if traffic.arrivals in ("gamma", "weibull"):
        found["traffic.cv"] = format(traffic.cv, "g")
    if traffic.mix:
        found |= {f"traffic.mix.{share.size}": units.show_ratio(share.share_ratio) for share in traffic.mix}
    else:
        found["traffic.mix"] = None
    return {**found, "traffic.repeat": units.show_ratio(traffic.repeat_ratio)}


def _environment(environment: Environment) -> dict[str, Value]:
    limits, scaling = environment.limits, environment.scaling
    names = ("context", "namespace", "pool", "image", "loadtest_image")
    cluster: dict[str, Value] = {name: getattr(environment, name) for name in names}
    cluster["secrets"] = list(environment.secrets)
    cluster |= {f"identity.{key}": value for key, value in environment.identity.items()}
    if environment.platform is not None:
        cluster["platform"] = environment.platform.file
    return {
        "on": environment.on,
        **(cluster if environment.on == "kubernetes" else {}),
        "limits.replicas": units.show_span(limits.min_replicas, limits.max_replicas) or None,
        "limits.cost": None if limits.cost_per_day is None else f"{limits.cost_per_day:g} {limits.currency}/day",
        "store": environment.store,
        "store_region": environment.store_region,
        "store_endpoint": environment.store_endpoint,
        "ports.http": environment.ports.http,
        "ports.grpc": environment.ports.grpc,
        "scaling.policy": scaling.policy,
        "scaling.target": None if scaling.target is None else format(scaling.target, "g"),
        "scaling.sync": units.show_seconds(scaling.sync_s),
        "scaling.tolerance": units.show_ratio(scaling.tolerance_ratio),
        "scaling.scale_up_window": units.show_seconds(scaling.scale_up_window_s),
        "scaling.scale_down_window": units.show_seconds(scaling.scale_down_window_s),
        **(_writing(environment) if environment.on == "kubernetes" else {}),
        "serves_people": environment.serves_people,
    }


def _writing(environment: Environment) -> dict[str, Value]:
    """Who writes the objects, where commits put them, and what is watched."""
    telemetry = environment.telemetry
    place: dict[str, Value] = {"path": environment.folder, "branch": environment.branch} if environment.writer == "gitops" else {}
    return {
        "writer": environment.writer,
        **place,
        "image_prepull": environment.image_prepull,
        "telemetry.operator": telemetry.operator,
        "telemetry.dashboard": telemetry.dashboard,
        "telemetry.collector": telemetry.collector,
        "telemetry.forward": telemetry.forward,
    }
