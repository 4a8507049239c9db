"""loadtest: send the stated traffic at a service, judge the promise, write the report. Changes nothing but the reports folder."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import numpy as np

from deployctl.core import contention
from deployctl.core.demand import Demand
from deployctl.core.judging import assess
from deployctl.core.slo import Slo
from deployctl.core.verdict import Verdict, too_little
from deployctl.errors import DeployctlError
from deployctl.flows import _stages
from deployctl.flows._aim import Aim, Options, described, key, planned_demand, planned_s, running
from deployctl.flows._loadstore import Outcome, former, save
from deployctl.ports import LoadRequest, LoadResult, Progress, Toolbox
from deployctl.report.load import LoadReport, document

__all__ = ["Aim", "Options", "Outcome", "loadtest", "running", "warnings"]
SATURATED_RATIO = 0.85


def loadtest(aim: Aim, tools: Toolbox, progress: Progress, options: Options) -> Outcome:
    """Send, judge, report.

    Raises:
        NotConverged: the generator failed (`loadgen-failed`); ModelError: the model refuses the examples (`loadtest-refused`).
        ProjectError: traffic or examples cannot be used, or a file is not writable.
    """
    options = dataclasses.replace(options, protocol=options.protocol or _protocol(aim.slo))
    demand = planned_demand(aim.demand, options)
    duration_s = options.duration_s or planned_s(demand, aim.slo)
    request = LoadRequest(
        url=aim.url,
        protocol=str(options.protocol),
        model=aim.model,
        bodies=aim.bodies,
        demand=demand,
        duration_s=duration_s,
        seed=options.seed,
        trace_ratio=options.trace_ratio,
        timeout_s=max(10.0, 5 * aim.slo.latency.max),
    )
    name = key(aim, demand, duration_s, options)
    why = too_little(aim.slo, demand.peak_rps * duration_s)
    if why is not None:
        progress.warn(f"this test cannot pass: {why}, and about {demand.peak_rps * duration_s:,.0f} are sent (--duration, --rate)")
    before_this = former(name, tools.workspace.reports, copy=options.report) if options.reuse else None
    if before_this is not None:
        progress.note(f"the same test passed at {before_this.document['at']} and is not repeated; without --reuse it is")
        return before_this
    progress.step(f"sending {described(demand, duration_s)} to {aim.model} at {aim.url} ({options.protocol}, open loop)")
    before, cores = _readings(aim, tools, options), _core_reading(aim, tools)
    result = (tools.measuring(aim.plan) if aim.plan else tools).loadgen.run(request, progress)
    shares = contention.between(cores, _core_reading(aim, tools))
    after = _readings(aim, tools, options)
    delta = _stages.between(before, after) if before and after else None
    verdict = assess(
        result.samples,
        aim.slo,
        rng=np.random.default_rng(options.seed),
        offered_rps=result.samples.ok.size / duration_s,
        duration_s=duration_s,
        cache_hit_ratio=_stages.cache_hit_ratio(delta, aim.model),
        generator_cpu_ratio=result.generator_cpu_ratio,
    )
    verdict = contention.excused(verdict, shares)
    report = LoadReport(
        name=aim.name,
        at=datetime.fromtimestamp(result.started_at_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        verdict=verdict,
        slo=aim.slo,
        samples=result.samples,
        demand=demand,
        duration_s=duration_s,
        stages=_stages.stages(result.samples, delta, aim.model),
        replicas=_replicas(aim, tools, result, duration_s),
        environment={**aim.environment, "address": f"{aim.url} ({options.protocol})", "seed": str(options.seed)},
        command=options.command,
        warnings=warnings(verdict, result, demand),
        batch=_stages.mean_batch(delta, aim.model),
    )
    return save({**document(report), "key": name}, result, verdict, tools.workspace.reports, copy=options.report)


def _protocol(slo: Slo) -> str:
    """Only answers that are read piece by piece can be judged by their pieces."""
    return "stream" if any(o.metric in ("ttft", "itl") for o in slo.objectives) else "http"


def _readings(aim: Aim, tools: Toolbox, options: Options) -> _stages.Readings:
    """Statistics by server; empty where nobody tells."""
    try:
        if aim.own:
            return tools.target.stats()
        return {aim.url: tools.client(f"http://{aim.url}").stats()} if options.protocol != "grpc" else {}
    except DeployctlError:
        return {}


def _core_reading(aim: Aim, tools: Toolbox) -> contention.CoreReading | None:
    """What was used of the service's cores; None where it is not ours or elsewhere: then nobody knows, and a miss stays one."""
    return tools.target.core_reading() if aim.own else None


def _replicas(aim: Aim, tools: Toolbox, result: LoadResult, duration_s: float) -> tuple[tuple[float, float], ...]:
    if not aim.own:
        return ()
    rows = [(row["at_s"] - result.started_at_s, row["replicas_ready"]) for row in tools.target.status().recent if "replicas_ready" in row]
    earlier = [(0.0, n) for t, n in rows if t <= 0][-1:]
    return (*earlier, *((t, n) for t, n in rows if 0 < t <= duration_s))


def warnings(verdict: Verdict, result: LoadResult, demand: Demand) -> tuple[str, ...]:
    """What a reader must know before believing the figures."""
    found = []
    if result.generator_cpu_ratio > SATURATED_RATIO:
        found.append(f"generator saturated: it used {result.generator_cpu_ratio:.0%} of a core, so part of the latency may be its own")
    if verdict.late_sends > 0.01 * max(verdict.requests, 1):
        found.append(f"{verdict.late_sends} of {verdict.requests} requests were sent late: this machine was too busy, and lateness adds latency")
    if any(text.startswith("not sent:") for text in result.samples.errors):
        found.append("the bound on requests in flight was hit: the service was so far behind that some requests were counted as failed unsent")
    if verdict.cache_hit_ratio and demand.repeat_ratio == 0:
        found.append(f"the response cache answered {verdict.cache_hit_ratio:.0%} of the requests, though traffic.repeat says none repeat")
    return tuple(found)
