"""The tuner on a real Triton: a grid measured once, the tuner's few probes of the same settings, and the best ones measured again.

    python benchmarks/bench_tuner_live.py                  a sleeping model, and the ensemble of ./demo where it is packaged
    … --project DIR                                        another packaged project than ./demo

A point is settings and clients; its value is what a closed loop of so many clients gets answered, its limit is the median of the grid's
p99 (5 % tolerance). One server stays up the whole time: settings change by loading the model again. At the end the grid's five best points and
the tuner's are measured five times, in turn, and compared by medians: one measurement each would crown the luckiest. The last lines
time `deployctl tune --fresh` on the same project.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "integration" / "triton"))

from deployctl import config
from deployctl.cli._console import ConsoleProgress
from deployctl.core import grid
from deployctl.core.planner import demand_for
from deployctl.core.serving import ServingConfig
from deployctl.flows._gather import sample_lines, sample_sizes
from deployctl.flows._probe import Bench, Probes, configure, probing, stage_models
from deployctl.flows.package import package
from deployctl.wiring import LazyToolbox

PROBES, REPEATS, SECONDS = 8, 5, 3.0
OTHERS_RATIO = 0.04
TOLERANCE = 1.05  # of the limit, as in `bench_tuner.py`
POINTS = tuple((float(i), float(b), float(c)) for i in (1, 2) for b in (1, 2, 4, 8) for c in (1, 4, 16))


class Bed:
    """One running server, a measurement of a point, and how much of its core others took."""

    def __init__(self, probes: Probes) -> None:
        self.probes = probes
        self.tunable = [m.name for m in stage_models(probes.bench.bundle) if m.tunable]
        self.lines = [line["inputs"] for line in sample_lines(probes.bench.tools, probes.bench.bundle)]
        self.others: list[float] = []
        self.now: tuple[float, float] | None = None

    def measure(self, index: int) -> tuple[float, float]:
        """Answered requests per second and their p99 in seconds."""
        instances, batch, clients = POINTS[index]
        if (instances, batch) != self.now:
            serving = ServingConfig(max_batch=int(batch), instances=int(instances), warmup_batches=())
            configure(self.probes, dict.fromkeys(self.tunable, serving))
            self.now = (instances, batch)
            self._loop(int(clients), 0.7)  # plans memory, warms caches
        launcher, server = self.probes.bench.tools.launcher, self.probes.server()
        begun, busy, used = time.monotonic(), launcher.busy_s(self.probes.bench.server_cpus), server.core_use().spent_s
        rate, late_s = self._loop(int(clients), SECONDS)
        others = launcher.busy_s(self.probes.bench.server_cpus) - busy - (server.core_use().spent_s - used)
        self.others.append(max(others, 0.0) / (time.monotonic() - begun))
        return rate, late_s

    def _loop(self, clients: int, seconds: float) -> tuple[float, float]:
        server, entry = self.probes.server(), self.probes.bench.bundle.entry
        turn, lock = itertools.cycle(self.lines), threading.Lock()
        end = time.monotonic() + seconds

        def client(_: int) -> list[float]:
            took = []
            while (begun := time.monotonic()) < end:
                with lock:
                    line = next(turn)
                server.infer(entry, line)
                took.append(time.monotonic() - begun)
            return took

        begun = time.monotonic()
        with ThreadPoolExecutor(clients) as pool:
            took = list(itertools.chain.from_iterable(pool.map(client, range(clients))))
        return len(took) / (time.monotonic() - begun), float(np.quantile(took, 0.99))


def tuned(measure: Callable[[int], tuple[float, float]], limit: float) -> tuple[int | None, int]:
    """The tuner's choice and how many measurements it took."""
    known = grid.Grid(points=POINTS, roles=("instances", "max_batch", "clients"))
    history: list[grid.Measured] = []
    while isinstance(step := grid.propose_on_grid(history, known, limit=limit, budget=PROBES, seed=1), grid.Ask):
        value, limited = measure(step.index)
        history.append(grid.Measured(index=step.index, value=value, limited=limited))
        print(f"    probe {len(history)}: {text(step.index)}: {value:.0f}/s, p99 {limited * 1e3:.0f} ms ({step.reason})", flush=True)
    return step.index, len(history)


def text(index: int) -> str:
    instances, batch, clients = POINTS[index]
    return f"{instances:g} instances, batch {batch:g}, {clients:g} clients"


def run_project(name: str, folder: Path) -> None:
    progress = ConsoleProgress()
    project, tools = config.load(folder), LazyToolbox(folder)
    bundle = package(project, tools, progress)
    cpus = tools.launcher.cpus()
    demand = demand_for(project, sample_sizes(tools, bundle))
    bench = Bench(tools=tools, progress=progress, bundle=bundle, demand=demand, limit_s=1.0, server_cpus=cpus[:1], client_cpus=cpus[1:2])
    own = os.sched_getaffinity(0)
    try:
        with probing(bench, fresh=True) as probes:
            pid = probes.server().pid
            os.sched_setaffinity(0, cpus[1:2] or cpus)
            bed = Bed(probes)
            once = np.array([bed.measure(i) for i in range(len(POINTS))])
            limit = float(np.median(once[:, 1]))
            begun = time.monotonic()
            chosen, probed = tuned(bed.measure, limit)
            seconds = time.monotonic() - begun
            judge(name, bed, once, limit, chosen)
            restarts = int(probes.server().pid != pid)
    finally:
        os.sched_setaffinity(0, own)
    report(f"tuner-live-{name}-probes", probed, "", f"<={PROBES}", probed <= PROBES)
    report(f"tuner-live-{name}-search-seconds", seconds, "s", "<=240", seconds <= 240)
    report(f"tuner-live-{name}-restarts", restarts, "", "0", restarts == 0)


def judge(name: str, bed: Bed, once: np.ndarray, limit: float, chosen: int | None) -> None:
    """The chosen point against the grid's five best that kept the limit, five times in turn, by medians."""
    kept = [int(i) for i in np.argsort(-once[:, 0]) if once[i, 1] <= limit][:5]
    rivals = [*kept, *([chosen] if chosen is not None and chosen not in kept else [])]
    bed.others.clear()
    again = np.array([[bed.measure(i) for i in rivals] for _ in range(REPEATS)])
    rate, late_s = dict(zip(rivals, np.median(again, axis=0)[:, 0], strict=True)), dict(zip(rivals, np.median(again, axis=0)[:, 1], strict=True))
    fit = [i for i in rivals if late_s[i] <= limit * TOLERANCE] or rivals
    best = max(fit, key=lambda i: rate[i])
    spread = float(np.median(again[:, :, 0].max(axis=0) / again[:, :, 0].min(axis=0) - 1))
    ratio = rate[chosen] / rate[best] if chosen in fit else 0.0
    others = float(np.median(bed.others))
    print(f"  {name}: limit {limit * 1e3:.0f} ms; best {text(best)}, {rate[best]:.0f}/s")
    print(f"  {name}: chosen {'nothing' if chosen is None else f'{text(chosen)}, {rate[chosen]:.0f}/s, p99 {late_s[chosen] * 1e3:.0f} ms'}")
    print(f"  {name}: repeats differ by {spread:.0%}; others took {others:.0%} of the server's core", flush=True)
    report(f"tuner-live-{name}", 100 * ratio, "%", ">=95", ratio >= 0.95, noisy=others > OTHERS_RATIO or spread > 0.10)


def tune_seconds(name: str, project: Path) -> None:
    """A fresh `deployctl tune` on the same project."""
    begun = time.monotonic()
    words = [str(Path(sys.executable).with_name("deployctl")), "-C", str(project), "tune", "--fresh", "-o", "json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - begun
    found: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
    if done.returncode:
        sys.stderr.write(done.stderr[-1500:])
    report(f"tuner-live-{name}-tune-seconds", seconds, "s", "<=240", seconds <= 240 and bool(found), noisy=os.getloadavg()[0] > 3.0)
    print(f"  {name}: deployctl tune ended with {done.returncode}; {found.get('probes', '-')} measured parts", flush=True)


def report(name: str, value: float, unit: str, goal: str, ok: bool, *, noisy: bool = False) -> None:  # noqa: FBT001
    print(f"BENCH {name} {value:.4g} {unit or 'count'} goal {goal} {'ok' if ok else 'noisy' if noisy else 'short'}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--project", type=Path)
    parser.add_argument("--only", choices=["sleep", "ensemble"])
    words = parser.parse_args()
    print(f"  load of this machine at the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if words.only != "ensemble":
        import sleep_project

        scratch = Path(tempfile.mkdtemp(prefix="tuner-live-"))
        try:
            run_project("sleep", sleep_project.write(scratch / "nap"))
            tune_seconds("sleep", scratch / "nap")
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    demo = words.project or Path(__file__).resolve().parents[1] / "demo"
    if words.only != "sleep" and (demo / "deploy.yaml").is_file():
        run_project("ensemble", demo)
        tune_seconds("ensemble", demo)
    elif words.only != "sleep":
        print("  the ensemble is not measured: no packaged project (run make demo, or name one with --project)")


if __name__ == "__main__":
    main()
