"""Waiting-time formulas: rates and moments of service times enter, waits and percentiles leave.

Each function states its symbols and where it is from. `forecast` has the signature of the simulator's and picks the formula that
fits the configuration best; what no formula covers it declares invalid instead of guessing. Refuses to know clocks and servers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from deployctl.core.arrivals import weibull_shape
from deployctl.core.demand import Demand
from deployctl.core.forecast import Forecast
from deployctl.core.profile import ServiceProfile, StageProfile
from deployctl.core.profiling import affine, service_table, slowdowns
from deployctl.core.serving import ServingConfig


def erlang_c(servers: int, offered: float) -> float:
    """Probability that an arrival waits in M/M/c (A. K. Erlang 1917; e.g. Kleinrock, Queueing Systems I, 1975, eq. 3.40).

    Args:
        servers: c, number of equal servers.
        offered: a = lambda / mu in Erlangs; a < c for a stable queue (1 is returned otherwise).
    """
    if offered >= servers:
        return 1.0
    blocked = 1.0  # Erlang B by its recursion B(k) = a B(k-1) / (k + a B(k-1)), stable for any c
    for k in range(1, servers + 1):
        blocked = offered * blocked / (k + offered * blocked)
    return blocked / (1.0 - (offered / servers) * (1.0 - blocked))


def mm1_wait_s(rate_rps: float, service_s: float) -> float:
    """Mean wait in M/M/1: Wq = rho S / (1 - rho), rho = lambda S (Kleinrock I, 3.2); infinite when rho >= 1."""
    return mmc_wait_s(1, rate_rps, service_s)


def mmc_wait_s(servers: int, rate_rps: float, service_s: float) -> float:
    """Mean wait in M/M/c: Wq = C(c, a) S / (c - a), a = lambda S, C = Erlang C; infinite when a >= c."""
    offered = rate_rps * service_s
    return math.inf if offered >= servers else erlang_c(servers, offered) * service_s / (servers - offered)


def mg1_wait_s(rate_rps: float, service_s: float, service_cv: float) -> float:
    """Mean wait in M/G/1: Wq = lambda E[S^2] / (2 (1 - rho)), E[S^2] = S^2 (1 + Cs^2) (Pollaczek 1930, Khinchine 1932)."""
    rho = rate_rps * service_s
    return math.inf if rho >= 1 else rate_rps * service_s**2 * (1 + service_cv**2) / (2 * (1 - rho))


def md1_wait_s(rate_rps: float, service_s: float) -> float:
    """Mean wait in M/D/1: the M/G/1 formula with Cs = 0, half of M/M/1."""
    return mg1_wait_s(rate_rps, service_s, 0.0)


def ggc_wait_s(servers: int, rate_rps: float, service_s: float, *, arrival_cv: float, service_cv: float) -> float:
    """Mean wait in G/G/c: Wq = Wq(M/M/c) (Ca^2 + Cs^2) / 2 (Allen and Cunneen; Allen 1990, 5.3; Kingman 1961 for c = 1).

    Exact for M/M/c and M/G/1; an approximation else.
    """
    return mmc_wait_s(servers, rate_rps, service_s) * (arrival_cv**2 + service_cv**2) / 2


def mmc_response_percentile_s(servers: int, rate_rps: float, service_s: float, percentile: float, *, wait_scale: float = 1.0) -> float:
    """Percentile of wait + service when the wait is 0 with probability 1 - C and exponential else, and service is constant.

    P(W > t) = C exp(-t (c - a) / S) holds exactly for M/M/c (Kleinrock I, 3.2). `wait_scale` stretches the exponential so that its mean
    is that of the Allen-Cunneen wait.
    """
    offered = rate_rps * service_s
    if offered >= servers:
        return math.inf
    waits = erlang_c(servers, offered)
    tail = 1 - percentile / 100
    if waits <= tail:
        return service_s
    return service_s + wait_scale * service_s / (servers - offered) * math.log(waits / tail)


def inoue_bound_s(rate_rps: float, base_s: float, per_item_s: float) -> float:
    """Upper bound of the mean response time of one batch server without a batch limit.

    Y. Inoue, "Queueing analysis of GPU-based inference servers with dynamic batching: a closed-form characterization", Performance
    Evaluation 147, 2021. It is tight where nearly every batch finds requests waiting and where nearly none does; between, at the load
    where its two halves cross, it lies up to 9 % above the exact mean (`tests/contract/batch_chain.py` has that one).

    A batch of b takes alpha b + t0; Poisson arrivals; all that wait form the next batch. With L the rate and L alpha < 1:
    min(p0, p1), p0 = (alpha + t0) / (2 (1 - L alpha)) (1 + 2 L t0 + (1 - L t0) / (1 + L alpha)),
    p1 = 3 t0 / (2 (1 - L alpha)) + alpha / 2 (L alpha + 2) / (1 - L^2 alpha^2).

    Args:
        rate_rps: L.
        base_s: t0, per batch.
        per_item_s: alpha, per request in the batch.
    """
    load = rate_rps * per_item_s
    if load >= 1:
        return math.inf
    p0 = (per_item_s + base_s) / (2 * (1 - load)) * (1 + 2 * rate_rps * base_s + (1 - rate_rps * base_s) / (1 + load))
    p1 = 1.5 * base_s / (1 - load) + per_item_s / 2 * (load + 2) / (1 - load**2)
    return min(p0, p1)


def arrival_cv(demand: Demand) -> float:
    """Coefficient of variation of the gaps between arrivals."""
    if demand.arrivals == "constant":
        return 0.0
    if demand.arrivals in ("gamma", "weibull"):
        if demand.arrivals == "weibull":
            weibull_shape(demand.cv)  # raises for a law that does not exist
        return demand.cv
    if demand.arrivals == "trace" and demand.times_s and len(demand.times_s) > 2:
        gaps = np.diff(np.sort(np.array(demand.times_s)))
        return float(gaps.std() / gaps.mean()) if gaps.mean() > 0 else math.inf
    return 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    name: str
    servers: int
    rate_rps: float
    service_s: float
    service_cv: float
    base_s: float
    per_item_s: float
    batches: bool

    @property
    def load(self) -> float:
        """Busy share at the present rate, with full use of batching."""
        per_request = self.per_item_s if self.batches else self.service_s
        return self.rate_rps * per_request / self.servers


def forecast(
    profile: ServiceProfile,
    config: Mapping[str, ServingConfig],
    replicas: int,
    demand: Demand,
    *,
    slo_s: float | None = None,
    seed: int = 1,
) -> Forecast:
    """Percentiles by formula: stages in tandem, each as G/G/c of its own; a batching stage by Inoue's bound.

    Stages are treated as independent (exact only for M/M/c in tandem: Burke 1956) and the front door as perfect pooling, so
    this is a prior that rules configurations out, not a proof. It is invalid for rate curves with steps, for queue limits, and
    where the profile was not measured.

    Args:
        profile: measured service times.
        config: settings by model name.
        replicas: how many; their instances are pooled.
        demand: traffic at one constant mean rate.
        slo_s: limit for the miss ratio.
        seed: unused; the signature is the simulator's.
    """
    del seed
    rate = demand.peak_rps
    unknown: list[str] = []
    stages = [_stage(profile, s, config.get(s.model, ServingConfig(max_batch=1)), replicas, demand, unknown) for s in profile.stages]
    why = _limits(config, demand, unknown)
    worst = max(stages, key=lambda s: s.load)
    cores = _core_load(profile, stages, replicas)
    load, name = (cores, "cores") if cores > worst.load else (worst.load, worst.name)
    if load >= 1:
        capacity = rate / load
        return _forecast(None, load, capacity, slo_s=slo_s, why=why, bottleneck=name, miss=1.0)
    ca = arrival_cv(demand)
    slowed = 1.0 / (1.0 - min(max(cores - worst.load, 0.0), 0.9))
    percentiles = tuple(profile.overhead_s + sum(_percentile_s(s, ca, p) * slowed for s in stages) for p in (50.0, 95.0, 99.0))
    miss = _miss_ratio(percentiles, slo_s)
    return _forecast(percentiles, load, rate, slo_s=slo_s, why=why, bottleneck=name, miss=miss)


def capacity_rps(profile: ServiceProfile, config: Mapping[str, ServingConfig], demand: Demand) -> float:
    """Rate at which one replica's bottleneck (a stage or its cores) is busy all the time, with batches as full as they can get."""
    unknown: list[str] = []
    stages = [_stage(profile, s, config.get(s.model, ServingConfig(max_batch=1)), 1, demand, unknown) for s in profile.stages]
    load = max(*(s.load for s in stages), _core_load(profile, stages, 1), 1e-12)
    return demand.peak_rps / load


def _stage(profile: ServiceProfile, stage: StageProfile, serving: ServingConfig, replicas: int, demand: Demand, unknown: list[str]) -> _Stage:
    sizes = [share.size for share in demand.mix]
    share = np.array([s.share_ratio for s in demand.mix])
    share = share / share.sum()
    table = service_table(stage, sizes, serving.max_batch)
    unknown += table.unknown
    ratio, measured = slowdowns(profile, stage.model, serving.instances)
    if not measured:
        unknown.append(f"{stage.model}: {serving.instances} instances at once")
    alone = table.mean_s[1] * ratio[-1]
    mean = float(alone @ share)
    second = float((alone**2 * (1 + table.cv[1] ** 2)) @ share)
    laws = [affine(sorted((p for p in stage.points if p.size == s), key=lambda p: p.batch)) for s in sorted({p.size for p in stage.points})]
    full = float((table.mean_s[serving.max_batch] / serving.max_batch * ratio[-1]) @ share)
    return _Stage(
        name=stage.model,
        servers=replicas * serving.instances,
        rate_rps=demand.peak_rps,
        service_s=mean,
        service_cv=math.sqrt(max(second / mean**2 - 1, 0.0)),
        base_s=max(float(np.mean([law.base_s for law in laws])), 0.0) * ratio[-1],
        per_item_s=min(full, mean),
        batches=serving.max_batch > 1,
    )


# Percentile over mean of a batch server's response: a request meets the rest of one cycle and a whole one, so the tail is short.
# Rough choices between an exponential tail and none; no fit was made. `tests/contract/test_forecast_methods.py` bounds what they cost at 45 %.
_BATCH_TAIL = {50.0: 1.0, 95.0: 1.6, 99.0: 1.9}


def _percentile_s(stage: _Stage, ca: float, percentile: float) -> float:
    """Response percentile of one stage alone: G/G/c, and where batches form no more than Inoue's bound with its tail."""
    scale = (ca**2 + stage.service_cv**2) / 2
    plain = mmc_response_percentile_s(stage.servers, stage.rate_rps, stage.service_s, percentile, wait_scale=scale)
    if not stage.batches:
        return plain
    mean = inoue_bound_s(stage.rate_rps / stage.servers, stage.base_s, stage.per_item_s)
    return min(plain, mean * _BATCH_TAIL[percentile])


def _core_load(profile: ServiceProfile, stages: list[_Stage], replicas: int) -> float:
    """Busy share of the cores that the stages share; 0 where that was not measured."""
    if profile.cores <= 0:
        return 0.0
    work = sum((s.per_item_s if s.batches else s.service_s) * p.cpu_ratio for s, p in zip(stages, profile.stages, strict=True))
    return stages[0].rate_rps * (work + profile.request_cpu_s) / (profile.cores * replicas)


def _limits(config: Mapping[str, ServingConfig], demand: Demand, unknown: list[str]) -> str | None:
    if len({step.rate_rps for step in demand.steps}) > 1 or demand.arrivals == "trace":
        return "the rate changes; formulas hold for one mean rate (simulate instead)"
    if any(c.queue_timeout_s for c in config.values()):
        return "queue limits refuse requests; no formula here covers that (simulate instead)"
    if any(c.named_batches for c in config.values()):
        return "preferred batch sizes are named; no formula here covers that (simulate instead)"
    return f"not measured: {'; '.join(unknown[:3])}" if unknown else None


def _miss_ratio(percentiles: tuple[float, ...], slo_s: float | None) -> float | None:
    if slo_s is None:
        return None
    level = [50.0, 95.0, 99.0]
    if slo_s >= percentiles[-1]:
        return 0.01
    return float(1 - np.interp(slo_s, percentiles, level) / 100) if slo_s > percentiles[0] else 0.5


def _forecast(
    percentiles: tuple[float, ...] | None, load: float, rate: float, *, slo_s: float | None, why: str | None, bottleneck: str, miss: float | None
) -> Forecast:
    p50, p95, p99 = percentiles if percentiles else (None, None, None)
    return Forecast(
        p50_s=p50,
        p95_s=p95,
        p99_s=p99,
        utilisation_ratio=min(load, 1.0),
        throughput_rps=rate,
        method="queueing",
        miss_ratio=miss if slo_s is not None else None,
        valid=why is None,
        why_not=why,
        bottleneck=bottleneck,
    )
