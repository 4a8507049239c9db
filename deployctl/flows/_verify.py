"""The independent load test of tuned settings: fresh servers as they would be rolled out, new seed, judged by `core.judging`."""

from __future__ import annotations

import dataclasses
import math
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from deployctl import scratch
from deployctl.core import contention, judging, sequential
from deployctl.core.demand import Demand, RateStep
from deployctl.core.load_samples import Samples
from deployctl.core.serving import ServingConfig
from deployctl.core.sizing import Estimate
from deployctl.core.slo import Slo
from deployctl.core.tuner import Tested
from deployctl.core.verdict import Verdict, least_duration_s, planned_duration_s, provable
from deployctl.errors import ModelError, NotConverged
from deployctl.flows._probe import Bench, Probes, load_request
from deployctl.ports import LoadResult, RunningServer

LEG_S, MOST_LEGS = 15.0, 6
SEED = 7_919  # not the seed of any calibration or simulation


def verify(probes: Probes, estimate: Estimate, slo: Slo, *, one_of: int = 1) -> Tested:
    """Run the settings for real, for as long as the percentile needs to be decided, and judge them.

    Args:
        probes: where finished load tests are kept.
        estimate: what to run.
        slo: the promise.
        one_of: test one replica with this share of the traffic (a cluster that is not here); 1 runs all replicas here.
    """
    bench = probes.bench
    replicas = 1 if one_of > 1 else estimate.replicas
    share = share_of(bench.demand, one_of * replicas, slo)
    details = {
        "settings": estimate.settings,
        "replicas": replicas,
        "demand": share.demand,
        "most_s": share.leg_s * share.legs,
        "slo": slo,
        "seed": SEED,
    }
    try:
        # A miss is kept by nobody: another run, perhaps on a quieter machine, tests again.
        verdict = probes.once(
            Verdict, "verify", lambda: _run(bench, estimate.settings, replicas, share, slo), keep=lambda v: v.result == "PASS", **details
        )
    except (ModelError, NotConverged) as error:
        return Tested(estimate=estimate, verdict=None, measured_s=None, error=error.message)
    row = next(o for o in verdict.objectives if o.metric == "latency" and o.percentile == slo.latency.percentile)
    return Tested(estimate=estimate, verdict=verdict, measured_s=row.estimate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one replica is sent: its share of the traffic around the peak, in at most so many legs of this length."""

    demand: Demand
    leg_s: float
    legs: int


def share_of(demand: Demand, parts: int, slo: Slo) -> Share:
    """One of `parts` equal shares of the traffic; a trace is sent once, around its busiest time."""
    steps = tuple(RateStep(start_s=s.start_s, rate_rps=s.rate_rps / parts) for s in demand.steps)
    peak = max(s.rate_rps for s in steps)
    if demand.arrivals == "trace" and demand.times_s:
        length_s = planned_duration_s(slo, peak * parts, least_s=LEG_S, most_s=LEG_S * MOST_LEGS)
        busiest = _busiest_window(np.array(demand.times_s), length_s)
        return Share(demand=dataclasses.replace(demand, times_s=tuple(busiest[::parts].tolist())), leg_s=length_s, legs=1)
    needed = math.ceil(least_duration_s(slo, peak) / LEG_S) if provable(slo, peak) else 0
    return Share(demand=dataclasses.replace(demand, steps=(RateStep(start_s=0.0, rate_rps=peak),)), leg_s=LEG_S, legs=max(MOST_LEGS, needed))


def _busiest_window(times_s: np.ndarray[tuple[int], np.dtype[np.float64]], length_s: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    times_s = np.sort(times_s)
    ends = np.searchsorted(times_s, times_s + length_s)
    start = int(np.argmax(ends - np.arange(times_s.size)))
    window = times_s[start : int(ends[start])]
    return np.asarray(window - math.floor(float(window[0])))


def _run(bench: Bench, settings: dict[str, ServingConfig], replicas: int, share: Share, slo: Slo) -> Verdict:
    """Legs of load on the same fresh servers, until the sequential test has decided and the verdict says what."""
    tools = bench.tools
    folder = scratch.new(tools.workspace.state / "tune")
    servers: list[RunningServer] = []
    legs: list[list[LoadResult]] = []
    try:
        tools.repository.build(bench.bundle, folder / "repository", settings=settings)
        for _ in range(replicas):
            servers.append(tools.launcher.start(folder / "repository", cpus=bench.server_cpus))
        before = _readings(bench, servers)
        while True:
            legs.append(_leg(bench, servers, share, number=len(legs)))
            verdict = _judge(legs, share, slo)
            decision = sequential.decide(_pooled(legs, share), slo.latency, share.leg_s * len(legs))
            if len(legs) == share.legs or (decision != "more" and verdict.result != "INCONCLUSIVE"):
                return _excused(verdict, bench, before, _readings(bench, servers))
            bench.progress.update(f"{share.leg_s * len(legs):.0f} s of at most {share.leg_s * share.legs:.0f} s: {verdict.result.lower()} so far")
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _readings(bench: Bench, servers: list[RunningServer]) -> tuple[float, float, float] | None:
    """Time, and core-seconds of everybody and of the servers on the servers' cores; None where these cores are not theirs or not here."""
    if not bench.server_cpus:
        return None
    tools = bench.tools
    return tools.clock.monotonic_s(), tools.launcher.busy_s(bench.server_cpus), sum(s.core_use().spent_s for s in servers)


def _excused(verdict: Verdict, bench: Bench, before: tuple[float, float, float] | None, after: tuple[float, float, float] | None) -> Verdict:
    """A miss is undecided where others took the servers' cores; without readings the verdict stands."""
    if before is None or after is None:
        return verdict
    passed_s, busy_s, own_s = (new - old for new, old in zip(after, before, strict=True))
    return contention.excused(verdict, contention.CoreShares(cores=bench.cores, passed_s=passed_s, busy_s=busy_s, own_s=own_s))


def _leg(bench: Bench, servers: list[RunningServer], share: Share, *, number: int) -> list[LoadResult]:
    """One stretch of load on every server at once; each leg draws its own arrivals."""
    seeds = [SEED + number * len(servers) + i for i in range(len(servers))]
    requests = [
        load_request(bench, s.http_url, share.demand, duration_s=share.leg_s, seed=seed, warmup_s=2.0) for s, seed in zip(servers, seeds, strict=True)
    ]
    with ThreadPoolExecutor(len(servers)) as pool:
        return list(pool.map(lambda request: bench.tools.loadgen.run(request, bench.progress), requests))


def _pooled(legs: list[list[LoadResult]], share: Share) -> Samples:
    """All samples so far, leg after leg on one time axis."""
    return merged([_later(r.samples, share.leg_s * i) for i, leg in enumerate(legs) for r in leg])


def _later(samples: Samples, by_s: float) -> Samples:
    return dataclasses.replace(samples, intended_s=samples.intended_s + by_s, sent_s=samples.sent_s + by_s)


def _judge(legs: list[list[LoadResult]], share: Share, slo: Slo) -> Verdict:
    samples, duration_s = _pooled(legs, share), share.leg_s * len(legs)
    return judging.assess(
        samples,
        slo,
        rng=np.random.default_rng(SEED),
        offered_rps=samples.intended_s.size / duration_s,
        duration_s=duration_s,
        generator_cpu_ratio=max(sum(r.generator_cpu_ratio for r in leg) for leg in legs),
    )


def merged(parts: list[Samples]) -> Samples:
    """Samples of tests that ran side by side, in order of intended send time."""
    if len(parts) == 1:
        return parts[0]
    errors = tuple(sorted({text for p in parts for text in p.errors}))
    codes = [np.array([*(errors.index(text) for text in p.errors), -1], dtype=np.int64)[p.error] for p in parts]
    order = np.argsort(np.concatenate([p.intended_s for p in parts]), kind="stable")

    def joined(name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.asarray(np.concatenate([getattr(p, name) for p in parts])[order])

    return Samples(
        intended_s=joined("intended_s"),
        sent_s=joined("sent_s"),
        latency_s=joined("latency_s"),
        ok=np.concatenate([p.ok for p in parts])[order],
        size=np.concatenate([p.size for p in parts])[order],
        error=np.concatenate(codes)[order],
        errors=errors,
    )
