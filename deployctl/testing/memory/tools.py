"""The small ports in memory, and the toolbox that hands all of them out."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployctl.core.plan import Plan
from deployctl.errors import ModelError
from deployctl.ports import (
    BlobStore,
    BundleStore,
    Clock,
    ClusterReader,
    Compressor,
    EvidenceStore,
    InferenceClient,
    LoadGenerator,
    Piece,
    RecordStore,
    RemoteStore,
    RepositoryBuilder,
    ServerLauncher,
    ServerStats,
    Target,
    Workspace,
)
from deployctl.testing.memory.content import MemoryBlobs, MemoryBundles
from deployctl.testing.memory.records import MemoryEvidenceStore, MemoryRecordStore
from deployctl.testing.memory.target import MemoryTarget


class FakeClock:
    """A clock that moves when somebody sleeps."""

    def __init__(self, now_s: float = 1_800_000_000.0) -> None:
        self._now_s = now_s
        self._mono_s = 0.0

    def now_s(self) -> float:
        """Unix time."""
        return self._now_s

    def monotonic_s(self) -> float:
        """Seconds since construction."""
        return self._mono_s

    def sleep_s(self, seconds: float) -> None:
        """Move on."""
        self._now_s += seconds
        self._mono_s += seconds


class EchoClient:
    """InferenceClient that answers each output name with what it was sent; `broken` makes it refuse."""

    def __init__(self, *, broken: str = "") -> None:
        self.broken = broken
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def infer(self, model: str, request: dict[str, Any], *, timeout_s: float = 30.0) -> dict[str, Any]:
        """The first input's data as OUTPUT0."""
        self.asked.append((model, request))
        if self.broken:
            raise ModelError(f"{model} refused the request: {self.broken}", hint="deployctl logs", code="inference-failed")
        inputs = request.get("inputs", request)
        return {"OUTPUT0": next(iter(inputs.values()))["data"]}

    def pieces(self, model: str, request: dict[str, Any], *, timeout_s: float = 30.0) -> list[Piece]:
        """The whole answer at once."""
        return [Piece(after_s=0.0, outputs=self.infer(model, request, timeout_s=timeout_s))]

    def stats(self) -> ServerStats:
        """What was asked, by model; nothing took time."""
        count = {model: sum(m == model for m, _ in self.asked) for model, _ in self.asked}
        none = dict.fromkeys(count, 0.0)
        return ServerStats(at_s=0.0, success=count, failure={}, queue_s=none, request_s=none, executions=count, batch_stats={}, cache_hits={})


class NotedProgress:
    """Progress that remembers."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def step(self, message: str) -> None:
        """Remember."""
        self.said.append(("step", message))

    def update(self, message: str) -> None:
        """Remember."""
        self.said.append(("update", message))

    def note(self, message: str) -> None:
        """Remember."""
        self.said.append(("note", message))

    def warn(self, message: str) -> None:
        """Remember."""
        self.said.append(("warn", message))


class FixedLauncher:
    """ServerLauncher that knows what it would start and starts nothing."""

    def __init__(self, *, version: str = "2.51.0", device: str = "cpu-2c") -> None:
        self._version = version
        self._device = device

    def version(self) -> str:
        """Version of the tritonserver that would serve."""
        return self._version

    def device(self) -> str:
        """Key of the hardware."""
        return self._device

    def cpus(self) -> tuple[int, ...]:
        """Cores that a server might be pinned to."""
        return (0, 1)

    def on_cores(self, cpus: tuple[int, ...]) -> contextlib.AbstractContextManager[None]:
        """Nothing is kept apart."""
        del cpus
        return contextlib.nullcontext()

    def busy_s(self, cpus: tuple[int, ...]) -> float:
        """Nobody computes here."""
        del cpus
        return 0.0

    def start(self, repository: Path, *, explicit: bool = False, cpus: tuple[int, ...] = ()) -> Any:
        """Not here.

        Raises:
            ModelError: always; a test that needs a server starts a real one.
        """
        raise ModelError("this launcher starts nothing", hint="use the real launcher", code="triton-missing")


@dataclass
class MemoryToolbox:
    """A Toolbox of memory ports; a port that a test did not give and a flow asks for is an AttributeError."""

    root: Path
    blobs: BlobStore = field(init=False)
    bundles: BundleStore = field(default_factory=MemoryBundles)
    records: RecordStore = field(default_factory=MemoryRecordStore)
    evidence: EvidenceStore = field(default_factory=MemoryEvidenceStore)
    target: Target = field(default_factory=MemoryTarget)
    clock: Clock = field(default_factory=FakeClock)
    http: InferenceClient = field(default_factory=EchoClient)
    launcher: ServerLauncher = field(init=False)
    repository: RepositoryBuilder = field(init=False)
    compressor: Compressor = field(init=False)
    loadgen: LoadGenerator = field(init=False)
    remote: RemoteStore | None = None
    cluster: ClusterReader | None = None
    workspace: Workspace = field(init=False)

    def __post_init__(self) -> None:
        self.workspace = Workspace(self.root)
        folder = self.root / "memory-blobs"
        folder.mkdir(parents=True, exist_ok=True)
        self.blobs = MemoryBlobs(folder)
        self.launcher = FixedLauncher()

    def client(self, url: str) -> InferenceClient:
        """The one client."""
        return self.http

    def measuring(self, plan: Plan) -> MemoryToolbox:
        """These ports."""
        return self
