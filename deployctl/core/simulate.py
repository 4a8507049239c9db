"""A replay of what would really run: a profile, settings, replicas and traffic enter, latencies leave.

Open arrivals with a size mix and repeats, spread over replicas by the front door, through Triton's dynamic batcher at each
stage of an ensemble, on cores that everything in a replica shares, with queue limits and with replicas that start and drain.
Service times are drawn around the measured means. The same seed gives the same bytes. Refuses to know clocks; what they are
fed with is made in `sim_inputs.py`; the loops are in `_station_kernel.py` and `_cluster_kernel.py`, loaded on first use
(compiling takes seconds once per installation).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from deployctl.core.arrivals import arrival_times_s
from deployctl.core.demand import Demand, RateStep, SizeShare
from deployctl.core.forecast import Forecast
from deployctl.core.profile import ColdStart, ServiceProfile
from deployctl.core.serving import ServingConfig
from deployctl.core.sim_inputs import Tables, bucket_index, horizon_s, overheads_s, reached, tables_of, unit_noise

FloatArray = npt.NDArray[np.float64]
Spread = Literal["least_conn", "random", "round_robin"]
_SPREADS: dict[str, int] = {"least_conn": 0, "random": 1, "round_robin": 2}
NO_POLLING = -1.0  # in place of a handover time


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """How a simulation runs, apart from what it simulates.

    Attributes:
        duration_s: length of traffic; None takes as long as `requests` need.
        requests: least number of requests when no duration is given.
        spread: rule of the front door.
        cores_shared: all replicas run on the same `profile.cores` (one machine); else each has its own.
        schedule: (time, replicas wanted) steps; None keeps `replicas` all the time.
        start: stages of a replica's start, one after the other: it takes requests when the last is over.
        cache: the response cache is on: repeats are answered in `cache_hit_s`.
        cache_hit_s: latency of a cache hit.
    """

    duration_s: float | None = None
    requests: int = 40_000
    spread: Spread = "least_conn"
    cores_shared: bool = False
    schedule: tuple[tuple[float, int], ...] | None = None
    start: ColdStart = ColdStart()
    cache: bool = False
    cache_hit_s: float = 0.001


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """One simulation's outcome.

    Attributes:
        arrival_s, latency_s: by request; latency is NaN for requests that were rejected or expired.
        executions: by model and executed batch size.
        busy_ratio: by model: busy share of its instances over the run.
        core_ratio: busy share of the cores, 0 where they are not modelled; polling is not counted.
        polled_s: core-seconds that Triton's batcher threads polled away.
        span_s: from the first arrival to the last answer.
        unknown: what the profile did not know and had to be extended.
    """

    arrival_s: FloatArray
    latency_s: FloatArray
    executions: dict[str, dict[int, int]]
    busy_ratio: dict[str, float]
    core_ratio: float
    polled_s: float
    span_s: float
    unknown: tuple[str, ...]


def simulate(
    profile: ServiceProfile,
    config: Mapping[str, ServingConfig],
    replicas: int,
    demand: Demand,
    *,
    seed: int,
    scenario: Scenario = Scenario(),
) -> Run:
    """Run the traffic through the service once.

    Args:
        profile: measured service times of every stage.
        config: settings by model name; a stage without any serves one request at a time on one instance.
        replicas: how many run (the largest number when a schedule is given).
        demand: offered traffic.
        seed: of all randomness.
        scenario: length, spread, sharing, schedule.

    Raises:
        ValueError: a stage was never measured.
    """
    rng = np.random.default_rng(seed)
    length_s = scenario.duration_s if scenario.duration_s is not None else horizon_s(demand, scenario.requests)
    arrival_s = arrival_times_s(demand, length_s, rng)
    index = bucket_index(demand, arrival_s.shape[0], rng)
    return _run(profile, config, replicas, demand, arrival_s, index, rng=rng, scenario=scenario)


def replay(
    profile: ServiceProfile,
    config: Mapping[str, ServingConfig],
    replicas: int,
    arrival_s: FloatArray,
    size: npt.NDArray[np.int64],
    *,
    seed: int,
    scenario: Scenario = Scenario(),
) -> Run:
    """Serve exactly these requests once: what a load test sent, so that forecast and measurement see the same arrivals.

    Args:
        profile: measured service times of every stage.
        config: settings by model name.
        replicas: how many run.
        arrival_s: rising arrival times (n,), n >= 1.
        size: input size bucket of each (n,).
        seed: of service times and of the front door.
        scenario: spread, sharing, schedule; its length does not apply.

    Raises:
        ValueError: a stage was never measured.
    """
    buckets, index, counts = np.unique(size, return_inverse=True, return_counts=True)
    mix = tuple(SizeShare(size=int(b), share_ratio=float(c / size.size)) for b, c in zip(buckets, counts, strict=True))
    demand = Demand(steps=(RateStep(start_s=0.0, rate_rps=size.size / max(float(arrival_s[-1]), 1e-9)),), mix=mix)
    return _run(profile, config, replicas, demand, arrival_s, index.astype(np.int64), rng=np.random.default_rng(seed), scenario=scenario)


def _run(
    profile: ServiceProfile,
    config: Mapping[str, ServingConfig],
    replicas: int,
    demand: Demand,
    arrival_s: FloatArray,
    index: npt.NDArray[np.int64],
    *,
    rng: np.random.Generator,
    scenario: Scenario,
) -> Run:
    """Serve arrivals whose sizes are given by their rank in the mix."""
    n = arrival_s.shape[0]
    tables = tables_of(profile, config, demand)
    noise = unit_noise(n, rng)
    pick = rng.random(n) if replicas > 1 else np.zeros(n)
    overhead_s = overheads_s(profile, n, rng)
    if scenario.cache and demand.repeat_ratio > 0:
        miss = rng.random(n) >= demand.repeat_ratio
        done_s, executed, busy_s, computed_s, polled_s = _serve(profile, tables, replicas, scenario, arrival_s[miss], index[miss], noise, pick[miss])
        latency_s = np.full(n, scenario.cache_hit_s)
        latency_s[miss] = _latency(done_s, arrival_s[miss])
    else:
        done_s, executed, busy_s, computed_s, polled_s = _serve(profile, tables, replicas, scenario, arrival_s, index, noise, pick)
        latency_s = _latency(done_s, arrival_s)
    latency_s += overhead_s
    span_s = float(max(done_s.max(initial=0.0), arrival_s[-1] if n else 0.0)) or 1.0
    names = [stage.model for stage in profile.stages]
    copies = tables.whole[:, 1] * max(replicas, 1)
    return Run(
        arrival_s=arrival_s,
        latency_s=latency_s,
        executions={m: {b: int(c) for b, c in enumerate(row) if c} for m, row in zip(names, executed, strict=True)},
        busy_ratio={m: float(b / (c * span_s)) for m, b, c in zip(names, busy_s, copies, strict=True)},
        core_ratio=_core_ratio(profile, scenario, replicas, computed_s, span_s),
        polled_s=polled_s,
        span_s=span_s,
        unknown=tables.unknown + reached(tables, executed),
    )


def forecast(
    profile: ServiceProfile,
    config: Mapping[str, ServingConfig],
    replicas: int,
    demand: Demand,
    *,
    slo_s: float | None = None,
    seed: int = 1,
    scenario: Scenario = Scenario(),
) -> Forecast:
    """Percentiles by simulation, with the first 5 % of the traffic left out as the run-in.

    A run that needs more than 2 % of its length (and half a second) to clear the backlog at its end is called saturated: its
    percentiles are None, because they depend on how long one watches.
    """
    try:
        run = simulate(profile, config, replicas, demand, seed=seed, scenario=scenario)
    except ValueError as error:
        return Forecast(
            p50_s=None, p95_s=None, p99_s=None, utilisation_ratio=0.0, throughput_rps=0.0, method="simulation", valid=False, why_not=str(error)
        )
    return summarise(run, slo_s=slo_s)


def summarise(run: Run, *, slo_s: float | None = None) -> Forecast:
    """A run as a forecast."""
    n = run.latency_s.shape[0]
    kept = run.latency_s[n // 20 :]
    answered = kept[~np.isnan(kept)]
    busiest, load = max([*run.busy_ratio.items(), ("cores", run.core_ratio)], key=lambda item: item[1])
    backlog_s = run.span_s - (float(run.arrival_s[-1]) if n else 0.0)
    saturated = backlog_s > max(0.02 * run.span_s, 0.5)
    p50, p95, p99 = np.percentile(answered, [50, 95, 99]) if answered.size and not saturated else (None, None, None)
    late = np.isnan(kept) | (kept > slo_s) if slo_s is not None else None
    why = f"not measured: {'; '.join(run.unknown[:3])}" if run.unknown else None
    return Forecast(
        p50_s=None if p50 is None else float(p50),
        p95_s=None if p95 is None else float(p95),
        p99_s=None if p99 is None else float(p99),
        utilisation_ratio=float(min(load, 1.0)),
        throughput_rps=float(np.sum(~np.isnan(run.latency_s)) / run.span_s),
        method="simulation",
        miss_ratio=None if late is None or not kept.size else float(np.mean(late)),
        valid=not run.unknown and bool(answered.size),
        why_not=why if answered.size else "no request was answered",
        bottleneck=busiest,
    )


def warm(progress: Any = None) -> None:
    """Load the compiled loops; says so through `progress.note`, because the first time takes seconds."""
    if progress is not None:
        progress.note("loading the simulator (it is compiled once per installation, which takes seconds)")
    from deployctl.core.profile import ServicePoint, StageProfile

    stage = StageProfile(model="m", points=(ServicePoint(batch=1, size=1, mean_s=0.001, std_s=0.0, count=1),))
    profile = ServiceProfile(stages=(stage, stage), overhead_s=0.0, device="none", bundle="none", triton_version="none", cores=1.0)
    from deployctl.core.demand import constant

    simulate(profile, {}, 1, constant(10.0), seed=1, scenario=Scenario(requests=20))


def _latency(done_s: FloatArray, arrival_s: FloatArray) -> FloatArray:
    """Done minus arrived; NaN for those that were refused (their time is negative)."""
    latency_s = done_s - arrival_s
    if done_s.min(initial=0.0) < 0:
        latency_s[done_s < 0] = np.nan
    return latency_s


def _serve(
    profile: ServiceProfile,
    tables: Tables,
    replicas: int,
    scenario: Scenario,
    arrival_s: FloatArray,
    index: npt.NDArray[np.int64],
    noise: FloatArray,
    pick: FloatArray,
) -> tuple[FloatArray, npt.NDArray[np.int64], FloatArray, float, float]:
    """Pick the machine: the loop over arrivals where it is exact, else the one with events."""
    from deployctl.core import _station_kernel

    spread = _SPREADS[scenario.spread]
    simple = len(profile.stages) == 1 and profile.cores <= 0 and scenario.schedule is None and not tables.preferred[:, 0].any()
    if simple:
        stage_size = np.zeros_like(index) if tables.joins[0] else index
        done_s, executed, busy_s = _station_kernel.run_station(  # type: ignore[no-untyped-call]
            *(tables.whole[0], tables.seconds[0], replicas, spread, tables.mean_s[0], tables.cv[0], tables.slowdown[0]),
            *(arrival_s, stage_size, noise, pick),
        )
        return done_s, executed[None, :], np.array([busy_s]), 0.0, 0.0
    cluster = _cluster(profile, tables, replicas, scenario, arrival_s, index, noise, pick)
    cluster.advance(np.inf)
    return cluster.done_s, cluster.executions, cluster.busy_s, cluster.computed_s, cluster.polled_s


def _cluster(
    profile: ServiceProfile,
    tables: Tables,
    replicas: int,
    scenario: Scenario,
    arrival_s: FloatArray,
    index: npt.NDArray[np.int64],
    noise: FloatArray,
    pick: FloatArray,
) -> Any:
    """The machine with events (`_cluster_kernel.Cluster`), before anything has happened."""
    from deployctl.core import _cluster_kernel

    size = np.stack([np.zeros_like(index) if joins else index for joins in tables.joins])
    groups = np.zeros(replicas, dtype=np.int64) if scenario.cores_shared else np.arange(replicas, dtype=np.int64)
    cores = np.full(1 if scenario.cores_shared else replicas, profile.cores if profile.cores > 0 else 1e9)
    modelled = profile.cores > 0
    half = profile.request_cpu_s / 2 if modelled else 0.0
    switch_s, switch = _switches(replicas, scenario.schedule, scenario.start.total_s)
    return _cluster_kernel.Cluster(
        *(tables.whole, tables.seconds, tables.mean_s, tables.cv, tables.slowdown, groups, cores, np.array([half, half])),
        *(
            (profile.poll_handover_s if profile.polls else NO_POLLING, (profile.wake_cpu_s, profile.wake_pause_s))
            if modelled
            else (NO_POLLING, (0.0, 1.0))
        ),
        *(_SPREADS[scenario.spread], switch_s, switch, arrival_s, size, noise, pick),
        preferred=tables.preferred,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stoppable:
    """A simulation that somebody drives: `cluster` goes on until a moment; `overhead_s` comes on top of each latency."""

    cluster: Any
    overhead_s: FloatArray | float

    def latency_s(self, arrival_s: FloatArray) -> FloatArray:
        """By request; NaN for those that were refused or have no answer yet."""
        return _latency(self.cluster.done_s, arrival_s) + self.overhead_s


def stoppable(
    profile: ServiceProfile,
    config: Mapping[str, ServingConfig],
    replicas: int,
    demand: Demand,
    arrival_s: FloatArray,
    *,
    seed: int,
    scenario: Scenario = Scenario(),
) -> Stoppable:
    """These arrivals on at most `replicas` replicas, none of which takes requests until the driver says so (no cache).

    Args:
        profile: measured service times of every stage.
        config: settings by model name.
        replicas: how many there are at most.
        demand: for its size mix.
        arrival_s: rising (n,), n >= 1.
        seed: of sizes, service times and the front door.
        scenario: spread and sharing; length, schedule and cache do not apply.

    Raises:
        ValueError: a stage was never measured.
    """
    rng, n = np.random.default_rng(seed), arrival_s.shape[0]
    index = bucket_index(demand, n, rng)
    tables = tables_of(profile, config, demand)
    noise, pick, overhead_s = unit_noise(n, rng), rng.random(n), overheads_s(profile, n, rng)
    still = replace(scenario, schedule=())
    return Stoppable(cluster=_cluster(profile, tables, replicas, still, arrival_s, index, noise, pick), overhead_s=overhead_s)


def _switches(replicas: int, schedule: Sequence[tuple[float, int]] | None, start_delay_s: float) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """When each replica begins and stops to take requests; those of the first step are ready at once."""
    if schedule is None:
        return np.zeros(replicas), np.stack([np.arange(replicas), np.ones(replicas, dtype=np.int64)], axis=1)
    rows: list[tuple[float, int, int]] = []
    wanted = 0
    ready_s: dict[int, float] = {}
    for i, (at_s, number) in enumerate(schedule):
        for r in range(wanted, min(number, replicas)):
            ready_s[r] = at_s + (start_delay_s if i else 0.0)
            rows.append((ready_s[r], r, 1))
        for r in range(number, wanted):
            # One that was to be removed before it was ready never takes a request.
            rows = [row for row in rows if not (row[1] == r and row[0] > at_s)]
            rows.append((at_s, r, 0))
        wanted = min(number, replicas)
    rows.sort()
    return np.array([row[0] for row in rows], dtype=np.float64), np.array([[row[1], row[2]] for row in rows], dtype=np.int64).reshape(-1, 2)


def _core_ratio(profile: ServiceProfile, scenario: Scenario, replicas: int, computed_s: float, span_s: float) -> float:
    if profile.cores <= 0:
        return 0.0
    cores = profile.cores * (1 if scenario.cores_shared else replicas)
    return min(computed_s / (cores * span_s), 1.0) if math.isfinite(computed_s) else 0.0
