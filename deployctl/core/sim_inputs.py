"""What a simulation is fed with: a profile, settings and traffic enter; tables, unit noise and each request's size leave, as arrays.

Refuses to know how requests are served: `simulate.py` gives these arrays to the compiled loops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deployctl.core.demand import Demand
from deployctl.core.profile import ServiceProfile
from deployctl.core.profiling import ServiceTable, service_table, slowdowns
from deployctl.core.serving import ServingConfig

FloatArray = npt.NDArray[np.float64]
_NOISE_BITS = (12, 18)  # least and most draws of unit noise, as powers of two
RARE_RATIO = 0.001  # executions that are rarer than this cannot move a p99 whose misses are ten times as many


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tables:
    """Settings and service times of all stages, as the loops take them.

    Attributes:
        whole: [stage, MAX_BATCH …] whole numbers of the settings; seconds: [stage, DELAY_S …].
        mean_s, cv: service time and its relative spread [stage, batch, size].
        slowdown: of an execution by the number of busy instances [stage, instances].
        preferred: rows of preferred batch sizes by stage (`_preferred_kernel`).
        joins: by stage, whether a batch holds several sizes.
        unknown: what the profile did not know and had to be extended whatever happens.
        beyond: by stage, (largest measured batch, what to say) of tables that reach further.
    """

    whole: npt.NDArray[np.int64]
    seconds: FloatArray
    mean_s: FloatArray
    cv: FloatArray
    slowdown: FloatArray
    preferred: npt.NDArray[np.int64]
    joins: tuple[bool, ...]
    unknown: tuple[str, ...]
    beyond: tuple[tuple[tuple[int, str], ...], ...]


def tables_of(profile: ServiceProfile, config: Mapping[str, ServingConfig], demand: Demand) -> Tables:
    """The tables of a profile under these settings; a stage without settings serves one request at a time on one instance.

    Raises:
        ValueError: a stage was never measured.
    """
    sizes = sorted({share.size for share in demand.mix})
    weight = np.array([sum(s.share_ratio for s in demand.mix if s.size == size) for size in sizes])
    settings = [config.get(stage.model, ServingConfig(max_batch=1)) for stage in profile.stages]
    largest = max(s.max_batch for s in settings)
    stages = len(profile.stages)
    copies = max(s.instances for s in settings)
    mean_s, cv = np.zeros((stages, largest + 1, len(sizes))), np.zeros((stages, largest + 1, len(sizes)))
    slowdown = np.ones((stages, copies + 1))
    unknown: list[str] = []
    beyond = []
    for i, (stage, serving) in enumerate(zip(profile.stages, settings, strict=True)):
        table = service_table(stage, sizes, serving.max_batch)
        rows = slice(0, serving.max_batch + 1)
        mean_s[i, rows], cv[i, rows] = _joined(table, weight) if stage.joins_sizes else (table.mean_s, table.cv)
        beyond.append(table.beyond)
        texts = {text for _, text in table.beyond}
        unknown += [text for text in table.unknown if text not in texts]
        ratio, measured = slowdowns(profile, stage.model, serving.instances)
        slowdown[i, : serving.instances + 1] = ratio
        if not measured:
            unknown.append(f"{stage.model}: {serving.instances} instances at once")
    whole = np.array([[s.max_batch, s.instances, s.queue_size] for s in settings])
    modelled = profile.cores > 0
    seconds = np.array(
        [[s.queue_delay_s, s.queue_timeout_s, p.cpu_ratio if modelled else 0.0] for p, s in zip(profile.stages, settings, strict=True)]
    )
    joins = tuple(stage.joins_sizes for stage in profile.stages)
    return Tables(
        whole=whole,
        seconds=seconds,
        mean_s=mean_s,
        cv=cv,
        slowdown=slowdown,
        preferred=_preferred(settings, joins, largest),
        joins=joins,
        unknown=tuple(unknown),
        beyond=tuple(beyond),
    )


def _preferred(settings: Sequence[ServingConfig], joins: Sequence[bool], largest: int) -> npt.NDArray[np.int64]:
    """By stage: the largest preferred size (0: none matter), 1 at each of them, and whether its shapes are fixed.

    Triton's own preferred size, the largest batch, matters where shapes are fixed and a batch waits for mates: an arrival then does not
    wake the batcher thread, so a batch that was sent after the delay does not grow while it waits for an instance.
    """
    rows = np.zeros((len(settings), largest + 2), dtype=np.int64)
    for row, serving, fixed in zip(rows, settings, joins, strict=True):
        own = (serving.max_batch,) if fixed and serving.queue_delay_s > 0 and serving.max_batch > 1 else ()
        sizes = serving.named_batches or own
        row[list(sizes)] = 1
        row[0] = max(sizes, default=0)
        row[-1] = fixed
    return rows


def reached(tables: Tables, executed: npt.NDArray[np.int64]) -> tuple[str, ...]:
    """The extended batches that occurred often enough to matter: a table may reach further than the traffic ever does."""
    found = []
    for row, rows in zip(executed, tables.beyond, strict=True):
        total = int(row.sum())
        found += [text for measured, text in rows if int(row[measured + 1 :].sum()) > RARE_RATIO * total]
    return tuple(found)


def _joined(table: ServiceTable, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
    """One column for a stage whose batches mix all sizes."""
    share = weight / weight.sum()
    mean = table.mean_s @ share
    return np.repeat(mean[:, None], len(share), axis=1), np.repeat((table.cv @ share)[:, None], len(share), axis=1)


def unit_noise(n: int, rng: np.random.Generator) -> FloatArray:
    """Exponential noise of mean 0 and variance 1: a floor with a tail, as service times have.

    The values are even quantiles in random order, so that a few hundred thousand of them stand for any number of draws.
    """
    low, high = _NOISE_BITS
    number = 1 << min(max(n.bit_length(), low), high)
    draws = -np.log1p(-(np.arange(number) + 0.5) / number)
    draws = (draws - draws.mean()) / draws.std()
    rng.shuffle(draws)
    return np.asarray(draws, dtype=np.float64)


def horizon_s(demand: Demand, requests: int) -> float:
    """Seconds that `requests` take at the demand's rates; a recorded trace is as long as it is."""
    if demand.arrivals == "trace" and demand.times_s:
        return demand.times_s[-1] + 1e-9
    last = demand.steps[-1]
    planned = sum((b.start_s - a.start_s) * a.rate_rps for a, b in zip(demand.steps, demand.steps[1:], strict=False))
    if last.rate_rps <= 0:
        return last.start_s + 1e-9
    return last.start_s + max(requests - planned, requests / 4 if planned else requests) / last.rate_rps


def bucket_index(demand: Demand, n: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Rank of each request's size bucket, from the same draws as `arrivals.sizes`."""
    if len(demand.mix) == 1:
        return np.zeros(n, dtype=np.int64)
    buckets = sorted({share.size for share in demand.mix})
    rank = np.array([buckets.index(share.size) for share in demand.mix], dtype=np.int64)
    weight = np.cumsum([share.share_ratio for share in demand.mix])
    draws = rng.random(n)
    position = np.zeros(n, dtype=np.int64)
    for edge in weight[:-1] / weight[-1]:
        position += draws >= edge
    plain = bool(np.all(rank == np.arange(rank.size)))
    return position if plain else rank[position]


def overheads_s(profile: ServiceProfile, n: int, rng: np.random.Generator) -> FloatArray | float:
    """Time outside the server's cores by request: gamma with the measured mean and spread."""
    mean = max(profile.overhead_s - profile.request_cpu_s, 0.0)
    if mean <= 0 or profile.overhead_std_s <= 0:
        return mean
    shape = (mean / profile.overhead_std_s) ** 2
    return rng.gamma(shape, mean / shape, size=n)
