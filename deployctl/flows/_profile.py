"""A service profile from a real Triton of our own: closed rounds of exact batch sizes enter, service times by batch and size leave.

Service times are net of the time for which the computing threads stood ready without a core, so other work on this machine hardly
shows in them. What lies outside the stages is measured by `_outside`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from deployctl.core import profiling, sequential, span_profile
from deployctl.core.demand import Demand
from deployctl.core.profile import ColdStart, Interference, ServicePoint, ServiceProfile, StageProfile, StageSplit
from deployctl.core.serving import ModelSpec, ServingConfig
from deployctl.flows._gather import sample_lines
from deployctl.flows._outside import Outside, in_traffic, outside
from deployctl.flows._probe import BATCHES, Probes, configure, configure_stage, stage_models, stage_requests
from deployctl.ports import RunningServer

_POINT_S = 1.0  # most time for one point, where that is enough for the least number of readings
_IN_A_ROW = 4  # rounds between two readings of the counters
_READINGS, _LEAST_READINGS = 5, 2  # before precision is asked for; whatever they take
_PRECISE_RATIO = 0.01  # standard error of a mean that is good enough
_TRIM_RATIO = 0.2
_TRACED = 6  # requests of each size
# More of a core than this and a stage is taken to compute all the time: what is missing is the way to it and back.
_COMPUTES_RATIO = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A stored part of a profile."""

    points: tuple[ServicePoint, ...]
    cpu_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """A stored part of a profile: what spans say."""

    splits: tuple[StageSplit, ...]


def profile(probes: Probes) -> ServiceProfile:
    """The whole profile, from stored parts and new measurements."""
    bench = probes.bench
    stages = [_stage(probes, model) for model in stage_models(bench.bundle)]
    draft = ServiceProfile(
        stages=tuple(stages),
        overhead_s=0.0,
        interference=_interference(probes),
        cold_start=probes.once(ColdStart, "cold-start", probes.started),
        device=bench.tools.launcher.device(),
        bundle=bench.bundle.digest,
        triton_version=bench.tools.launcher.version(),
        cores=bench.cores,
    )
    found = probes.once(Outside, "outside", lambda: outside(probes, draft), demand=bench.demand)
    seen = probes.once(Traced, "spans", lambda: _traced(probes), demand=bench.demand)
    draft = dataclasses.replace(draft, splits=seen.splits)
    draft = dataclasses.replace(draft, others_ratio=found.others_ratio)
    if not draft.of_busy_machine:  # on a busy machine every size may leave the curve
        for text in (text for stage in stages for text in span_profile.surprises(stage, seen.splits)):
            bench.progress.note(text)
    else:
        bench.progress.warn(
            f"other work took {draft.others_ratio:.0%} of the server's cores while this profile was measured: it describes a busy machine "
            "(tune --fresh measures anew)"
        )
    return dataclasses.replace(
        draft,
        stages=in_traffic(draft.stages, found.traffic_ratio),
        overhead_s=found.overhead_s,
        overhead_std_s=found.overhead_std_s,
        request_cpu_s=found.request_cpu_s,
        wake_cpu_s=found.wake_cpu_s,
        wake_pause_s=found.wake_pause_s,
        polls=found.polls,
        poll_handover_s=found.poll_handover_s,
    )


def _traced(probes: Probes) -> Traced:
    """A few requests of every size of the traffic, one at a time and traced: the sizes between the measured ones show themselves."""
    bench = probes.bench
    bench.progress.update("tracing requests of every size")
    configure(probes, {m.name: ServingConfig(max_batch=1, warmup_batches=()) for m in stage_models(bench.bundle) if m.tunable})
    lines: dict[int, list[dict[str, Any]]] = {}
    for line in sample_lines(bench.tools, bench.bundle):
        lines.setdefault(int(line.get("size", 1)), []).append(line["inputs"])
    rows = [(s.size, lines[s.size][i % len(lines[s.size])]) for i in range(_TRACED) for s in bench.demand.mix if s.size in lines]
    for _, request in rows[: len(bench.demand.mix)]:  # the first run of a shape plans its memory
        probes.server().infer(bench.bundle.entry, request)
    times = probes.server().trace(bench.bundle.entry, [request for _, request in rows])
    return Traced(splits=span_profile.splits(times, {str(i): size for i, (size, _) in enumerate(rows)}))


def measured_sizes(demand: Demand, most: int = 4) -> list[int]:
    """Buckets to measure: all of a few, else the ends and those at even shares of the mix; the rest is interpolated."""
    rows = sorted((s.size, s.share_ratio) for s in demand.mix)
    if len(rows) <= most:
        return [size for size, _ in rows]
    mass = np.cumsum([share for _, share in rows])
    inner = [rows[int(np.searchsorted(mass, mass[-1] * (i + 1) / (most - 1)))][0] for i in range(most - 2)]
    return sorted({rows[0][0], *inner, rows[-1][0]})


def _stage(probes: Probes, model: ModelSpec) -> StageProfile:
    joins = all(d >= 0 for tensor in model.inputs for d in tensor.shape)
    largest = BATCHES[-1] if model.tunable else min(BATCHES[-1], model.as_executed.max_batch)
    sizes = measured_sizes(probes.bench.demand)
    points: list[ServicePoint] = []
    cpu_ratio = 0.0
    for batch in (b for b in BATCHES if b <= largest and sizes):
        probes.bench.progress.update(f"profiling {model.name} at batch {batch}")
        part = probes.once(Part, "stage", lambda b=batch, s=sizes: measure_batch(probes, model, b, s), model=model.name, batch=batch, sizes=sizes)  # type: ignore[misc]
        points += part.points
        cpu_ratio = max(cpu_ratio, part.cpu_ratio)
        useless = {p.size for p in part.points if p.mean_s > probes.bench.limit_s}
        sizes = [s for s in sizes if s not in useless]
    return StageProfile(model=model.name, points=profiling.merge(points), joins_sizes=joins, cpu_ratio=cpu_ratio)


def measure_batch(probes: Probes, model: ModelSpec, batch: int, sizes: Sequence[int]) -> Part:
    """Rounds of so many requests at once of each size, so that Triton forms exactly that batch.

    The batch limit is the batch itself, so that it runs as soon as it is complete: after an idle wait for mates that do not come, a
    core computes slower than it does at work.
    """
    if model.tunable:
        configure_stage(
            probes, model.name, ServingConfig(max_batch=batch, queue_delay_s=probes.bench.gather_s, warmup_batches=(), preferred_batches=())
        )
    points: list[ServicePoint] = []
    cpu_ratio = 0.0
    with ThreadPoolExecutor(batch) as pool:
        for size in sizes:
            requests = stage_requests(probes, model, size)
            seen, ratio = _point(probes.server(), model.name, [requests[i % len(requests)] for i in range(batch)], pool)
            found = profiling.point(batch, size, seen, trim_ratio=_TRIM_RATIO)
            points += [found] if found is not None else []
            cpu_ratio = max(cpu_ratio, ratio)
    return Part(points=tuple(points), cpu_ratio=cpu_ratio)


def _point(
    server: RunningServer, model: str, requests: Sequence[dict[str, Any]], pool: ThreadPoolExecutor
) -> tuple[list[profiling.Execution], float]:
    """Executions of many rounds, and the share of their time that computed (1 where it cannot be told from 1).

    Counters are read after some rounds in a row only: reading them takes so long that the next execution would find a cold core.
    """
    _rounds(server, model, requests, pool, 1)  # the first run of a shape plans its memory
    seen: list[tuple[profiling.Execution, float]] = []
    first = before = server.core_use()
    end = time.monotonic() + _POINT_S
    readings = 0
    while readings < _READINGS or (
        time.monotonic() < end and not sequential.precise([e.total_s for e in profiling.undisturbed(seen)], _PRECISE_RATIO)
    ):
        executed = _rounds(server, model, requests, pool, _IN_A_ROW)
        after = server.core_use()
        readings += 1
        if len(executed) == 1 and executed[0].count == _IN_A_ROW:
            seen.append((executed[0], after.busiest_wait_s(before)))
        before = after
        if readings >= _LEAST_READINGS and time.monotonic() >= end:
            break
    found = profiling.net(seen)
    total_s = sum(e.total_s for e in found) / max(len(found), 1) * readings
    ratio = before.total_since_s(first) / total_s if total_s > 0 else 1.0
    return found, 1.0 if ratio > _COMPUTES_RATIO else max(ratio, 0.0)


def _rounds(server: RunningServer, model: str, requests: Sequence[dict[str, Any]], pool: ThreadPoolExecutor, times: int) -> list[profiling.Execution]:
    """What is executed when these requests are sent together, so many times in a row."""
    before = server.stats().batch_stats.get(model, {})
    for _ in range(times):
        list(pool.map(lambda request: server.infer(model, request), requests))
    rows = sum(batch * row[0] for batch, row in before.items()) + times * len(requests)
    for _ in range(200):  # a reply is counted a moment after it was sent
        after = server.stats().batch_stats.get(model, {})
        if sum(batch * row[0] for batch, row in after.items()) >= rows:
            break
        time.sleep(0.002)
    return profiling.executions(before, after)


def _interference(probes: Probes) -> tuple[Interference, ...]:
    """Two instances busy at once against one, for each stage that may have two; where cores are shared this is a check."""
    found = []
    size = max(probes.bench.demand.mix, key=lambda s: s.share_ratio).size
    size = min(measured_sizes(probes.bench.demand), key=lambda s: abs(s - size))
    for model in (m for m in stage_models(probes.bench.bundle) if m.tunable):
        found.append(probes.once(Interference, "interference", lambda m=model: _two(probes, m, size), model=model.name, size=size))  # type: ignore[misc]
    return tuple(found)


def _two(probes: Probes, model: ModelSpec, size: int) -> Interference:
    server = probes.server()
    requests = stage_requests(probes, model, size)[:1]
    means = []
    for instances in (1, 2):
        configure_stage(probes, model.name, ServingConfig(max_batch=1, instances=instances, warmup_batches=()))
        with ThreadPoolExecutor(instances) as pool:
            _rounds(server, model.name, requests * instances, pool, 1)
            executed = _rounds(server, model.name, requests * instances, pool, 8)
        means.append(ServicePoint(batch=1, size=size, mean_s=sum(e.total_s for e in executed) / sum(e.count for e in executed), std_s=0.0, count=1))
    return profiling.interference(model.name, 2, means[0], means[1])
