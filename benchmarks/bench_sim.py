"""The simulator: how fast, and how exact. Prints BENCH lines; times are CPU times of one core.

python benchmarks/bench_sim.py            the full counts (a minute or two)
python benchmarks/bench_sim.py --quick    a tenth of them
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "contract"))

from deployctl.core import _station_kernel, queueing, replay, traces
from deployctl.core.autoscaled import Subject, simulate_policy
from deployctl.core.demand import SizeShare, constant
from deployctl.core.fluid import Plant
from deployctl.core.profile import Interference, ServicePoint, ServiceProfile, StageProfile
from deployctl.core.serving import ServingConfig
from deployctl.core.simulate import Scenario, simulate

MIX = tuple(SizeShare(size=s, share_ratio=r) for s, r in ((16, 0.6), (32, 0.3), (64, 0.1)))
DAY_S = 86_400.0


def bench(name: str, value: float, unit: str, goal: str, ok: bool) -> None:  # noqa: FBT001
    print(f"BENCH {name} {value:.4g} {unit} goal {goal} {'ok' if ok else 'short'}", flush=True)


def profile(*stages: StageProfile, **more: object) -> ServiceProfile:
    facts = {"overhead_s": 0.0, "device": "none", "bundle": "none", "triton_version": "none"} | more
    return ServiceProfile(stages=stages, **facts)  # type: ignore[arg-type]


def stage(
    base_s: float, item_s: float, *, sizes: tuple[int, ...] = (1,), batches: tuple[int, ...] = (1, 8), cv: float = 0.0, model: str = "m"
) -> StageProfile:
    points = [
        ServicePoint(batch=b, size=s, mean_s=(base_s + item_s * b) * s / sizes[0], std_s=cv * (base_s + item_s * b) * s / sizes[0], count=9)
        for s in sizes
        for b in batches
    ]
    return StageProfile(model=model, points=tuple(points))


def four_instances(sizes: tuple[int, ...] = (16, 32, 64)) -> ServiceProfile:
    return profile(stage(0.004, 0.001, sizes=sizes, cv=0.1), interference=(Interference(model="m", instances=4, slowdown_ratio=1.3),))


def compile_seconds() -> float:
    """Wall seconds of a first simulation in a fresh process with an empty cache."""
    code = "from deployctl.core import simulate; simulate.warm()"
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        subprocess.run([sys.executable, "-c", code], env={"NUMBA_CACHE_DIR": folder, "PATH": ""}, check=True)
        return time.monotonic() - begun


def speed(requests: int) -> None:
    config = {"m": ServingConfig(max_batch=8, queue_delay_s=0.002, instances=4)}
    p, demand = four_instances(), constant(400.0, mix=MIX)
    simulate(p, config, 1, demand, seed=1, scenario=Scenario(requests=2000))
    rates = []
    for seed in range(3):
        begun = time.process_time()
        run = simulate(p, config, 1, demand, seed=seed, scenario=Scenario(requests=requests))
        rates.append(run.latency_s.size / (time.process_time() - begun))
    bench("sim-speed", max(rates) / 1e6, "M-requests/s", ">=5", max(rates) >= 5e6)
    stages = (stage(0.0002, 0.0001, sizes=(16, 64), model="tok"), stage(0.001, 0.001, sizes=(16, 32, 64), cv=0.1))
    shared = profile(*stages, cores=1.0, request_cpu_s=0.0005)
    begun = time.process_time()
    run = simulate(shared, {"m": ServingConfig(max_batch=8)}, 1, constant(60.0, mix=MIX), seed=1, scenario=Scenario(requests=requests // 5))
    bench("sim-speed-ensemble-shared-core", run.latency_s.size / (time.process_time() - begun) / 1e6, "M-requests/s", ">=1", True)
    begun = time.process_time()
    simulate(p, config, 1, constant(256.0, mix=MIX), seed=1, scenario=Scenario(duration_s=DAY_S))
    day = time.process_time() - begun
    bench("sim-day-at-256-rps", day, "s-cpu", "<=5", day <= 5)
    autoscaled_speed()
    seconds = compile_seconds()
    bench("sim-compile", seconds, "s-wall", "<=30", seconds <= 30)


def autoscaled_speed() -> None:
    """An hour of swinging load with our policy in the loop, up to twenty replicas: every request followed, decisions every 15 s."""
    plant = Plant(capacity_rps=40.0, start_up_s=30)
    trace = traces.Trace(name="swing", arrivals=traces.poisson(256.0 + 150.0 * np.sin(np.arange(3600) / 400), seed=1))
    subject = Subject(profile=profile(stage(0.02, 0.003)), config={"m": ServingConfig(max_batch=1)}, limit_s=1.0, most=20)
    begun = time.process_time()
    found = simulate_policy(trace, plant, replay.peer("slo", plant), subject, seed=1)
    rate = found.latency_s.size / (time.process_time() - begun) / 1e6
    bench("sim-speed-policy-in-the-loop", rate, "M-requests/s", "none", True)


def interval(values: np.ndarray, level: float = 2.68, batches: int = 50) -> tuple[float, float, float]:
    means = np.array([b.mean() for b in np.array_split(values, batches)])
    half = level * means.std(ddof=1) / np.sqrt(batches)
    return float(means.mean()), float(means.mean() - half), float(means.mean() + half)


def exactness(requests: int) -> None:
    """Formulas inside the 99 % interval by batch means, at 70 % load."""
    cases = [
        ("mm1", 1, 1.0, queueing.mm1_wait_s(0.7, 1.0)),
        ("md1", 1, 0.0, queueing.md1_wait_s(0.7, 1.0)),
        ("mg1", 1, 0.6, queueing.mg1_wait_s(0.7, 1.0, 0.6)),
        ("mmc", 4, 1.0, queueing.mmc_wait_s(4, 2.8, 1.0)),
    ]
    for i, (name, servers, cv, exact) in enumerate(cases):
        one = stage(0.0, 1.0, batches=(1,), cv=cv)
        p = profile(one, interference=(Interference(model="m", instances=servers, slowdown_ratio=1.0),))
        config = {"m": ServingConfig(max_batch=1, instances=servers)}
        run = simulate(p, config, 1, constant(0.7 * servers), seed=100 + i, scenario=Scenario(requests=requests))
        mean, low, high = interval(run.latency_s[requests // 50 :] - 1.0)
        print(f"  {name}: {run.latency_s.size / 1e6:.1f} M arrivals, wait {mean:.5f} in [{low:.5f}, {high:.5f}], exact {exact:.5f}")
        bench(f"sim-exact-{name}", 100 * abs(mean / exact - 1), "%", "inside the 99 % interval", low <= exact <= high)


def inoue(requests: int) -> None:
    """A batch server against its exact Markov chain, and Inoue's bound against both, for 40 combinations.

    The bound is one: it lies above the exact mean, by most where its two halves cross, whatever the simulator does.
    """
    from batch_chain import mean_s

    bounds, loose, outside = [], [], 0
    for base_s in (0.001, 0.002, 0.004, 0.010, 0.030):
        p = profile(stage(base_s, 0.001, batches=(1, 1024)))
        for load in (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9):
            rate = load / 0.001
            run = simulate(p, {"m": ServingConfig(max_batch=1024)}, 1, constant(rate), seed=3, scenario=Scenario(requests=requests))
            mean, bound, exact = float(run.latency_s.mean()), queueing.inoue_bound_s(rate, base_s, 0.001), mean_s(rate, base_s, 0.001)
            bounds.append(bound / mean - 1)
            loose.append(bound / exact - 1)
            _, least, most = interval(run.latency_s[requests // 50 :], level=4.0)  # 99 % over all of the forty together
            outside += not least <= exact <= most
    low, high, middle = (100 * float(f(bounds)) for f in (min, max, np.median))
    print(f"  Inoue's bound over simulation: {low:+.1f} to {high:+.1f} %, median {middle:+.1f} %; over the chain up to {100 * max(loose):+.1f} %")
    bench("sim-batch-chain-outside", outside, "of-40", "0", outside == 0)
    bench("sim-inoue-worst", 100 * max(bounds), "%", "+7/-2", max(bounds) <= 0.07 and min(bounds) >= -0.02)


def peers(requests: int) -> None:
    """The same small model in SimPy (request by request) and the speed ratio to SimPy and Ciw."""
    from test_forecast_methods import by_simpy

    rng = np.random.default_rng(7)
    at_s, size = np.cumsum(rng.exponential(1 / 350.0, requests)), rng.integers(0, 2, requests)
    mean_s = (0.004 + 0.001 * np.arange(9))[:, None] * np.array([1.0, 1.7])
    rest = (1, 0, mean_s, np.zeros_like(mean_s), np.ones(3), at_s, size, np.zeros(4096), np.zeros(requests))
    whole, seconds = np.array([8, 2, 0]), np.array([0.003, 0.0, 0.0])
    begun = time.process_time()
    for _ in range(20):
        ours, _, _ = _station_kernel.run_station(whole, seconds, *rest)
    mine = (time.process_time() - begun) / 20
    begun = time.process_time()
    theirs = by_simpy(at_s, size, mean_s, max_batch=8, delay_s=0.003, instances=2)
    simpy_s = time.process_time() - begun
    difference = float(np.abs(ours - theirs).max())
    bench("sim-equals-simpy", difference, "s-largest-difference", "<=1e-6", difference <= 1e-6)
    bench("sim-over-simpy", simpy_s / mine, "x-faster", ">=100", simpy_s / mine >= 100)
    import ciw

    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Exponential(0.7)], service_distributions=[ciw.dists.Exponential(1.0)], number_of_servers=[1]
    )
    ciw.seed(1)
    simulation = ciw.Simulation(network)
    begun = time.process_time()
    simulation.simulate_until_max_customers(requests, method="Finish")
    ciw_s = time.process_time() - begun
    waits = np.array([r.waiting_time for r in simulation.get_all_records()])
    run = simulate(profile(stage(0.0, 1.0, batches=(1,), cv=1.0)), {}, 1, constant(0.7), seed=1, scenario=Scenario(requests=requests))
    _, low, high = interval(waits[requests // 20 :], batches=20)
    mean = float((run.latency_s[requests // 20 :] - 1.0).mean())
    print(f"  M/M/1 of {requests} requests: Ciw [{low:.2f}, {high:.2f}], ours {mean:.2f}, exact {queueing.mm1_wait_s(0.7, 1.0):.2f}")
    bench("sim-over-ciw", ciw_s / mine, "x-faster", ">=100", ciw_s / mine >= 100)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    scale = 10 if parser.parse_args().quick else 1
    speed(5_000_000 // scale)
    exactness(12_500_000 // scale)
    inoue(400_000 // scale)
    peers(20_000 // scale)


if __name__ == "__main__":
    main()
