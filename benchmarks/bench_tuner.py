"""The tuner without a model: on NVIDIA's recorded grid, and on grids that the simulator makes with batches and delays.

    TRACES=folder python benchmarks/bench_tuner.py [--seeds 200]      recorded grid (when the folder has it), synthetic ones, held-out ones
    python benchmarks/bench_tuner.py --only held-out                  the grids of `_held_out.py` alone

A score is the true value of the chosen point over that of the best point under the limit (5 % tolerance on the limit), 0 when
nothing or something over the limit was chosen. Beside ours: random search and Optuna (if installed) at equal budgets; the best
point is found exhaustively.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import itertools
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from _held_out import SEED, Service, services

from deployctl.core import grid
from deployctl.core.demand import Demand, SizeShare, constant
from deployctl.core.profile import Interference, ServicePoint, ServiceProfile, StageProfile
from deployctl.core.servers import Role
from deployctl.core.serving import ServingConfig
from deployctl.core.simulate import Scenario, forecast
from deployctl.core.sizing import at_rate

BUDGET, TOLERANCE = 10, 1.05
GROWS_S = 10.0  # stands for a latency that depends on how long one watches
AXES: tuple[Role, ...] = ("instances", "max_batch", "queue_delay_s", "rate_rps")
RECORDING = "tuning_surface_resnet50_titanrtx.csv"
Draw = Callable[[int, np.random.Generator], tuple[float, float]]


class Surface:
    """Grid points, their true values and latencies, and a noisy measurement."""

    def __init__(self, name: str, points: Sequence[tuple[float, ...]], truth: np.ndarray, draw: Draw, roles: tuple[Role, ...]) -> None:
        self.name, self.points, self.truth, self.draw = name, list(points), truth, draw
        self.grid = grid.Grid(points=tuple(points), roles=roles)

    def best(self, limit: float | None) -> float:
        return float(self.truth[self.truth[:, 1] <= (limit or np.inf), 0].max())

    def limit(self) -> float:
        """A limit that is worth a search: half of the points whose queue does not grow without bound keep it."""
        return float(np.median(self.truth[self.truth[:, 1] < GROWS_S, 1]))

    def score(self, index: int | None, limit: float | None) -> float:
        if index is None or self.truth[index, 1] > (limit or np.inf) * TOLERANCE:
            return 0.0
        return float(self.truth[index, 0] / self.best(limit))


def cells_of(folder: Path) -> dict[tuple[float, ...], list[tuple[float, float]]]:
    """Throughput and p99 in seconds of every repeat, by (instances, clients); the nine batch limits are repeats because batching was off."""
    cells: dict[tuple[float, ...], list[tuple[float, float]]] = defaultdict(list)
    with (folder / RECORDING).open() as file:
        for row in csv.DictReader(file):
            key = (float(row["instance_count"]), float(row["client_concurrency"]))
            cells[key].append((float(row["throughput_ips"]), float(row["p99_ms"]) / 1e3))
    return cells


def recorded(folder: Path) -> Surface:
    """NVIDIA's recording, medians as the truth."""
    cells = cells_of(folder)
    points = sorted(cells)
    truth = np.array([np.median(cells[p], axis=0) for p in points])
    return Surface("recorded", points, truth, lambda i, rng: cells[points[i]][rng.integers(len(cells[points[i]]))], ("instances", "clients"))


# Shapes of service: seconds per batch and per item, what four instances slow each other by, cores they share (0: none to share).
SHAPES = {
    "even": (0.004, 0.001, 1.2, 0.0),
    "crowded": (0.001, 0.002, 2.5, 0.0),
    "batching": (0.012, 0.0002, 1.1, 0.0),
    "linear": (0.0002, 0.005, 1.05, 0.0),
    "one-device": (0.003, 0.0015, 4.0, 0.0),
    "two-cores": (0.004, 0.002, 1.0, 2.0),
}


def repeat_noise(folder: Path | None) -> np.ndarray:
    """Factors on (throughput, p99) between repeats of one cell of the recorded grid; without it 3 % of each."""
    if folder is None or not (folder / RECORDING).is_file():
        return 1 + 0.03 * np.random.default_rng(1).normal(size=(500, 2))
    return np.concatenate([np.array(rows) / np.median(rows, axis=0) for rows in cells_of(folder).values() if len(rows) > 2])


def synthetic(name: str, noise: np.ndarray) -> Surface:
    """Answered rate and p99 by (instances, batch limit, delay, offered rate) from the simulator; measurements differ by `noise`."""
    base_s, item_s, slowdown, cores = SHAPES[name]
    rows = [ServicePoint(batch=b, size=s, mean_s=(base_s + item_s * b) * s / 32, std_s=0.0, count=9) for s in (16, 64) for b in (1, 2, 4, 8, 16)]
    profile = ServiceProfile(
        stages=(StageProfile(model="m", points=tuple(rows)),),
        overhead_s=0.001,
        interference=(Interference(model="m", instances=4, slowdown_ratio=slowdown),),
        device="none",
        bundle="none",
        triton_version="none",
        cores=cores,
    )
    mix = (SizeShare(size=16, share_ratio=0.8), SizeShare(size=64, share_ratio=0.2))
    most = (cores if cores else 4 / slowdown) / (base_s / 16 + item_s)
    delays = (0.0, 0.002, 0.008)
    points = [(i, b, d, r) for i in (1.0, 2.0, 4.0) for b in (1.0, 4.0, 16.0) for d in delays for r in most * np.array([0.1, 0.2, 0.3, 0.45, 0.6])]
    table = simulated(profile, points, constant(1.0, mix=mix), {})

    def draw(index: int, rng: np.random.Generator) -> tuple[float, float]:
        factor = noise[rng.integers(len(noise))]
        return float(table[index, 0] * factor[0]), float(table[index, 1] * factor[1])

    return Surface(f"synthetic-{name}", [tuple(map(float, p)) for p in points], table, draw, AXES)


def simulated(profile: ServiceProfile, points: Sequence[tuple[float, ...]], demand: Demand, kept: dict[str, ServingConfig]) -> np.ndarray:
    """Answered rate and p99 of model `m` at each (instances, batch limit, delay, offered rate), (n, 2)."""
    truth = []
    for instances, batch, delay_s, rate in points:
        config = ServingConfig(max_batch=int(batch), queue_delay_s=delay_s if batch > 1 else 0.0, instances=int(instances))
        f = forecast(profile, {**kept, "m": config}, 1, at_rate(demand, float(rate)), seed=3, scenario=Scenario(requests=15_000))
        truth.append((f.throughput_rps, f.p99_s if f.p99_s is not None else GROWS_S))
    return np.array(truth)


def held_out(service: Service) -> Surface:
    """The same of a service that nothing was developed on."""
    points = list(itertools.product(map(float, service.instances), map(float, service.batches), service.delays_s, service.rates_rps))
    table = simulated(service.profile, points, service.demand, service.kept)
    return Surface(service.name, points, table, lambda i, rng: service.measured(float(table[i][0]), float(table[i][1]), rng), AXES)


def ours(s: Surface, limit: float | None, seed: int) -> tuple[int | None, int]:
    rng = np.random.default_rng(seed)
    history: list[grid.Measured] = []
    while isinstance(step := grid.propose_on_grid(history, s.grid, limit=limit, budget=BUDGET, seed=seed), grid.Ask):
        value, limited = s.draw(step.index, rng)
        history.append(grid.Measured(index=step.index, value=value, limited=limited))
    return step.index, len(history)


def by_chance(s: Surface, limit: float | None, seed: int) -> tuple[int | None, int]:
    rng = np.random.default_rng(seed + 100_000)
    seen = [(int(i), *s.draw(int(i), rng)) for i in rng.permutation(len(s.points))[:BUDGET]]
    fit = [row for row in seen if row[2] <= (limit or np.inf)]
    return (max(fit, key=lambda row: row[1])[0] if fit else None), BUDGET


def by_optuna(s: Surface, limit: float | None, seed: int) -> tuple[int | None, int]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rng, seen = np.random.default_rng(seed), []
    axes = [sorted({p[a] for p in s.points}) for a in range(len(s.points[0]))]

    def trial(t: object) -> float:
        point = tuple(t.suggest_categorical(f"a{i}", axis) for i, axis in enumerate(axes))  # type: ignore[attr-defined]
        index = s.points.index(point)
        value, limited = s.draw(index, rng)
        seen.append((index, value, limited))
        return value if limited <= (limit or np.inf) else -limited

    optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed)).optimize(trial, n_trials=BUDGET)
    fit = [row for row in seen if row[2] <= (limit or np.inf)]
    return (max(fit, key=lambda row: row[1])[0] if fit else None), BUDGET


def judge(s: Surface, limits: list[float | None], seeds: int) -> None:
    peers = {"random": by_chance} | ({"optuna": by_optuna} if importlib.util.find_spec("optuna") else {})
    for limit in limits:
        name = f"{s.name}-{'none' if limit is None else f'{limit * 1e3:.0f}ms'}"
        found = [ours(s, limit, seed) for seed in range(seeds)]
        scores, counts = [s.score(i, limit) for i, _ in found], [n for _, n in found]
        beside = {k: np.median([s.score(f(s, limit, seed)[0], limit) for seed in range(min(seeds, 50))]) for k, f in peers.items()}
        text = ", ".join(f"{k} {100 * v:.1f} %" for k, v in beside.items())
        print(f"  {name}: {len(s.points)} points, ours p10 {100 * np.quantile(scores, 0.1):.1f} %, {np.mean(counts):.1f} measurements; {text}")
        ok = np.median(scores) >= 0.97 and max(counts) <= BUDGET
        print(f"BENCH tuner-{name} {100 * np.median(scores):.1f} % goal >=97 {'ok' if ok else 'short'}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--traces", default=os.environ.get("TRACES", ""))
    parser.add_argument("--only", choices=["developed", "held-out"])
    words = parser.parse_args()
    if words.only != "held-out":
        developed(Path(words.traces) if words.traces else None, words.seeds)
    if words.only != "developed":
        print(f"  held-out grids (seed {SEED}): laws of service, axes, traffic and noise that the tuner was not developed on")
        for service in services():
            surface = held_out(service)
            judge(surface, [surface.limit(), None], words.seeds)


def developed(folder: Path | None, seeds: int) -> None:
    """The recording, and the shapes that the tuner was developed on."""
    if folder and (folder / RECORDING).is_file():
        judge(recorded(folder), [0.010, 0.020, 0.030, 0.050, None], seeds)
    else:
        print("  the recorded grid is not in TRACES; only synthetic grids are judged")
    noise = repeat_noise(folder)
    for name in SHAPES:
        surface = synthetic(name, noise)
        judge(surface, [surface.limit(), None], seeds)


if __name__ == "__main__":
    main()
