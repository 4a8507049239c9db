"""How many replicas keep the promise, what they cost, and at which load the autoscaler must act.

A profile, settings, traffic, an SLO and limits enter; an estimate or the reason why there is none leaves. Costs on one machine
are reserved core-seconds per second; on a cluster they are replicas. Every estimate comes from the simulator at the SLO's own
percentile; a request that is refused or too late is a miss.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from deployctl.core import queueing
from deployctl.core.demand import Demand, RateStep
from deployctl.core.forecast import Forecast
from deployctl.core.profile import ServiceProfile
from deployctl.core.serving import ServingConfig
from deployctl.core.simulate import Run, Scenario, simulate, summarise
from deployctl.core.slo import Slo

# A forecast must keep the SLO with this much to spare before it is worth a load test: the simulator's own error.
MARGIN_RATIO = 0.10
STRESS_RATIO = 1.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """One configuration with its forecast.

    Attributes:
        settings, replicas: what would run.
        forecast: by simulation, with the miss ratio at the SLO's limit.
        percentile_s: the SLO's percentile; None when saturated.
        cost: reserved cores (one machine) or replicas (a cluster).
        keeps: whether the SLO holds with the margin.
        stressed_s: the percentile with 30 % more traffic, None when saturated or not asked for: how much room there is.
        why: the sentence that a person reads.
    """

    settings: dict[str, ServingConfig]
    replicas: int
    forecast: Forecast
    percentile_s: float | None
    cost: float
    keeps: bool
    why: str
    stressed_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Infeasible:
    """No setting within the limits keeps the SLO; the reason names the best that was found."""

    reason: str
    best: Estimate | None


def cost(settings: Mapping[str, ServingConfig], replicas: int, *, shared_machine: bool) -> float:
    """Reserved cores (one for each instance that tuning may change) on one machine; replicas on a cluster."""
    return float(replicas * sum(s.instances for s in settings.values())) if shared_machine else float(replicas)


def estimate(
    profile: ServiceProfile,
    settings: Mapping[str, ServingConfig],
    replicas: int,
    demand: Demand,
    slo: Slo,
    *,
    seed: int,
    scenario: Scenario,
    margin_ratio: float = MARGIN_RATIO,
    correction: float = 1.0,
) -> Estimate:
    """Simulate one configuration and judge it.

    Args:
        profile: measured service times.
        settings: by model; models that are not named keep one instance without batching.
        replicas: how many.
        demand: traffic.
        slo: the promise; its strictest latency objective and its error budget count.
        seed: of the simulation.
        scenario: its length, the spread, whether replicas share the machine's cores.
        margin_ratio: how much better than the limit the forecast must be.
        correction: measured over forecast latency of an earlier test of this profile; forecasts are multiplied by it.
    """
    run = simulate(profile, settings, replicas, demand, seed=seed, scenario=scenario)
    if correction != 1.0:
        run = dataclasses.replace(run, latency_s=run.latency_s * correction)
    forecast = summarise(run, slo_s=slo.latency.max)
    value = percentile_s(run, slo.latency.percentile or 99.0) if forecast.p50_s is not None else None
    refused = float(np.mean(np.isnan(run.latency_s))) if run.latency_s.size else 1.0
    keeps = value is not None and value * (1 + margin_ratio) <= slo.latency.max and refused <= slo.error_max_ratio
    return Estimate(
        settings=dict(settings),
        replicas=replicas,
        forecast=dataclasses.replace(forecast, percentile_s=value),
        percentile_s=value,
        cost=cost(settings, replicas, shared_machine=scenario.cores_shared),
        keeps=keeps,
        why=_why(value, refused, forecast, slo, keeps=keeps),
    )


def stressed(
    found: Estimate, profile: ServiceProfile, settings: Mapping[str, ServingConfig], demand: Demand, slo: Slo, *, seed: int, scenario: Scenario
) -> Estimate:
    """The estimate with its percentile at 30 % more traffic."""
    steps = tuple(dataclasses.replace(s, rate_rps=s.rate_rps * STRESS_RATIO) for s in demand.steps)
    times = tuple(t / STRESS_RATIO for t in demand.times_s) if demand.times_s is not None else None
    busier = dataclasses.replace(demand, steps=steps, times_s=times)
    harder = estimate(profile, settings, found.replicas, busier, slo, seed=seed, scenario=scenario)
    return dataclasses.replace(found, stressed_s=harder.percentile_s)


def percentile_s(run: Run, percentile: float) -> float | None:
    """Percentile over all requests after the run-in, a refused one counting as infinitely late; None when it falls on one."""
    kept = run.latency_s[run.latency_s.shape[0] // 20 :]
    if kept.size == 0:
        return None
    value = float(np.percentile(np.where(np.isnan(kept), np.inf, kept), percentile, method="higher"))
    return value if math.isfinite(value) else None


def _why(value: float | None, refused: float, forecast: Forecast, slo: Slo, *, keeps: bool) -> str:
    limit_ms = slo.latency.max * 1e3
    if forecast.p50_s is None:
        return f"{forecast.bottleneck} saturates"
    if refused > slo.error_max_ratio:
        return f"{refused:.1%} refused"
    if value is None:
        return "the percentile falls on refused requests"
    name = f"p{slo.latency.percentile:g} {value * 1e3:.0f} ms"
    if keeps:
        return f"{name} keeps {limit_ms:.0f} ms"
    return f"{name} is over {limit_ms:.0f} ms" if value > slo.latency.max else f"{name} is too close to {limit_ms:.0f} ms"


def size(
    profile: ServiceProfile,
    settings: Mapping[str, ServingConfig],
    demand: Demand,
    slo: Slo,
    *,
    limit: int,
    seed: int,
    scenario: Scenario,
) -> Estimate:
    """The fewest replicas that keep the SLO, at most `limit`; the last one tried where none does."""
    least = 1 if scenario.cores_shared else max(1, math.ceil(demand.peak_rps / queueing.capacity_rps(profile, settings, demand)))
    tried = None
    for replicas in range(min(least, limit), limit + 1):
        tried = estimate(profile, settings, replicas, demand, slo, seed=seed, scenario=scenario)
        if tried.keeps:
            return tried
    assert tried is not None
    return tried


def busy_target(
    profile: ServiceProfile,
    settings: Mapping[str, ServingConfig],
    model: str,
    demand: Demand,
    slo: Slo,
    *,
    seed: int,
    scenario: Scenario,
    replicas: int = 1,
) -> tuple[float, float]:
    """The highest load at which the SLO still holds, found by bisection over the rate; zeros where it holds at none.

    Returns (busy ratio of `model`'s instances, rate_rps): what the autoscaler steers to, and what the replicas carry together. The
    busy ratio counts the time in which an instance executes, as Triton's counters do, so waiting for a core is in it.
    """
    capacity = queueing.capacity_rps(profile, settings, demand) * replicas
    low, high = 0.0, 1.2 * capacity
    best = (0.0, 0.0)
    for _ in range(7):
        rate = (low + high) / 2
        run = simulate(profile, settings, replicas, at_rate(demand, rate), seed=seed, scenario=scenario)
        value = percentile_s(run, slo.latency.percentile or 99.0)
        holds = value is not None and summarise(run).p50_s is not None and value * (1 + MARGIN_RATIO) <= slo.latency.max
        if holds:
            low, best = rate, (run.busy_ratio[model], rate)
        else:
            high = rate
    return best


def at_rate(demand: Demand, rate_rps: float) -> Demand:
    """The same traffic at one constant mean rate; a trace becomes Poisson arrivals at that rate."""
    law = "poisson" if demand.arrivals == "trace" else demand.arrivals
    return dataclasses.replace(demand, steps=(RateStep(start_s=0.0, rate_rps=rate_rps),), arrivals=law, times_s=None)


def largest_replicas(demand: Demand, per_replica_rps: float, chosen: int, limit: int | None) -> int:
    """Upper bound for the autoscaler: the person's limit, else room for twice the stated peak."""
    if limit is not None:
        return limit
    doubled = math.ceil(2 * demand.peak_rps / per_replica_rps) if per_replica_rps > 0 else 2 * chosen
    return max(chosen, doubled)
