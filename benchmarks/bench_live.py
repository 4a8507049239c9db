"""Prediction against reality: a policy's savings on real Triton replicas beside those that a replay of the same load foretold: `make bench-live`.

    python benchmarks/bench_live.py [--seconds 140]

A model that sleeps 25 ms a request (so that two cores carry four replicas) runs on the local host behind its front door. One load, drawn
once, is sent twice: with our policy and with an HPA at 70 % of a replica's capacity. Time is compressed: one real second is RATIO seconds
of the policies' clock, for the rates, the capacity and the measured start-up alike, so that a few minutes hold several scalings; ours has
learned from a day of the same process before it begins. Each decision is a release with that many replicas, as `deployctl scale` would
write it; the policies read the arrivals that the front door counted. Cost is replicas times time, starting ones included. The replay
has the same arrivals, the measured start-up, and readings as old and as coarse. Last lines: BENCH <name> <value> <unit> goal <goal>
ok|short|noisy; noisy means that the machine was busy with something else before it began, or that the generator could not keep its times.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _fleet import LIMIT_S, Fleet

from deployctl.adapters import processes
from deployctl.adapters.files import FileBlobStore, FileBundleStore
from deployctl.adapters.locust import LocustGenerator
from deployctl.core import replay, traces
from deployctl.core.decision import Observation, Reading, ScaleTo, ScalingPolicy
from deployctl.core.demand import Demand, RateStep
from deployctl.core.fluid import Plant
from deployctl.core.policies import policy
from deployctl.ports import LoadRequest, LoadResult, Workspace
from deployctl.testing.builders import sleep_bundle

RATIO = 15.0  # seconds of the policies' clock in one real second: a tick of 15 s is one real second
SERVICE_S, CAPACITY_RPS = 0.025, 32.0  # a replica can do 40/s; 32/s is what it is trusted with
PERIOD_S, PEAK_RPS = 70.0, 80.0
MOST = 4
DAY_TICKS = 5760
GOAL_POINTS = 5.0
VIEW = replay.View(scrape_s=int(RATIO), rate_window_s=int(RATIO))


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """One policy on real replicas: replica-seconds in real time, share of requests late or failed, changes of the number."""

    cost_s: float
    missed_ratio: float
    changes: int
    late_sends: int
    wanted: tuple[int, ...]


class Quiet:
    """Progress that nobody reads."""

    def step(self, message: str) -> None:
        """Nothing."""

    update = note = warn = step


def rate_rps(at_s: np.ndarray) -> np.ndarray:
    """The load in real time: a swing between a third of a replica's capacity and two and a half times that."""
    return PEAK_RPS * (0.56 + 0.44 * np.sin(2 * np.pi * at_s / PERIOD_S))


def arrival_times(seconds: int, seed: int) -> np.ndarray:
    """Poisson arrivals of the load, real seconds, by thinning."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.random(rng.poisson(PEAK_RPS * seconds)) * seconds)
    return times[rng.random(times.size) < rate_rps(times) / PEAK_RPS]


def settings_of(name: str, start_up_s: float) -> ScalingPolicy:
    """A policy in its own clock: rates are a RATIO-th of the real ones."""
    capacity = CAPACITY_RPS / RATIO
    own = ScalingPolicy(
        policy=name,
        signal="arrivals_rps",
        target=0.7 * capacity,
        max_replicas=MOST,
        capacity_rps=capacity,
        start_up_s=start_up_s * RATIO,
        sync_s=RATIO,
    )
    return own


def learned(settings: ScalingPolicy, seed: int) -> object:
    """What a policy knows after a day of the same process, in its own clock."""
    rule, rng = policy(settings.policy), np.random.default_rng(seed)
    state, replicas = rule.initial_state(), 2
    loads = rng.poisson(rate_rps(np.arange(DAY_TICKS, dtype=np.float64) + 0.5)) / RATIO
    for i, load in enumerate(loads):
        seen = observation(float(load), replicas, replicas, replicas, i)
        decision, state = rule.decide(seen, state, settings, i * RATIO)
        replicas = decision.replicas if isinstance(decision, ScaleTo) else replicas
    return state


def observation(load: float | None, ready: int, total: int, wanted: int, tick: int) -> Observation:
    readings = {"arrivals_rps": Reading(value=load)}
    return Observation(at_s=tick * RATIO, readings=readings, replicas_ready=ready, replicas_starting=max(total - ready, 0), replicas_wanted=wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bed:
    """Replicas, and what loads them."""

    fleet: Fleet
    bodies: Path
    generator: LocustGenerator


def live(bed: Bed, settings: ScalingPolicy, times: np.ndarray, seconds: int, state: object) -> Live:
    """Send the load and let the policy decide once a real second."""
    fleet = bed.fleet
    first = math.ceil(float(rate_rps(np.array([0.5]))[0]) / CAPACITY_RPS)
    fleet.settle(first)
    found: list[LoadResult] = []
    sender = threading.Thread(target=lambda: found.append(bed.generator.run(request(bed, times, seconds))))
    sender.start()
    assert processes.wait_for(lambda: _arrivals(fleet) > 0.5, 30), "no request arrived"
    rule, wanted, series, cost_s, changes = policy(settings.policy), first, [], 0.0, 0
    began = last = time.monotonic()
    for tick in range(1, seconds + 1):
        time.sleep(max(began + tick - time.monotonic(), 0.0))
        status, now = fleet.target.status(), time.monotonic()
        total, ready = len(status.replicas), sum(r.state == "ready" for r in status.replicas)
        cost_s += max(wanted, ready) * (now - last)
        last = now
        load = status.recent[-1].get("arrivals_rps") if status.recent else None
        seen = observation(None if load is None else load / RATIO, ready, total, wanted, DAY_TICKS + tick)
        decision, state = rule.decide(seen, state, settings, (DAY_TICKS + tick) * RATIO)
        if isinstance(decision, ScaleTo) and decision.replicas != wanted:
            wanted, changes = decision.replicas, changes + 1
            fleet.scale(wanted)
        series.append(wanted)
    sender.join()
    samples = found[0].samples
    bad = ~samples.ok | ~(samples.latency_s <= LIMIT_S)
    return Live(cost_s=cost_s, missed_ratio=float(bad.mean()), changes=changes, late_sends=found[0].late_sends, wanted=tuple(series))


def request(bed: Bed, times: np.ndarray, seconds: int) -> LoadRequest:
    return LoadRequest(
        url=bed.fleet.url,
        protocol="http",
        model="sleeper",
        bodies=bed.bodies,
        demand=Demand(steps=(RateStep(start_s=0.0, rate_rps=times.size / seconds),), arrivals="trace", times_s=tuple(times.tolist())),
        duration_s=float(seconds),
        warmup_s=0.0,
        seed=1,
    )


def _arrivals(fleet: Fleet) -> float:
    rows = fleet.target.status().recent
    return rows[-1].get("arrivals_rps", 0.0) if rows else 0.0


def foretold(settings: ScalingPolicy, times: np.ndarray, seconds: int, start_up_s: float, day_seed: int) -> tuple[float, float]:
    """The replay's cost in real replica-seconds and its misses, with the same day of history."""
    rng = np.random.default_rng(day_seed)
    ticks = rng.poisson(rate_rps(np.arange(DAY_TICKS, dtype=np.float64) + 0.5))
    width = int(RATIO)
    history = np.repeat(ticks / RATIO, width)
    judged = np.bincount((times * RATIO).astype(np.int64), minlength=seconds * width)[: seconds * width]
    trace = traces.Trace(name="live", arrivals=np.concatenate([history, judged]).astype(np.float64), history_s=DAY_TICKS * width)
    plant = Plant(capacity_rps=1 / SERVICE_S / RATIO, start_up_s=math.ceil(start_up_s * RATIO), wait_s=(LIMIT_S - SERVICE_S) * RATIO, admission=False)
    run = replay.replay(trace, plant, settings, view=VIEW)
    return run.outcome.cost_s / RATIO, run.outcome.miss_ratio


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=140)
    seconds = parser.parse_args(words).seconds
    busy = os.getloadavg()[0] / len(processes.cpus())
    times = arrival_times(seconds, seed=1)
    results: dict[str, tuple[Live, float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder) / "project")
        blobs = FileBlobStore(workspace.blobs)
        bundle = sleep_bundle(blobs, FileBundleStore(blobs, workspace.state / "bundles"), SERVICE_S, 0.0, 1)
        bed = Bed(fleet=Fleet(workspace, bundle, {}), bodies=blobs.path(bundle.sample), generator=LocustGenerator(workspace.root / "scratch"))
        fleet = bed.fleet
        try:
            fleet.settle(1)
            start_up_s = float(np.median([fleet.settle(2), fleet.settle(3), fleet.settle(MOST)]))
            print(f"start-up {start_up_s:.1f} s, {times.size} requests in {seconds} s, load of the machine before: {busy:.2f} a core")
            for name in ("slo", "hpa"):
                settings = settings_of(name, start_up_s)
                told_s, told_misses = foretold(settings, times, seconds, start_up_s, day_seed=7)
                was = live(bed, settings, times, seconds, learned(settings, seed=7))
                results[name] = (was, told_s, told_misses)
                print(
                    f"  {name:4} live {was.cost_s:6.0f} replica-s, {was.missed_ratio:.2%} missed, {was.changes} changes, {was.late_sends} late sends;"
                    f" foretold {told_s:6.0f} replica-s, {told_misses:.2%} missed\n       {''.join(map(str, was.wanted))}",
                    flush=True,
                )
        finally:
            fleet.target.down(Quiet())
    report(results, times.size, busy)
    return 0


def report(results: dict[str, tuple[Live, float, float]], requests: int, busy: float) -> None:
    (ours, ours_told, _), (theirs, theirs_told, _) = results["slo"], results["hpa"]
    real, told = (100 * (1 - a / b) for a, b in ((ours.cost_s, theirs.cost_s), (ours_told, theirs_told)))
    late = max(live.late_sends for live, _, _ in results.values()) / requests
    noisy = busy > 0.5 or late > 0.01
    difference = abs(real - told)

    def bench(name: str, value: float, unit: str, goal: str, *, ok: bool = True) -> None:
        print(f"BENCH {name} {value:.2f} {unit} goal {goal} {'noisy' if noisy else 'ok' if ok else 'short'}")

    bench("live_savings_real", real, "%_of_hpa", "none")
    bench("live_savings_foretold", told, "%_of_hpa", "none")
    bench("live_savings_difference", difference, "points", f"<={GOAL_POINTS:g}", ok=difference <= GOAL_POINTS)
    bench("live_missed", 100 * ours.missed_ratio, "%", "none")
    bench("live_late_sends", 100 * late, "%", "<=1", ok=late <= 0.01)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
