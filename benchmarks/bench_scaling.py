"""Policies on recorded days: cost over the clairvoyant minimum, beside the best HPA settings in hindsight, KEDA and KPA.

    TRACES=FOLDER python benchmarks/bench_scaling.py [--start-up 30 --start-up 120 --start-up 300] [--only NAME] [--group NAME]

TRACES holds the files named in DAYS. Every trace is multiplied so that its judged day has a mean of 256 req/s; a replica
serves 40 req/s, a request may wait one second, what would wait longer is refused (the same for every policy). Where the
source has earlier days, policies run through up to two of them first and are not judged on them. HPA settings are searched in the fluid
model with knowledge of the day; the three cheapest that keep the promise are replayed with the real algorithm. The busiest
hour of ours and of the best HPA is then simulated request by request.

DEVELOPMENT are the days on which the policy's settings were chosen; they are measured with `--group development` only. HELD_OUT are days
that no setting was chosen on: the fair check, with ours and the best HPA in hindsight only. No day of these two is among the first two groups.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _hindsight import best_envelope, best_hpa

from deployctl.core import bound, traces
from deployctl.core import replay as core
from deployctl.core.admission import admission
from deployctl.core.demand import Demand, RateStep
from deployctl.core.fluid import Plant
from deployctl.core.profile import ColdStart, ServicePoint, ServiceProfile, StageProfile
from deployctl.core.serving import ServingConfig
from deployctl.core.simulate import Scenario, simulate
from deployctl.core.traces import Trace
from deployctl.report.replay import node_hours

MEAN_RPS, CAPACITY_RPS, DAY = 256.0, 40.0, 86_400
HISTORY = 2 * DAY
NODES: dict[str, Any] = {"per_node": 4, "node_start_s": 180.0, "node_removal_s": 600.0}
Rows = list[dict[str, str]]


def rows(folder: Path, name: str) -> Rows:
    data = (folder / name).read_bytes()
    text = gzip.decompress(data).decode() if name.endswith(".gz") else data.decode()
    return list(csv.DictReader(io.StringIO(text)))


def scaled(name: str, rate: np.ndarray, history: int, *, seed: int = 1) -> Trace:
    rate = traces.scale_to(rate, MEAN_RPS, over=slice(history, None))
    return Trace(name=name, arrivals=traces.poisson(rate, seed=seed), resolution_s=60.0, history_s=history)


def worldcup(day: str | None = None) -> Callable[[Path], Trace]:
    """One day of the World Cup's web site; None is the busiest."""

    def read(folder: Path) -> Trace:
        table = rows(folder, "worldcup98_per_minute_day01-49.csv")
        days: dict[str, float] = {}
        for row in table:
            days[row["minute"][:10]] = days.get(row["minute"][:10], 0.0) + float(row["requests"])
        chosen = np.datetime64(day or max(days, key=lambda d: days[d]))
        minutes = np.array([np.datetime64(row["minute"].replace(" ", "T")) for row in table])
        at = ((minutes - (chosen - np.timedelta64(2, "D"))) / np.timedelta64(1, "m")).astype(int)
        counts = np.zeros(3 * 1440)
        inside = (at >= 0) & (at < counts.size)
        counts[at[inside]] = np.array([float(row["requests"]) for row in table])[inside]
        return scaled("worldcup", traces.spread(counts / 60, per_s=60.0), HISTORY)

    return read


def azure(column: str, *, last_day: int = 12) -> Callable[[Path], Trace]:
    """A function on one of the recorded days (8 to 12), after the two before it."""

    def read(folder: Path) -> Trace:
        first = (last_day - 10) * 1440
        table = rows(folder, "azure_functions_2019_per_minute_8fn_5d.csv")[first : first + 3 * 1440]
        counts = np.array([float(row[column]) for row in table])
        return scaled(column, traces.spread(counts / 60, per_s=60.0), HISTORY)

    return read


def steadiest_azure(folder: Path) -> Trace:
    table = rows(folder, "azure_functions_2019_per_minute_8fn_5d.csv")
    names = [n for n in table[0] if n not in ("day", "minute")]
    spread = {n: np.std(c) / np.mean(c) for n in names for c in [np.array([float(row[n]) for row in table])]}
    return azure(min(spread, key=lambda n: spread[n]))(folder)


def five_minutes(file: str, first_day: int) -> Callable[[Path], Trace]:
    """Three days of a NAB series of five-minute counts, linear between bin centres."""

    def read(folder: Path) -> Trace:
        counts = np.array([float(row["value"]) for row in rows(folder, file)])[first_day * 288 : (first_day + 3) * 288]
        return scaled(file, traces.spread(counts / 300, per_s=300.0, within="linear"), HISTORY)

    return read


def servegen(judged_day: int) -> Callable[[Path], Trace]:
    """A day (from 1) and the one before it, regenerated for each client and window with its own inter-arrival spread."""

    def read(folder: Path) -> Trace:
        first, last = (judged_day - 1) * DAY, (judged_day + 1) * DAY
        table = [row for row in rows(folder, "servegen_m-small_top15.csv.gz") if first <= float(row["t_s"]) < last]
        day = [float(row["rate_rps"]) for row in table if float(row["t_s"]) >= judged_day * DAY]
        factor = MEAN_RPS / (sum(day) * 600 / DAY)
        rng, arrivals = np.random.default_rng(1), np.zeros(2 * DAY)
        for row in table:
            rate, cv, at = float(row["rate_rps"]) * factor, max(float(row["cv"]), 0.1), int(float(row["t_s"])) - first
            if rate <= 0:
                continue
            shape = 1 / cv**2
            times = np.cumsum(rng.gamma(shape, 1 / (rate * shape), size=int(rate * 900 + 50 * max(cv, 1) ** 2 + 100)))
            arrivals[at : at + 600] += np.bincount(times[times < 600].astype(int), minlength=600)[:600]
        return Trace(name="servegen", arrivals=arrivals, history_s=DAY)

    return read


def single(name: str, file: str, column: str) -> Callable[[Path], Trace]:
    def read(folder: Path) -> Trace:
        found = traces.parse((folder / file).read_text(), column=column, per_s=None, name=name)
        return Trace(name=name, arrivals=found.arrivals * (MEAN_RPS / found.mean_rps))

    return read


def invocations(folder: Path) -> Trace:
    """The 199 invocations (20 minutes) of the Azure Functions 2021 sample: each stands for hundreds of requests in one second."""
    table = rows(folder, "azure_functions_2021_200inv.csv")
    begun = np.array([float(row["end_timestamp"]) - float(row["duration"]) for row in table])
    counts = np.bincount(np.maximum(begun, 0.0).astype(int)).astype(float)
    return Trace(name="azure_2021", arrivals=traces.scale_to(counts, MEAN_RPS))


ELB = "nab_elb_request_count_5min.csv"
SMOOTH: dict[str, Callable[[Path], Trace]] = {
    "worldcup": worldcup(),
    "servegen": servegen(1),
    "nab_elb": five_minutes(ELB, 2),
    "azure_steadiest": steadiest_azure,
}
SPIKY: dict[str, Callable[[Path], Trace]] = {
    "f_d0bc823a": azure("f_d0bc823a"),
    "f_01f168c5": azure("f_01f168c5"),
    "azure_llm_code": single("azure_llm_code", "azure_llm_2023_code.csv", "TIMESTAMP"),
    "mooncake": single("mooncake", "mooncake_conversation.csv", "timestamp_ms"),
}


HELD_OUT: dict[str, Callable[[Path], Trace]] = {
    "worldcup_06-08": worldcup("1998-06-08"),
    "worldcup_05-12": worldcup("1998-05-12"),
    "servegen_day_9": servegen(9),
    "nab_elb_late": five_minutes(ELB, 10),
    "twitter_amzn_10": five_minutes("nab_twitter_volume_AMZN_5min.csv", 10),
    "twitter_amzn_30": five_minutes("nab_twitter_volume_AMZN_5min.csv", 30),
    "f_e0bcfea2": azure("f_e0bcfea2"),
    "f_e3207d8e": azure("f_e3207d8e"),
    "azure_2021_sample": invocations,
}


def twitter(name: str, first_day: int) -> Callable[[Path], Trace]:
    return five_minutes(f"nab_twitter_volume_{name}_5min.csv", first_day)


DEVELOPMENT: dict[str, Callable[[Path], Trace]] = {
    **{f"worldcup_{day}": worldcup(f"1998-{day}") for day in ("05-20", "05-28", "06-03", "06-11")},
    **{f"servegen_day_{day}": servegen(day) for day in (4, 6, 12)},
    **{f"nab_elb_{day}": five_minutes(ELB, day) for day in (5, 7)},
    **{f"twitter_{name.lower()}_{day}": twitter(name, day) for name, day in (("GOOG", 5), ("GOOG", 25), ("UPS", 8), ("UPS", 33), ("AMZN", 20))},
    **{f"{name}_day_11": azure(name, last_day=11) for name in ("f_12f4b1fc", "f_33c62168", "f_41d5874c", "f_c531d4a6")},
}
GROUPS = {"smooth": SMOOTH, "spiky": SPIKY, "held_out": HELD_OUT, "development": DEVELOPMENT}


def simulated_misses(run: core.Run, trace: Trace, plant: Plant) -> float:
    """Share of late or refused requests of the busiest hour, request by request, behind the replicas that the run asked for.

    One request at a time, 95 % of the time that the capacity allows each; the queue policy refuses what would wait too long.
    """
    hours = np.cumsum(np.concatenate([[0.0], trace.arrivals]))
    first = trace.history_s + int(np.argmax(hours[trace.history_s + 3600 :] - hours[trace.history_s : -3600])) if trace.duration_s > 3600 else 0
    counts = trace.arrivals[first : first + 3600]
    rng = np.random.default_rng(2)
    times = np.repeat(np.arange(counts.size), counts.astype(int)) + rng.random(int(counts.astype(int).sum()))
    wanted = run.flow.wanted[first : first + 3600]
    steps = [(float(t), int(wanted[t])) for t in range(wanted.size) if t == 0 or wanted[t] != wanted[t - 1]]
    service_s = 0.95 / plant.capacity_rps
    stage = StageProfile(model="m", points=(ServicePoint(batch=1, size=1, mean_s=service_s, std_s=0.0, count=1),))
    profile = ServiceProfile(stages=(stage,), overhead_s=0.0, device="none", bundle="none", triton_version="none")
    queue = admission(plant.wait_s + service_s, full_batch_s=service_s, max_batch=1, instances=1)
    assert queue is not None
    config = {"m": ServingConfig(max_batch=1, queue_size=queue.queue_size, queue_timeout_s=queue.queue_timeout_s)}
    demand = Demand(steps=(RateStep(start_s=0.0, rate_rps=float(counts.mean())),), arrivals="trace", times_s=tuple(np.sort(times).tolist()))
    scenario = Scenario(schedule=tuple(steps), start=ColdStart(process_s=float(plant.start_up_s)))
    result = simulate(profile, config, int(wanted.max()), demand, seed=3, scenario=scenario)
    return float(np.mean(np.isnan(result.latency_s) | (result.latency_s > plant.wait_s + service_s)))


def measure(name: str, trace: Trace, start_up_s: int, *, peers: tuple[str, ...]) -> dict[str, float]:
    """Ours, the best HPA and some peers on one day; prints the table and returns what the summary needs."""
    plant = Plant(capacity_rps=CAPACITY_RPS, start_up_s=start_up_s)
    began = time.process_time()
    least = core.yardstick(trace, plant)
    runs: list[core.Run | None] = [core.replay(trace, plant, core.peer("slo", plant)), best_hpa(trace, plant)]
    runs += [core.replay(trace, plant, core.peer(peer, plant)) for peer in peers]
    print(
        f"\n{name}, start-up {start_up_s} s: minimum {least.clairvoyant_s / 3600:.1f} replica-hours"
        f" ({least.waiting_s / 3600:.1f} with waiting), without foresight {told(least)}; {time.process_time() - began:.0f} s CPU"
    )
    print(f"  {'policy':24} {'hours':>9} {'x min':>6} {'missed':>8} {'windows':>8} {'breach':>7} {'starts':>7}  kept")
    for run in runs:
        if run is None:
            print(f"  {'hpa, best in hindsight':24} no setting keeps the promise")
            continue
        o = run.outcome
        hour = f"  busiest hour, simulated: {simulated_misses(run, trace, plant):.2%} missed" if run in runs[:2] and peers else ""
        print(
            f"  {run.policy:24} {o.cost_s / 3600:9.1f} {least.regret(o):6.2f} {o.miss_ratio:8.2%} {o.windows_ok_ratio:8.2%}"
            f" {o.longest_breach_s:6.0f}s {o.starts:7d}  {'yes' if run.keeps() else 'no'}{hour}"
            + (
                f"  [{run.settings.target / CAPACITY_RPS:.2f}, {run.settings.scale_down_window_s:.0f} s, min {run.settings.min_replicas}]"
                if run is runs[1]
                else ""
            )
        )
    envelope = best_envelope(trace, plant)
    if envelope:
        print(f"  {'one envelope, hindsight':24} {envelope.outcome.cost_s / 3600:9.1f} {least.regret(envelope.outcome):6.2f}  {envelope.name}")
    else:
        print(f"  {'one envelope, hindsight':24} none keeps the promise")
    slo, hpa = runs[0], runs[1]
    assert slo is not None
    nodes = bound.node_bound(trace.judged, capacity_rps=CAPACITY_RPS, start_up_s=float(start_up_s), miss_ratio=core.MISS_RATIO, **NODES)
    packed = [f"{run.policy} {node_hours(run, **NODES):.1f}" for run in (slo, hpa) if run]
    print(f"  node-hours (4 replicas a node, 180 s to come, 600 s to go): {', '.join(packed)}, minimum {nodes.cost_s / 3600:.1f}", flush=True)
    return {
        "regret": least.regret(slo.outcome),
        "regret_waiting": slo.outcome.cost_s / least.waiting_s,
        "regret_unforeseen": least.unforeseen.cost_s / least.clairvoyant_s,
        "kept": float(slo.keeps()),
        "over_hpa": slo.outcome.cost_s / hpa.outcome.cost_s if hpa else math.nan,
        "over_envelope": slo.outcome.cost_s / envelope.outcome.cost_s if envelope else math.nan,
        "can_react": float(least.can_react),
        "of_unforeseen": of_unforeseen(least, slo),
    }


def told(least: core.Yardstick) -> str:
    """The bound without foresight in replica-hours, or the best that can be kept."""
    if least.can_react:
        return f"{least.unforeseen.cost_s / 3600:.1f}"
    return f"none: at best {least.unforeseen.least_miss_ratio:.2%} missed, {1 - least.unforeseen.least_broken_ratio:.2%} of windows kept"


def of_unforeseen(least: core.Yardstick, run: core.Run) -> float:
    """How much of what is possible without foresight was reached: of the cost, or of requests and windows where the promise cannot be kept."""
    best = least.unforeseen
    if least.can_react:
        return best.cost_s / run.outcome.cost_s
    requests = (1 - run.outcome.miss_ratio) / (1 - best.least_miss_ratio)
    return min(requests, run.outcome.windows_ok_ratio / (1 - best.least_broken_ratio))


def bench(name: str, value: float, unit: str, goal: str, *, ok: bool) -> None:
    print(f"BENCH {name} {value:.3f} {unit} goal {goal} {'ok' if ok else 'short'}")


GOALS: dict[tuple[str, int], float] = {("smooth", 30): 1.20, ("smooth", 120): 1.30}


def geomean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def summary(results: dict[tuple[str, str, int], dict[str, float]]) -> None:
    print("\nregret of the no-foresight bound is the least that a scaler can pay that asks for replicas only once it sees the load")
    for kind, start_up_s in sorted({(kind, d) for kind, _, d in results}, key=lambda pair: (pair[1], pair[0])):
        days = [r for (k, _, d), r in results.items() if (k, d) == (kind, start_up_s)]
        name, over = f"scaling_{kind}_{start_up_s}s", [r["over_hpa"] for r in days if not math.isnan(r["over_hpa"])]
        mean, goal = geomean([r["regret"] for r in days]), GOALS.get((kind, start_up_s))
        bench(f"{name}_geomean", mean, "x_minimum", f"<={goal}" if goal else "none", ok=goal is None or mean <= goal)
        bench(f"{name}_no_foresight_geomean", geomean([r["regret_unforeseen"] for r in days]), "x_minimum", "none", ok=True)
        bench(f"{name}_geomean_if_all_may_wait", geomean([r["regret_waiting"] for r in days]), "x_minimum", "none", ok=True)
        if kind == "spiky":
            worst = max(r["regret"] for r in days)
            bench(f"{name}_worst", worst, "x_minimum", "<=2.0", ok=worst <= 2.0)
        share = min(r["of_unforeseen"] for r in days)
        bench(f"{name}_least_share_of_no_foresight", share, "ratio", ">=0.90", ok=share >= 0.90)
        bench(f"{name}_days_a_reactive_scaler_can_keep", sum(r["can_react"] for r in days), f"of_{len(days)}", "none", ok=True)
        limit = 0.70 if kind == "spiky" else 1.03
        if over:
            bench(f"{name}_worst_over_best_hpa", max(over), "ratio", f"<={limit:.2f}", ok=max(over) <= limit)
            bench(f"{name}_geomean_over_best_hpa", geomean(over), f"ratio_of_{len(over)}", "none", ok=True)
        chosen = [r["over_envelope"] for r in days if not math.isnan(r["over_envelope"])]
        if chosen:
            bench(f"{name}_geomean_over_best_envelope", geomean(chosen), f"ratio_of_{len(chosen)}", "none", ok=True)
        kept = sum(r["kept"] for r in days)
        bench(f"{name}_days_kept", kept, f"of_{len(days)}", f"={len(days)}", ok=kept == len(days))
        bench(f"{name}_days_a_hindsight_hpa_keeps", len(over), f"of_{len(days)}", "none", ok=True)


def main(words: list[str]) -> int:
    folder = os.environ.get("TRACES")
    if not folder or not Path(folder).is_dir():
        print("TRACES does not name a folder with traces: nothing was measured", file=sys.stderr)
        return 2
    chosen = [int(words[i + 1]) for i, w in enumerate(words) if w == "--start-up"] or [30, 120, 300]
    only = [words[i + 1] for i, w in enumerate(words) if w == "--only"]
    groups = [words[i + 1] for i, w in enumerate(words) if w == "--group"] or ["smooth", "spiky", "held_out"]
    results = {}
    for start_up_s in chosen:
        for kind in groups:
            for name, read in GROUPS[kind].items():
                if not only or name in only:
                    peers = ("hpa", "keda", "kpa", "llmd") if kind in ("smooth", "spiky") else ()
                    results[kind, name, start_up_s] = measure(name, read(Path(folder)), start_up_s, peers=peers)
    summary(results)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
