"""A real Triton of our own to measure on: started when first needed, settings changed by load, finished measurements kept.

Each finished part is stored under the key of what it measured, so that nothing is measured twice. What is measured stands in
`_profile` (the stages) and `_outside` (the rest).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from deployctl import scratch
from deployctl.core import cold_start
from deployctl.core.bundle import Bundle
from deployctl.core.demand import Demand
from deployctl.core.profile import ColdStart
from deployctl.core.serving import ModelSpec, ServingConfig
from deployctl.flows import _cache
from deployctl.flows._gather import sample_lines
from deployctl.ports import LoadRequest, Progress, RunningServer, Toolbox

T = TypeVar("T")
BATCHES = (1, 2, 4, 8, 16)
VERSION = 5  # of this procedure: another one measures anew


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What a probe works with.

    Attributes:
        tools, progress: ports.
        bundle: what is measured.
        demand: traffic, for its sizes.
        limit_s: batches that take longer than this are of no use.
        server_cpus, client_cpus: cores of the two sides; empty where there is only one core.
    """

    tools: Toolbox
    progress: Progress
    bundle: Bundle
    demand: Demand
    limit_s: float
    server_cpus: tuple[int, ...]
    client_cpus: tuple[int, ...]

    @property
    def gather_s(self) -> float:
        """How long a batch waits for the requests of its round: they reach a server of this machine together, and a cluster's one by one."""
        return 0.01 if self.tools.launcher.cpus() else 0.3

    @property
    def cores(self) -> float:
        """Cores of the server."""
        return float(len(self.server_cpus) or 1)

    def key(self, what: str, **details: Any) -> dict[str, Any]:
        """Everything that a stored measurement depends on."""
        launcher = self.tools.launcher
        base = {"bundle": self.bundle.digest, "device": launcher.device(), "triton": launcher.version(), "cores": self.cores}
        return {"what": what, "procedure": VERSION, **base, **details}


class Probes:
    """Counts live measurements and takes stored ones instead where there are any; starts the server when it is first needed."""

    def __init__(self, bench: Bench, *, fresh: bool) -> None:
        self.bench = bench
        self.live = 0
        self.cold_start: ColdStart | None = None
        self._fresh = fresh
        self._since = (0.0, 0.0, 0.0)  # time, busy core-seconds of the server's cores, core-seconds of the server
        self._server: RunningServer | None = None
        self._folder = scratch.new(bench.tools.workspace.state / "tune")

    def once(self, cls: type[T], what: str, measure: Callable[[], T], *, keep: Callable[[T], bool] = lambda _: True, **details: Any) -> T:
        """The stored result of this measurement, or a new one, which is stored where `keep` says so."""
        key = self.bench.key(what, **details)
        folder = self.bench.tools.workspace.cache
        known = None if self._fresh else _cache.read(cls, folder, "probe", key)
        if known is not None:
            return known
        self.live += 1
        result = measure()
        if keep(result):
            _cache.write(folder, "probe", key, result)
        return result

    def server(self) -> RunningServer:
        """The one Triton of this run, in explicit mode."""
        if self._server is None:
            tools = self.bench.tools
            begun = tools.clock.monotonic_s()
            tools.repository.build(self.bench.bundle, self._folder / "repository")
            built = tools.clock.monotonic_s()
            self._server = tools.launcher.start(self._folder / "repository", explicit=True, cpus=self.bench.server_cpus)
            up = tools.clock.monotonic_s()
            loading_s = self._server.loading_s()
            warmup_s = cold_start.warmup_s(stage_models(self.bench.bundle), self._server.stats().batch_stats)
            counted = tools.clock.monotonic_s()
            self._server.infer(self.bench.bundle.entry, sample_lines(tools, self.bench.bundle)[0]["inputs"])
            answered = tools.clock.monotonic_s()
            self._since = (answered, tools.launcher.busy_s(self.bench.server_cpus), self._server.core_use().spent_s)
            self.cold_start = cold_start.split(
                fetch_s=built - begun, ready_s=up - built, loading_s=loading_s, warmup_s=warmup_s, first_reply_s=answered - counted
            )
        return self._server

    def started(self) -> ColdStart:
        """How long the server took to start, by stage."""
        self.server()
        assert self.cold_start is not None
        return self.cold_start

    def others_ratio(self) -> float:
        """Share of the server's cores that somebody else took since the server started; 0 where the cores are not its own."""
        if self._server is None or not self.bench.server_cpus:
            return 0.0
        launcher, clock = self.bench.tools.launcher, self.bench.tools.clock
        passed_s = (clock.monotonic_s() - self._since[0]) * self.bench.cores
        taken_s = launcher.busy_s(self.bench.server_cpus) - self._since[1] - self._server.core_use().spent_s + self._since[2]
        return max(taken_s, 0.0) / max(passed_s, 1e-9)

    def close(self) -> None:
        """Stop the server and remove its folder."""
        if self._server is not None:
            self._server.stop()
            self._server = None
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def probing(bench: Bench, *, fresh: bool) -> Iterator[Probes]:
    """Probes whose server is stopped whatever happens."""
    probes = Probes(bench, fresh=fresh)
    with bench.tools.launcher.on_cores(bench.client_cpus):  # our own threads are clients, too
        try:
            yield probes
        finally:
            probes.close()


def stage_models(bundle: Bundle) -> list[ModelSpec]:
    """The models that a request passes, in order."""
    entry = bundle.model(bundle.entry)
    return [bundle.model(step.model) for step in entry.ensemble_steps] if entry.ensemble_steps else [entry]


def configure_stage(probes: Probes, model: str, serving: ServingConfig) -> None:
    """Change one model's settings by loading it again under another configuration."""
    probes.server().apply(model, probes.bench.tools.repository.config_text(probes.bench.bundle, model, serving))


def configure(probes: Probes, settings: dict[str, ServingConfig]) -> None:
    """Change settings of the whole bundle: an ensemble must not promise larger batches than its narrowest stage takes."""
    bundle = probes.bench.bundle
    for name, serving in settings.items():
        configure_stage(probes, name, serving)
    if bundle.model(bundle.entry).ensemble_steps:
        narrowest = min(settings.get(m.name, m.serving).max_batch for m in stage_models(bundle))
        configure_stage(probes, bundle.entry, ServingConfig(max_batch=narrowest, warmup_batches=()))


def stage_requests(probes: Probes, model: ModelSpec, size: int) -> list[dict[str, Any]]:
    """Requests of that size for one stage: the sample's, passed through the stages before it."""
    bench = probes.bench
    lines = [line["inputs"] for line in sample_lines(bench.tools, bench.bundle) if int(line.get("size", 1)) == size][:8]
    entry = bench.bundle.model(bench.bundle.entry)
    tensors: list[dict[str, Any]] = lines
    for step in entry.ensemble_steps:
        fed = [{name: t[source] for name, source in step.input_map.items()} for t in tensors]
        if step.model == model.name:
            return fed
        spec = bench.bundle.model(step.model)
        tensors = [old | _answers(probes.server(), spec, one, step.output_map) for old, one in zip(tensors, fed, strict=True)]
    return tensors


def _answers(server: RunningServer, spec: ModelSpec, request: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    answer = server.infer(spec.name, request)
    dtypes = {t.name: t.dtype for t in spec.outputs}
    return {names[k]: {"dtype": dtypes[k], "shape": list(np.shape(v)), "data": v} for k, v in answer.items() if k in names}


def load_request(bench: Bench, url: str, demand: Demand, *, duration_s: float, seed: int, warmup_s: float = 1.0) -> LoadRequest:
    """A load test with the sample's requests from the client's core."""
    bodies: Path = bench.tools.blobs.path(bench.bundle.sample)
    return LoadRequest(
        url=url,
        protocol="http",
        model=bench.bundle.entry,
        bodies=bodies,
        demand=demand,
        duration_s=duration_s,
        seed=seed,
        warmup_s=warmup_s,
        cpus=bench.client_cpus,
    )
