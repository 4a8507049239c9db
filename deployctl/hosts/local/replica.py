"""One replica's life in a thread: build the private repository, start Triton, prove it by a real inference, then watch it.

What enters is a `Job`, what leaves are events for the supervisor, which alone changes state. Refuses to decide about others.
"""

from __future__ import annotations

import http.client
import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployctl.adapters import processes
from deployctl.adapters.processes import ProcessId
from deployctl.adapters.triton import Installation, ServerCommand, TritonApi
from deployctl.adapters.triton.launcher import failure, port_was_taken, stub_died
from deployctl.core import health
from deployctl.core.bundle import Bundle
from deployctl.core.serving import ServingConfig
from deployctl.errors import ClusterError, DeployctlError, MachineError, ModelError
from deployctl.ports import RepositoryBuilder, ServerStats

_LOOK_S = 0.5
_POLL_S = 0.05
_PENDING = re.compile(r'^nv_inference_pending_request_count\{[^}]*model="([^"]+)"[^}]*\} (\S+)$', re.MULTILINE)
_REJECTED = re.compile(r"[Ee]xceeds maximum queue size|[Rr]equest timeout expired|REJECTED")
EXIT_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a replica serves and where it may write.

    Attributes:
        name: of the replica.
        bundle, settings: content of its repository.
        sample: input map of one example request.
        folder: private folder; removed with the replica.
        log: its output.
        mark: environment by which it is found in /proc.
        shm_prefix, secret: chosen and recorded before the start.
        trace_rate, trace_url: see ServerCommand.
        start_timeout_s: until its first right answer.
    """

    name: str
    bundle: Bundle
    settings: dict[str, ServingConfig]
    sample: dict[str, Any]
    folder: Path
    log: Path
    mark: dict[str, str]
    shm_prefix: str
    secret: str
    trace_rate: int = 0
    trace_url: str = ""
    start_timeout_s: float = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The process runs; it is not ready yet."""

    name: str
    process: ProcessId
    http_port: int
    grpc_port: int
    metrics_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """It gave its first right answer, `took_s` after the job began."""

    name: str
    took_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """It did not become ready; `hopeless` when a repetition would fail the same way."""

    name: str
    reason: str
    hopeless: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """One look at a ready replica; `stats` and `pending` are None when it did not tell."""

    name: str
    verdict: health.Verdict
    reason: str
    stats: ServerStats | None
    pending: int | None


Event = Started | Ready | Failed | Looked


class Replica(threading.Thread):
    """The thread of one replica. `adopt` names a process that already runs, with its HTTP and metrics port."""

    def __init__(
        self, job: Job, install: Installation, repository: RepositoryBuilder, post: Callable[[Event], None], adopt: Started | None = None
    ) -> None:
        super().__init__(name=job.name, daemon=True)
        self._job = job
        self._install = install
        self._repository = repository
        self._post = post
        self._adopt = adopt
        self._halt = threading.Event()

    def halt(self) -> None:
        """Stop watching; the process is left alone."""
        self._halt.set()

    def run(self) -> None:
        """Live until halted or until the process has ended."""
        began_s = time.monotonic()
        try:
            started = self._adopt or self._start()
            usual_s = self._prove(started)
        except DeployctlError as error:
            if not self._halt.is_set():
                why = f"{error.message}: {error.why}" if error.why else error.message
                self._post(Failed(name=self._job.name, reason=why, hopeless=isinstance(error, ModelError)))
            return
        self._post(Ready(name=self._job.name, took_s=time.monotonic() - began_s))
        self._watch(started, usual_s)

    def _start(self) -> Started:
        repo = self._job.folder / "repo"
        if not repo.exists():
            self._repository.build(self._job.bundle, repo, settings=self._job.settings)
        for _ in range(4):
            started = self._spawn(repo)
            self._post(started)
            if self._loaded(started):
                return started
        raise MachineError("no free loopback port could be bound", code="triton-start-failed", hint="end what takes all loopback ports")

    def _spawn(self, repo: Path) -> Started:
        http_port, grpc_port, metrics_port = processes.free_ports(3)
        command = ServerCommand(
            repository=repo,
            http_port=http_port,
            grpc_port=grpc_port,
            metrics_port=metrics_port,
            shm_prefix=self._job.shm_prefix,
            secret=self._job.secret,
            exit_timeout_s=EXIT_TIMEOUT_S,
            trace_rate=self._job.trace_rate,
            trace_url=self._job.trace_url,
        )
        try:
            process = processes.spawn(self._install.argv(command), env=self._install.environment(self._job.mark), log=self._job.log)
        except OSError as error:
            raise MachineError("tritonserver cannot be executed", code="triton-start-failed", hint="deployctl doctor", why=str(error)) from error
        return Started(name=self._job.name, process=process, http_port=http_port, grpc_port=grpc_port, metrics_port=metrics_port)

    def _api(self, started: Started) -> TritonApi:
        return TritonApi(f"127.0.0.1:{started.http_port}", secret=self._job.secret)

    def _loaded(self, started: Started) -> bool:
        """True when Triton says ready, False when its port was taken."""
        api = self._api(started)
        dead = processes.DeadChildren(started.process.pid)
        end_s = time.monotonic() + self._job.start_timeout_s
        while time.monotonic() < end_s and not self._halt.is_set():
            if not processes.alive(started.process):
                text = self._job.log.read_text(errors="replace")
                if port_was_taken(text):
                    self._job.log.write_text("")  # the next attempt must not read this one's reason
                    return False
                raise failure(text)
            if dead.any():
                raise stub_died(self._job.log.read_text(errors="replace"))
            if api.ready():
                return True
            time.sleep(_POLL_S)
        raise MachineError(f"Triton was not ready after {self._job.start_timeout_s:.0f} s", code="triton-start-failed", hint="deployctl logs")

    def _prove(self, started: Started) -> float:
        """Two real inferences with the right outputs; the second one's seconds are the canary's usual time.

        Raises:
            ModelError: wrong outputs (`canary-wrong`); ClusterError: no answer.
        """
        api = self._api(started)
        timeout_s = 10.0 if self._adopt else 60.0
        usual_s = 0.0
        for _ in range(1 if self._adopt else 2):
            began_s = time.monotonic()
            check_outputs(self._job.bundle, api.infer(self._job.bundle.entry, self._job.sample, timeout_s=timeout_s))
            usual_s = time.monotonic() - began_s
        return usual_s

    def _watch(self, started: Started, usual_s: float) -> None:
        api = self._api(started)
        dead = processes.DeadChildren(started.process.pid)
        memory = health.Memory()
        next_canary_s = time.monotonic() + health.canary_interval_s(usual_s)
        while not self._halt.wait(_LOOK_S) and processes.alive(started.process):
            stats, pending = self._read(api, started)
            done = completed(stats)
            verdict: health.Verdict = "healthy"
            reason = "answers"
            if dead.any():
                verdict, reason = "sick", "the process of a Python model has died; Triton never replaces it"
            elif not health.needs_canary(memory, done):
                verdict, reason, memory = health.judge(memory, self._look("skipped", "", done))
                next_canary_s = time.monotonic() + health.canary_interval_s(usual_s)
            elif done is None or memory.strikes or time.monotonic() >= next_canary_s:
                result, detail = self._canary(api, health.canary_timeout_s(usual_s))
                stats, pending = self._read(api, started)
                verdict, reason, memory = health.judge(memory, self._look(result, detail, completed(stats)))
                next_canary_s = time.monotonic() + health.canary_interval_s(usual_s)
            self._post(Looked(name=self._job.name, verdict=verdict, reason=reason, stats=stats, pending=pending))

    @staticmethod
    def _look(result: health.CanaryResult, detail: str, done: int | None) -> health.Look:
        return health.Look(at_s=time.monotonic(), completed=done, canary=result, detail=detail)

    def _canary(self, api: TritonApi, timeout_s: float) -> tuple[health.CanaryResult, str]:
        began_s = time.monotonic()
        try:
            check_outputs(self._job.bundle, api.infer(self._job.bundle.entry, self._job.sample, timeout_s=timeout_s))
        except ModelError as error:
            return ("rejected" if _REJECTED.search(error.message) else "error"), error.message
        except ClusterError as error:
            late = time.monotonic() - began_s >= 0.9 * timeout_s
            return ("timeout" if late else "error"), error.why or error.message
        return "ok", ""

    def _read(self, api: TritonApi, started: Started) -> tuple[ServerStats | None, int | None]:
        try:
            stats = api.stats(timeout_s=1.0)
            metrics = TritonApi(f"127.0.0.1:{started.metrics_port}").request("GET", "/metrics", timeout_s=1.0)[2].decode()
        except (OSError, http.client.HTTPException, DeployctlError, ValueError):
            return None, None
        return stats, sum(int(float(value)) for _, value in _PENDING.findall(metrics))


def completed(stats: ServerStats | None) -> int | None:
    """Requests that succeeded in any model, or None."""
    return None if stats is None else sum(stats.success.values())


def check_outputs(bundle: Bundle, answer: dict[str, Any]) -> None:
    """Refuse an answer that lacks an output or has another shape than the model promises.

    Raises:
        ModelError: `canary-wrong`.
    """
    spec = bundle.model(bundle.entry)
    for tensor in spec.outputs:
        if tensor.name not in answer:
            raise _wrong(f"output {tensor.name} is missing")
        shape = _shape(answer[tensor.name])
        promised = tensor.shape if spec.serving.max_batch == 0 else (-1, *tensor.shape)
        if len(shape) != len(promised) or any(want >= 0 and want != got for want, got in zip(promised, shape, strict=True)) or 0 in shape:
            raise _wrong(f"output {tensor.name} has the shape {list(shape)}, the model promises {list(promised)}")


def _wrong(what: str) -> ModelError:
    return ModelError(f"a sample request was answered wrongly: {what}", code="canary-wrong", hint="deployctl package --force, and look at the model")


def _shape(nested: Any) -> tuple[int, ...]:
    if not isinstance(nested, list):
        return ()
    return (len(nested), *(_shape(nested[0]) if nested else ()))


def new_prefix() -> str:
    """A name for shared memory that no other server has."""
    return f"dpl{secrets.token_hex(4)}_"
