"""Grids that no part of the tuner was developed on: other laws of service, axes, traffic and noise, drawn from a fixed seed.

They were written after `core/grid.py` and `core/servers.py` were done, and are run to report, not to improve: whoever changes the tuner by what
they show must draw new ones (another SEED) and say so in docs/not-proven-here.md. Refuses to know how a grid is searched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from deployctl.core.demand import Demand, SizeShare, constant
from deployctl.core.profile import Interference, ServicePoint, ServiceProfile, StageProfile
from deployctl.core.serving import ServingConfig

SEED = 20_261_125
DRAWS = 2  # grids of each family
SPOILT_RATIO = 0.04  # of the measurements: the tail comes out half as long again
BATCHES = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32])


@dataclass(frozen=True)
class Service:
    """One drawn service and the grid that it is tuned on."""

    name: str
    profile: ServiceProfile
    demand: Demand
    kept: dict[str, ServingConfig]
    instances: tuple[int, ...]
    batches: tuple[int, ...]
    delays_s: tuple[float, ...]
    rates_rps: tuple[float, ...]
    noise: tuple[float, float]

    def measured(self, value: float, limited: float, rng: np.random.Generator) -> tuple[float, float]:
        """One measurement: log-normal errors of both, and now and then a tail that something else lengthened."""
        spoilt = 1.5 if rng.random() < SPOILT_RATIO else 1.0
        return value * float(np.exp(self.noise[0] * rng.normal())), limited * float(np.exp(self.noise[1] * rng.normal())) * spoilt


def tiles(rng: np.random.Generator) -> np.ndarray:
    """Batches are padded to tiles of four or eight: time goes up in steps."""
    tile = rng.choice([4, 8])
    base, step = np.exp(rng.uniform(np.log([0.001, 0.002]), np.log([0.008, 0.012])))
    return np.asarray(base + step * np.ceil(BATCHES / tile))


def spill(rng: np.random.Generator) -> np.ndarray:
    """Beyond some batch its data leaves a cache and each further item costs three times as much."""
    edge = rng.choice([6, 12])
    base, item = np.exp(rng.uniform(np.log([0.001, 0.0004]), np.log([0.010, 0.003])))
    return np.asarray(base + item * (BATCHES + 2 * np.maximum(BATCHES - edge, 0)))


def power(rng: np.random.Generator) -> np.ndarray:
    """Time grows as a power of the batch, below one."""
    base, exponent = np.exp(rng.uniform(np.log(0.002), np.log(0.012))), rng.uniform(0.3, 0.8)
    return np.asarray(base * BATCHES**exponent)


def memory_bound(rng: np.random.Generator) -> np.ndarray:
    """Flat until the arithmetic takes longer than the loading of weights."""
    flat, item = np.exp(rng.uniform(np.log([0.004, 0.0003]), np.log([0.015, 0.0015])))
    return np.asarray(np.maximum(flat, item * BATCHES))


FAMILIES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {"tiles": tiles, "spill": spill, "power": power, "memory-bound": memory_bound}


def services() -> list[Service]:
    """All held-out services: each family alone and, in every second draw, behind a slow first stage, with burstier arrivals."""
    rng = np.random.default_rng(SEED)
    return [_service(f"held-out-{name}-{i + 1}", law(rng), staged=i % 2 == 1, rng=rng) for name, law in FAMILIES.items() for i in range(DRAWS)]


def _service(name: str, seconds: np.ndarray, *, staged: bool, rng: np.random.Generator) -> Service:
    sizes = (8, 40, 120)
    shares = rng.dirichlet([4.0, 2.0, 1.0])
    growth = rng.uniform(0.2, 1.0)  # how service time grows with the size
    spread = rng.uniform(0.02, 0.15)
    factor = {s: (s / sizes[0]) ** growth / 2 for s in sizes}
    points = [_point(int(b), s, float(t) * factor[s], spread) for s in sizes for b, t in zip(BATCHES, seconds, strict=True)]
    first = [_point(b, s, 0.0004 * (1 + b / 4) * factor[s], spread) for s in sizes for b in (1, 8)]
    stages = (StageProfile(model="first", points=tuple(first)),) if staged else ()
    cores = float(rng.choice([0, 0, 3]))
    each = rng.uniform(0.02, 0.35)  # what a further instance slows the others by
    profile = ServiceProfile(
        stages=(*stages, StageProfile(model="m", points=tuple(points))),
        overhead_s=0.0006,
        interference=tuple(Interference(model="m", instances=k, slowdown_ratio=float(1 + (k - 1) * each)) for k in (3, 6)),
        device="none",
        bundle="none",
        triton_version="none",
        cores=cores,
    )
    mix = tuple(SizeShare(size=s, share_ratio=float(p)) for s, p in zip(sizes, shares, strict=True))
    mean = sum(factor[s] * float(p) for s, p in zip(sizes, shares, strict=True))
    most = (cores or 3.0) / (mean * float(np.min(seconds / BATCHES)))
    traffic = constant(1.0, mix=mix)
    return Service(
        name=name,
        profile=profile,
        demand=replace(traffic, arrivals="gamma", cv=2.0) if staged else traffic,
        kept={"first": ServingConfig(max_batch=8)} if staged else {},
        instances=(1, 2, 3, 6),
        batches=(1, 2, 8, 32),
        delays_s=(0.0, 0.001, 0.02),
        rates_rps=tuple(float(most * r) for r in (0.06, 0.12, 0.25, 0.4, 0.55)),
        noise=(float(rng.uniform(0.01, 0.04)), float(rng.uniform(0.03, 0.10))),
    )


def _point(batch: int, size: int, mean_s: float, spread: float) -> ServicePoint:
    return ServicePoint(batch=batch, size=size, mean_s=mean_s, std_s=spread * mean_s, count=50)
