"""Real servers and real load, for proofs and probes, and what may be read of models and metrics."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from deployctl.core.artifact import TensorSpec
from deployctl.core.compressed import Compressed
from deployctl.core.demand import Demand
from deployctl.core.repocheck import RepositoryModel
from deployctl.core.spans import RequestTimes
from deployctl.ports.basics import Progress

if TYPE_CHECKING:  # numpy and scipy stand behind these; most verbs never need them
    from deployctl.core.load_samples import Samples


class Compressor(Protocol):
    """The torch room, run in a process of its own."""

    def run(self, request: dict[str, Any], progress: Progress) -> Compressed:
        """Make the variants that `request` asks for; blobs go to the workspace's blob store.

        `request` has: root, source (kind, value, tokenizer, pooling), sample, methods, gate.

        Raises:
            ModelError: import, export or quantisation failed, with the cause; MachineError: torch is missing.
        """
        ...


class ModelInspector(Protocol):
    """Reads existing models without running them."""

    def onnx(self, path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Inputs and outputs of an ONNX graph, without the batch dimension.

        Raises:
            ModelError: no ONNX model (`onnx-unreadable`); MachineError: nothing here can read it (`onnx-not-installed`).
        """
        ...

    def triton(self, path: Path) -> tuple[RepositoryModel, ...]:
        """Every model of a Triton repository, by name.

        Raises:
            ModelError: no model in it (`triton-repository-empty`), or a config that is no protobuf text (`config-pbtxt-invalid`).
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStats:
    """One reading of Triton's statistics: per model cumulative counts and seconds.

    `batch_stats` maps model -> executed batch size -> (executions, compute_input_s, compute_infer_s, compute_output_s).
    """

    at_s: float
    success: dict[str, int]
    failure: dict[str, int]
    queue_s: dict[str, float]
    request_s: dict[str, float]
    executions: dict[str, int]
    batch_stats: dict[str, dict[int, tuple[int, float, float, float]]]
    cache_hits: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreUse:
    """What a server has used of the cores since its start.

    Differences of two readings are taken thread by thread: a model that is loaded anew leaves threads and backend processes that end
    some time later, and a sum over the living ones would fall by all that they ever used.

    Attributes:
        server: by thread of the server process itself: core-seconds.
        backends: by thread of its backend processes, which compute where a backend is out of process: core-seconds, and seconds for
            which the thread was ready and had no core.
        spent_s: core-seconds of everything so far, what has ended included, to some hundredths of a second.
    """

    server: dict[int, float]
    backends: dict[int, tuple[float, float]]
    spent_s: float

    def server_since_s(self, before: CoreUse) -> float:
        """Core-seconds of the server process since `before`; a thread that ended meanwhile counts nothing."""
        return sum(used_s - before.server.get(t, 0.0) for t, used_s in self.server.items())

    def total_since_s(self, before: CoreUse) -> float:
        """Core-seconds of server and backends since `before`; a thread that ended meanwhile counts nothing."""
        backends_s = sum(used_s - before.backends.get(t, (0.0, 0.0))[0] for t, (used_s, _) in self.backends.items())
        return self.server_since_s(before) + backends_s

    def busiest_wait_s(self, before: CoreUse) -> float:
        """How long the backend thread that has computed most since `before` stood ready without a core meanwhile."""
        since = [(used_s - old[0], wait_s - old[1]) for t, (used_s, wait_s) in self.backends.items() if (old := before.backends.get(t))]
        return max(since)[1] if since else 0.0


class RunningServer(Protocol):
    """A tritonserver process of our own, for proofs and probes."""

    http_url: str
    grpc_url: str
    pid: int

    def infer(self, model: str, request: dict[str, Any], *, timeout_s: float = 30.0) -> dict[str, Any]:
        """One OIP request as a JSON-able input map, the outputs as nested lists by name."""
        ...

    def apply(self, model: str, config_text: str) -> None:
        """Explicit mode only: load `model` with this config.pbtxt text instead of the file's, without a restart."""
        ...

    def stats(self) -> ServerStats:
        """Cumulative statistics of every model."""
        ...

    def trace(self, model: str, requests: Sequence[dict[str, Any]]) -> list[RequestTimes]:
        """Explicit mode: send these one after the other, each traced, and say where each one's time went.

        The rows' trace_id is the request's position as text. Fewer rows come back where spans were lost, none where nothing traces.
        """
        ...

    def loading_s(self) -> float | None:
        """How long it loaded its models and warmed them up when it started; None where nothing here can tell."""
        ...

    def core_use(self) -> CoreUse:
        """What its live processes have used of the cores so far."""
        ...

    def stop(self) -> None:
        """End the whole process group and remove its shared memory; safe to call twice."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One part of an answer that comes in pieces: seconds since the request was sent, and the outputs in it, flat."""

    after_s: float
    outputs: dict[str, Any]


class InferenceClient(Protocol):
    """Sends single requests to a running service."""

    def infer(self, model: str, request: dict[str, Any], *, timeout_s: float = 30.0) -> dict[str, Any]:
        """One OIP request as a JSON-able input map, the outputs as nested lists by name; of an answer in pieces all of them, flat.

        Raises:
            ModelError: the server refused or failed the request; ClusterError: no answer.
        """
        ...

    def pieces(self, model: str, request: dict[str, Any], *, timeout_s: float = 30.0) -> list[Piece]:
        """The same with the time of each part: one for most models, several for one that answers in pieces (decoupled, a language model)."""
        ...

    def stats(self) -> ServerStats:
        """Cumulative statistics of every model of that one server.

        Raises:
            ClusterError: it does not answer, or does not show them to everybody (`server-unreachable`).
        """
        ...


class ServerLauncher(Protocol):
    """Starts real Triton servers on this machine."""

    def version(self) -> str:
        """Version of the installed tritonserver, such as 2.51.0."""
        ...

    def device(self) -> str:
        """Key of the hardware that evidence is bound to, such as `cpu-2c`."""
        ...

    def cpus(self) -> tuple[int, ...]:
        """The cores that may be used here, by number."""
        ...

    def on_cores(self, cpus: tuple[int, ...]) -> AbstractContextManager[None]:
        """Threads and processes that this thread starts meanwhile, and itself, run on these cores; empty means all."""
        ...

    def busy_s(self, cpus: tuple[int, ...]) -> float:
        """Core-seconds for which these cores were busy so far, whoever used them."""
        ...

    def start(self, repository: Path, *, explicit: bool = False, cpus: tuple[int, ...] = ()) -> RunningServer:
        """Start on free loopback ports and return when a real inference would be accepted (all models ready).

        Raises:
            ModelError: the model does not load; the message is Triton's own reason (`triton-load-failed`).
            MachineError: Triton is not installed or cannot start here (`triton-missing`, `triton-start-failed`).
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """One bounded load test.

    Attributes:
        url: `127.0.0.1:8000`-like address without scheme.
        protocol: `http`, `grpc`, or `stream` (HTTP, answers in pieces).
        model: entry model.
        bodies: JSON-lines file of requests with `size` (bucket) and `inputs` (OIP input map) each.
        demand: planned traffic; arrivals are drawn from it with `seed`.
        duration_s: planned length; the test ends at the latest `grace_s` after it.
        warmup_s: leading part that is sent but not judged.
        cpus: pin the generator to these cores; empty means no pinning.
        trace_ratio: share of requests that carry a sampled traceparent.
    """

    url: str
    protocol: str
    model: str
    bodies: Path
    demand: Demand
    duration_s: float
    seed: int
    warmup_s: float = 1.0
    grace_s: float = 10.0
    cpus: tuple[int, ...] = ()
    trace_ratio: float = 0.0
    timeout_s: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """What the generator saw: exact samples and its own health."""

    samples: Samples
    generator_cpu_ratio: float
    late_sends: int
    started_at_s: float
    warmup_requests: int


class LoadGenerator(Protocol):
    """Drives Locust in a process of its own."""

    def run(self, request: LoadRequest, progress: Progress | None = None) -> LoadResult:
        """Run to the end and return every sample.

        Raises:
            NotConverged: the generator died or overran its grace (`loadgen-failed`).
        """
        ...


class MetricSource(Protocol):
    """A time series database, read only. The window and the step belong to the source."""

    def history(self, query: str) -> list[tuple[float, float]]:
        """Evenly spaced (Unix time, value) of one series over the window; NaN where there is no sample, empty if there is none at all.

        Raises:
            ClusterError: it does not answer, or refuses the query (`prometheus-unreachable`, `prometheus-query`).
        """
        ...

    def names(self, query: str, label: str) -> list[str]:
        """Values of a label over all series that the selector matches in the window, sorted."""
        ...
