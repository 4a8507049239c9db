"""What a request costs outside every stage, measured: core-seconds, time, and what Triton's batcher thread burns.

Closed loops give core-seconds by their dependence on the size and on pauses between requests; rounds of several shapes show the batcher thread; one
open-loop run under load gives what executions cost in mixed traffic, and the time outside: each latency is compared with
what the simulator expects for exactly that request, so a moment in which something else ran spoils only the requests it met.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deployctl.core import profiling
from deployctl.core.demand import Demand
from deployctl.core.load_samples import Samples
from deployctl.core.profile import ServiceProfile, StageProfile
from deployctl.core.serving import ModelSpec, ServingConfig
from deployctl.core.simulate import Run, replay
from deployctl.core.sizing import at_rate
from deployctl.flows._gather import sample_lines
from deployctl.flows._probe import Probes, configure, configure_stage, load_request, stage_models, stage_requests

_LOOP_S = 1.5
_PAUSES_S = (0.004, 0.012, 0.03)
_LOADED_S = 12.0
# Of what the stages alone could serve: busy, and a third of the requests still meet an idle service. Where other work takes so much of the
# cores that hardly any does, less is asked for: a backlog is no time outside the stages.
_LOAD_RATIOS = (0.7, 0.35, 0.15)
# Other work stretches the time between answers, but not core-seconds: with more of it on the server's cores the latter are taken.
_CALM_RATIO = 0.05
_ROUNDS = 3  # until simulated and measured gaps agree; the first comes within a few per cent
_RATES_RPS = (2.0, 250.0)  # of the loaded run, at least and at most
_POLLS_RATIO = 0.2  # of the shortest execution that it waits for; polling takes about all of it
_SHAPES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """The fields of a `ServiceProfile` of the same names, and the `traffic_ratio` of its stages."""

    overhead_s: float
    overhead_std_s: float
    request_cpu_s: float
    wake_cpu_s: float
    wake_pause_s: float
    polls: bool
    poll_handover_s: float
    traffic_ratio: float
    others_ratio: float = 0.0  # of the server's cores, which other work took until this was measured


def outside(probes: Probes, draft: ServiceProfile) -> Outside:
    """Measure it all; `draft` has the stages' service times."""
    bench = probes.bench
    bench.progress.update("profiling what a request costs outside its stages")
    polls, handover_s = _batcher(probes, draft)
    configure(probes, {m.name: ServingConfig(max_batch=1, warmup_batches=()) for m in stage_models(bench.bundle) if m.tunable})
    request_cpu_s = _request_cpu_s(probes, draft)
    wake_cpu_s, wake_pause_s = _wake(probes)
    known = dataclasses.replace(draft, request_cpu_s=request_cpu_s, overhead_s=request_cpu_s, wake_cpu_s=wake_cpu_s, wake_pause_s=wake_pause_s)
    bench.progress.update("profiling under load, without batching")
    samples, cpu_s = _busiest_sound(probes, known)
    sizes, counts = np.unique(samples.size, return_counts=True)
    stages_s = float(_stages_s(draft.stages, [int(s) for s in sizes]) @ counts / counts.sum())
    run = _replayed(probes, known, samples)
    beside_s = run.core_ratio * run.span_s / samples.size.size - stages_s
    ratio = profiling.traffic_ratio(stages_s, beside_s, cpu_s)
    if profiling.compute(stages_s, cpu_s) and probes.others_ratio() <= _CALM_RATIO:
        ratio = _in_backlog(probes, known, samples, ratio)
    known = dataclasses.replace(known, stages=in_traffic(draft.stages, ratio))
    wait_s, spread_s = profiling.unexplained(samples.intended_s, samples.latency_s, _replayed(probes, known, samples).latency_s)
    return Outside(
        overhead_s=wait_s + request_cpu_s,
        overhead_std_s=min(spread_s, wait_s),
        request_cpu_s=request_cpu_s,
        wake_cpu_s=wake_cpu_s,
        wake_pause_s=wake_pause_s,
        polls=polls,
        poll_handover_s=handover_s,
        traffic_ratio=ratio,
        others_ratio=probes.others_ratio(),
    )


def loaded_rate_rps(draft: ServiceProfile, demand: Demand, load_ratio: float) -> float:
    """A rate that keeps the stages busy for that part of the time when one instance serves one request at a time."""
    share = np.array([s.share_ratio for s in demand.mix])
    alone_s = np.sum([profiling.service_table(stage, [s.size for s in demand.mix], 1).mean_s[1] for stage in draft.stages], axis=0)
    return float(np.clip(load_ratio / float(alone_s @ share / share.sum()), *_RATES_RPS))


def _by_size(probes: Probes) -> dict[int, list[dict[str, Any]]]:
    """Requests of the sample by size, for the sizes of the traffic."""
    found: dict[int, list[dict[str, Any]]] = {}
    for line in sample_lines(probes.bench.tools, probes.bench.bundle):
        found.setdefault(int(line.get("size", 1)), []).append(line["inputs"])
    return {size: found[size] for size in sorted({s.size for s in probes.bench.demand.mix} & set(found)) or sorted(found)}


def _request_cpu_s(probes: Probes, draft: ServiceProfile) -> float:
    """From busy loops of the smallest and the largest size."""
    by_size = _by_size(probes)
    ends = sorted({min(by_size), max(by_size)})
    return profiling.outside_cpu_s([(float(_stages_s(draft.stages, [s])[0]), _loop_cpu_s(probes, by_size[s], at_once=2)) for s in ends])


def _wake(probes: Probes) -> tuple[float, float]:
    """`wake_cpu_s` and `wake_pause_s`, from loops of the middle size with pauses."""
    by_size = _by_size(probes)
    requests = by_size[sorted(by_size)[len(by_size) // 2]]
    busy_s = _loop_cpu_s(probes, requests, at_once=2)
    return profiling.wake_law([(t, _loop_cpu_s(probes, requests, at_once=1, pause_s=t) - busy_s) for t in _PAUSES_S])


def _loop_cpu_s(probes: Probes, requests: Sequence[dict[str, Any]], *, at_once: int, pause_s: float = 0.0) -> float:
    """Core-seconds a request of a closed loop."""
    server, entry = probes.server(), probes.bench.bundle.entry
    for request in requests[:8]:  # the first run of a shape plans its memory
        server.infer(entry, request)
    before, end = server.core_use(), time.monotonic() + _LOOP_S

    def client(number: int) -> int:
        sent = 0
        while sent == 0 or time.monotonic() < end:
            server.infer(entry, requests[(number + sent * at_once) % len(requests)])
            sent += 1
            time.sleep(pause_s)
        return sent

    with ThreadPoolExecutor(at_once) as pool:
        sent = sum(pool.map(client, range(at_once)))
    return server.core_use().total_since_s(before) / sent


def _batcher(probes: Probes, draft: ServiceProfile) -> tuple[bool, float]:
    """Whether Triton's batcher thread polls, and the core-seconds that the server process uses more for two shapes at once than for one.

    The thread does not sleep while the batch that it formed last may still grow and a request of another shape stands behind it
    (`BatcherThread` and `GetDynamicBatch` in its `dynamic_batch_scheduler.cc`). So of three requests of three shapes that come together the
    first is computed, the second waits and the third makes the thread poll for as long; the instance that is to take the second needs
    the lock that the polling loop holds. Of two shapes the lock alone is met.
    """
    polls, handover_s = False, 0.0
    sizes = sorted(s.size for s in probes.bench.demand.mix)
    for model in (m for m in stage_models(probes.bench.bundle) if m.tunable):
        if len(sizes) < 2 or all(d >= 0 for tensor in model.inputs for d in tensor.shape):
            continue
        configure_stage(probes, model.name, ServingConfig(max_batch=_SHAPES, warmup_batches=(), preferred_batches=()))
        kinds = [stage_requests(probes, model, size)[0] for size in (sizes[0], sizes[len(sizes) // 2], sizes[-1])]
        equal_s = [_together_s(probes, model, [kind] * 2) for kind in (kinds[0], kinds[-1])]
        handover_s = max(handover_s, _together_s(probes, model, [kinds[0], kinds[-1]]) - sum(equal_s) / 2)
        stage = next(s for s in draft.stages if s.model == model.name)
        shortest_s = float(profiling.service_table(stage, sizes, 1).mean_s[1].min())
        polls |= _together_s(probes, model, kinds) - _together_s(probes, model, kinds[-1:] * _SHAPES) > _POLLS_RATIO * shortest_s
    return polls, handover_s


def _together_s(probes: Probes, model: ModelSpec, requests: Sequence[dict[str, Any]]) -> float:
    """Core-seconds of the server process per round of these requests, sent together."""
    server, rounds = probes.server(), 0
    with ThreadPoolExecutor(len(requests)) as pool:
        list(pool.map(lambda request: server.infer(model.name, request), requests))
        before, end = server.core_use(), time.monotonic() + _LOOP_S / 2
        while time.monotonic() < end or rounds < 5:
            list(pool.map(lambda request: server.infer(model.name, request), requests))
            rounds += 1
        return server.core_use().server_since_s(before) / rounds


def _busiest_sound(probes: Probes, known: ServiceProfile) -> tuple[Samples, float]:
    """The run under the highest load at which enough requests meet an idle service; the last one where none does."""
    tried_rps = np.inf
    for load_ratio in _LOAD_RATIOS:
        rate_rps = loaded_rate_rps(known, probes.bench.demand, load_ratio)
        if rate_rps >= tried_rps:
            break
        samples, cpu_s = _loaded(probes, rate_rps)
        tried_rps = rate_rps
        if np.count_nonzero(profiling.met_idle(samples.intended_s, samples.latency_s)) >= profiling.LEAST_IDLE:
            break
    return samples, cpu_s


def _loaded(probes: Probes, rate_rps: float) -> tuple[Samples, float]:
    """Open-loop traffic at that rate: what was sent, and core-seconds a request."""
    bench, server = probes.bench, probes.server()
    demand = at_rate(dataclasses.replace(bench.demand, arrivals="poisson", repeat_ratio=0.0), rate_rps)
    request = load_request(bench, server.http_url, demand, duration_s=_LOADED_S, seed=11)
    before, used = server.stats(), server.core_use()
    samples = bench.tools.loadgen.run(request, bench.progress).samples
    after, entry = server.stats(), bench.bundle.entry
    served = after.success.get(entry, 0) - before.success.get(entry, 0)
    return samples, server.core_use().total_since_s(used) / max(served, 1)


def _in_backlog(probes: Probes, known: ServiceProfile, samples: Samples, ratio: float) -> float:
    """The traffic ratio at which answers of a backlog follow each other as fast in the simulator as they did; `ratio` where none can be told."""
    for _ in range(_ROUNDS):
        run = _replayed(probes, dataclasses.replace(known, stages=in_traffic(known.stages, ratio)), samples)
        apart = profiling.backlog_ratio(samples.intended_s, samples.latency_s, run.latency_s, samples.size)
        if apart is None:
            break
        ratio = min(max(ratio * apart, profiling.TRAFFIC_RATIOS[0]), profiling.TRAFFIC_RATIOS[1])
    return ratio


def _replayed(probes: Probes, known: ServiceProfile, samples: Samples) -> Run:
    """These requests in the simulator, one at a time in each stage that tuning may change."""
    models = stage_models(probes.bench.bundle)
    settings = {m.name: ServingConfig(max_batch=1, warmup_batches=()) if m.tunable else m.as_executed for m in models}
    return replay(known, settings, 1, samples.intended_s, samples.size, seed=11)


def in_traffic(stages: Sequence[StageProfile], ratio: float) -> tuple[StageProfile, ...]:
    """Stages as they are in traffic."""
    return tuple(dataclasses.replace(stage, traffic_ratio=ratio) for stage in stages)


def _stages_s(stages: Sequence[StageProfile], sizes: Sequence[int]) -> npt.NDArray[np.float64]:
    """Core-seconds of one request in all stages, by size."""
    return np.asarray(np.sum([profiling.service_table(stage, sizes, 1).mean_s[1] * stage.cpu_ratio for stage in stages], axis=0))
