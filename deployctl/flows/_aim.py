"""What a load test is aimed at and with what: a project's running environment or flags enter, an Aim leaves. Reads only."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from deployctl.core import codec
from deployctl.core.demand import Demand, RateStep
from deployctl.core.plan import Plan
from deployctl.core.planner import demand_for
from deployctl.core.project import Project
from deployctl.core.slo import Slo
from deployctl.core.verdict import planned_duration_s
from deployctl.errors import NotFound, ProjectError, Refused
from deployctl.flows._gather import known_bundle, sample_sizes
from deployctl.ports import Toolbox


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What is tested: an address, a model, example requests and the promise.

    `own` says that it is this project's running environment, whose replicas can be asked for statistics; `content` is then the
    digest of what serves and `plan` what it was released with.
    """

    name: str
    url: str
    model: str
    bodies: Path
    slo: Slo
    demand: Demand
    own: bool
    environment: dict[str, str]
    content: str = ""
    plan: Plan | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How it is tested; None leaves it to the project or to the percentile."""

    protocol: str | None = None
    rate_rps: float | None = None
    duration_s: float | None = None
    max_rate_rps: float | None = None
    seed: int = 0
    trace_ratio: float = 0.0
    report: Path | None = None
    command: str = "deployctl loadtest"
    reuse: bool = False


def running(project: Project, tools: Toolbox, env: str, options: Options) -> Aim:
    """The project's own running environment as an aim.

    Raises:
        NotFound: nothing runs (`not-running`), or its bundle is gone (`bundle-not-found`).
        Refused: it serves people and no --max-rate was given (`loadtest-serves-people`).
    """
    if project.environment(env).serves_people and options.max_rate_rps is None:
        raise Refused(
            f"{env} serves people",
            hint="--isolated tests a replica of its own; --max-rate says the most that they can bear beside their own requests",
            code="loadtest-serves-people",
        )
    status = tools.target.status()
    address = status.grpc_url if options.protocol == "grpc" else status.url
    if address is None or status.revision_serving is None:
        raise NotFound(f"{project.name} does not serve", why=f"{status.phase}: {status.message}", hint="deployctl up", code="not-running")
    release = tools.records.history().revision(status.revision_serving)
    bundle = known_bundle(tools, release.plan.bundle)
    if bundle is None:
        raise NotFound("the bundle that serves is not on this machine any more", hint="deployctl up", code="bundle-not-found")
    facts = {
        "environment": env,
        "revision": str(status.revision_serving),
        "variant": bundle.variant,
        "bundle": bundle.digest.removeprefix("sha256:")[:12],
        "replicas at the start": str(sum(r.state == "ready" for r in status.replicas)),
        "device": release.plan.device,
        "Triton": release.plan.triton_version,
    }
    return Aim(
        name=project.name,
        url=address.split("://")[-1].rstrip("/"),
        model=bundle.entry,
        bodies=tools.blobs.path(bundle.sample),
        slo=project.slo,
        demand=demand_for(project, sample_sizes(tools, bundle)),
        own=True,
        environment=facts,
        content=release.content,
        plan=release.plan,
    )


def planned_demand(demand: Demand, options: Options) -> Demand:
    """The aim's traffic with the rate and its bound from the command line.

    Raises:
        ProjectError: a bound on a trace (`loadtest-usage`).
    """
    if options.rate_rps is not None:
        law = "poisson" if demand.arrivals == "trace" else demand.arrivals
        demand = dataclasses.replace(demand, steps=(RateStep(start_s=0.0, rate_rps=options.rate_rps),), arrivals=law, times_s=None)
    limit = options.max_rate_rps
    if limit is None:
        return demand
    if demand.arrivals == "trace":
        raise ProjectError("a trace cannot be held below --max-rate", hint="give --rate instead of the trace", code="loadtest-usage")
    steps = tuple(dataclasses.replace(s, rate_rps=min(s.rate_rps, limit)) for s in demand.steps)
    return dataclasses.replace(demand, steps=steps)


def planned_s(demand: Demand, slo: Slo) -> float:
    """Long enough for the percentile, for the whole trace or for every step of the curve."""
    if demand.arrivals == "trace" and demand.times_s:
        return max(demand.times_s[-1] - min(demand.times_s[0], 0.0), 1.0)
    last = demand.steps[-1].start_s
    return last + planned_duration_s(slo, demand.steps[-1].rate_rps) if last else planned_duration_s(slo, demand.peak_rps)


def described(demand: Demand, duration_s: float) -> str:
    """`40/s (poisson) for 50 s`."""
    if demand.arrivals == "trace":
        return f"a trace of {len(demand.times_s or ())} requests, {duration_s:.0f} s"
    rates = " then ".join(f"{s.rate_rps:g}/s" for s in demand.steps[:4])
    return f"{rates} ({demand.arrivals}) for {duration_s:.0f} s"


def key(aim: Aim, demand: Demand, duration_s: float, options: Options) -> str:
    """Digest of everything that a test's result depends on by design; a former result counts only for the same."""
    facts = {name: aim.environment[name] for name in ("device", "Triton", "replicas at the start") if name in aim.environment}
    parts = [aim.content or aim.url, aim.model, facts, aim.slo, demand, duration_s, options.protocol, options.seed]
    return codec.digest(parts)
