"""Servers of our own for proofs and probes: start on free ports, wait until ready, stop without leaving anything.

What a killed deployctl left behind is found by a mark in the process environment and ended by the next start.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from deployctl.adapters import processes
from deployctl.adapters.processes import ProcessId
from deployctl.adapters.triton.api import TritonApi
from deployctl.adapters.triton.install import Installation, ServerCommand
from deployctl.core.spans import RequestTimes, Span, request_times
from deployctl.errors import DeployctlError, MachineError, ModelError
from deployctl.ports import CoreUse, ServerStats

_MARK = "DEPLOYCTL_PROBE"
_POLL_S = 0.05
_SPANS_S = 5.0  # Triton sends spans every half second
_NEVER = 1_000_000_000
_BIND_ATTEMPTS = 4
_NOISE = re.compile(r"CUDA driver|CudaDriverHelper|NVML|DCGM|CUDA memory pool|unable to create stream|pinned memory")
_REASON = re.compile(r"failed to load '(?P<model>[^']+)'(?: version \d+)?: (?P<why>.*)", re.DOTALL)
_PORT_TAKEN = re.compile(r"already in use|failed to start (?:HTTP|GRPC|Metrics) service|Address already|Failed to listen|No address added")


class Receiver(Protocol):
    """What takes Triton's spans (`adapters/otlp.py`; adapters do not know each other, so it is handed in)."""

    url: str

    def stop(self) -> None:
        """Close it."""


class _Spans:
    """A receiver and all that it was sent."""

    def __init__(self, receive: Callable[[Callable[[Sequence[Span]], None]], Receiver]) -> None:
        self.seen: list[Span] = []
        self.receiver = receive(self.seen.extend)


class TritonServer:
    """One running tritonserver of a launcher (port `RunningServer`)."""

    def __init__(self, process: ProcessId, command: ServerCommand, folder: Path, spans: _Spans | None = None) -> None:
        self.process = process
        self.pid = process.pid
        self.command = command
        self.http_url = f"127.0.0.1:{command.http_port}"
        self.grpc_url = f"127.0.0.1:{command.grpc_port}"
        self.metrics_url = f"127.0.0.1:{command.metrics_port}"
        self.log = folder / "log"
        self.api = TritonApi(self.http_url, secret=command.secret)
        self._folder = folder
        self._spans = spans
        self._loading_since_s: float | None = None
        self._loaded_at_s: float | None = None

    def infer(self, model: str, request: dict[str, Any], *, timeout_s: float = 30.0) -> dict[str, Any]:
        """One inference; see `TritonApi.infer`."""
        return self.api.infer(model, request, timeout_s=timeout_s)

    def apply(self, model: str, config_text: str) -> None:
        """Explicit mode: load `model` with this config.pbtxt text instead of the file's.

        Raises:
            ModelError: it does not load (`triton-load-failed`).
        """
        self.api.load(model, config_json(config_text))

    def stats(self) -> ServerStats:
        """Cumulative statistics of every model."""
        return self.api.stats()

    def trace(self, model: str, requests: Sequence[dict[str, Any]]) -> list[RequestTimes]:
        """Send these one after the other, each traced; the rows' trace_id is the request's position."""
        if self._spans is None:
            return []
        ids = {secrets.token_hex(16): str(i) for i in range(len(requests))}
        for trace_id, request in zip(ids, requests, strict=True):
            self.api.infer(model, request, headers={"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"})
        end = time.monotonic() + _SPANS_S
        while len(rows := self._traced(ids)) < len(ids) and time.monotonic() < end:
            time.sleep(_POLL_S)
        return rows

    def _traced(self, ids: dict[str, str]) -> list[RequestTimes]:
        assert self._spans is not None
        rows = request_times([s for s in list(self._spans.seen) if s.trace_id in ids])
        return [replace(row, trace_id=ids[row.trace_id]) for row in rows]

    def watch_loading(self, now_s: float) -> None:
        """Note when its log first tells of loading a model, and when all of those are loaded."""
        text = self.log.read_text(errors="replace")
        loading, loaded = text.count('"loading: '), text.count('"successfully loaded ')
        if loading and self._loading_since_s is None:
            self._loading_since_s = now_s
        if loading and loaded >= loading and self._loaded_at_s is None:
            self._loaded_at_s = now_s

    def loading_s(self) -> float | None:
        """How long it loaded models when it started, to a poll's length; None where its log did not say."""
        if self._loading_since_s is None or self._loaded_at_s is None:
            return None
        return self._loaded_at_s - self._loading_since_s

    def core_use(self) -> CoreUse:
        """Core-seconds of the server and of its backend processes."""
        return processes.core_use(self.pid)

    def stop(self) -> None:
        """End the whole process group and remove its shared memory and its folder; safe to call twice."""
        processes.stop_group(self.process, self.command.exit_timeout_s + 5.0)
        processes.remove_shared_memory(self.command.shm_prefix)
        if self._spans is not None:
            self._spans.receiver.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> TritonServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class TritonLauncher:
    """Starts servers; their logs and links lie under `state_dir` while they run."""

    def __init__(
        self,
        state_dir: Path,
        *,
        start_timeout_s: float = 180.0,
        choose_ports: Callable[[int], tuple[int, ...]] = processes.free_ports,
        receive: Callable[[Callable[[Sequence[Span]], None]], Receiver] | None = None,
    ) -> None:
        self._state = state_dir
        self._cpus = processes.cpus()  # before anybody keeps threads on some of them
        self._choose_ports = choose_ports
        self._receive = receive
        self._install = Installation(state_dir)
        self._timeout_s = start_timeout_s

    def version(self) -> str:
        """Version of the installed tritonserver, read without a start."""
        return self._install.version()

    def device(self) -> str:
        """The hardware that evidence is bound to: cores that may be used, such as `cpu-2c`."""
        return f"cpu-{len(self._cpus)}c"

    def cpus(self) -> tuple[int, ...]:
        """The cores that may be used here, by number."""
        return self._cpus

    def on_cores(self, cpus: tuple[int, ...]) -> contextlib.AbstractContextManager[None]:
        """What this thread starts meanwhile, and itself, runs on these cores."""
        return processes.on_cores(cpus)

    def busy_s(self, cpus: tuple[int, ...]) -> float:
        """Core-seconds for which these cores were busy so far, whoever used them."""
        return processes.busy_s(cpus)

    def start(self, repository: Path, *, explicit: bool = False, cpus: tuple[int, ...] = ()) -> TritonServer:
        """Start on free loopback ports; returns when every model is ready.

        Args:
            repository: model repository folder.
            explicit: allow `apply`; the admin API is then open on loopback, otherwise a random secret closes it.
            cpus: cores to pin to; empty means all.

        Raises:
            ModelError: a model does not load; the message is its own reason (`triton-load-failed`).
            MachineError: not installed or cannot start here (`triton-missing`, `numpy-too-new`, `python-unfit`, `triton-start-failed`).
        """
        self._install.check()
        self.sweep()
        for _ in range(_BIND_ATTEMPTS):
            server = self._spawn(repository, explicit=explicit, cpus=cpus)
            try:
                if self._wait_ready(server):
                    return server
            except BaseException:
                server.stop()
                raise
            server.stop()
        raise MachineError("no free port could be bound", code="triton-start-failed", hint="end what takes all loopback ports, then repeat")

    def sweep(self) -> None:
        """End servers whose deployctl has died, and remove their shared memory."""
        for process, mark in processes.marks(_MARK):
            state, owner_pid, owner_start, prefix = [*mark.split("/"), "", "", ""][:4]
            if state != self._key or not owner_pid.isdigit():
                continue
            if not processes.alive(ProcessId(pid=int(owner_pid), start_ticks=int(owner_start))):
                processes.kill_all([process])
                processes.remove_shared_memory(prefix)
                shutil.rmtree(self._state / "servers" / prefix, ignore_errors=True)

    @property
    def _key(self) -> str:
        return hashlib.sha256(str(self._state.resolve()).encode()).hexdigest()[:12]

    def _spawn(self, repository: Path, *, explicit: bool, cpus: tuple[int, ...]) -> TritonServer:
        prefix = f"dpl{secrets.token_hex(4)}_"
        folder = self._state / "servers" / prefix
        folder.mkdir(parents=True)
        http, grpc, metrics = self._choose_ports(3)
        spans = _Spans(self._receive) if explicit and self._receive is not None else None
        command = ServerCommand(
            repository=repository.resolve(),
            http_port=http,
            grpc_port=grpc,
            metrics_port=metrics,
            shm_prefix=prefix,
            explicit=explicit,
            secret="" if explicit else secrets.token_hex(16),
            # Only what carries a trace context is traced: at high rates Triton before 25.04 can crash.
            trace_rate=_NEVER if spans is not None else 0,
            trace_url=spans.receiver.url if spans is not None else "",
        )
        me = processes.identify(os.getpid())
        mark = f"{self._key}/{os.getpid()}/{me.start_ticks if me else 0}/{prefix}"
        env = self._install.environment({_MARK: mark})
        process = processes.spawn(self._install.argv(command), env=env, log=folder / "log", cpus=cpus)
        return TritonServer(process, command, folder, spans)

    def _wait_ready(self, server: TritonServer) -> bool:
        """True when ready, False when a port was taken and another try makes sense."""
        end = time.monotonic() + self._timeout_s
        dead = processes.DeadChildren(server.pid)
        while time.monotonic() < end:
            server.watch_loading(time.monotonic())
            if not processes.alive(server.process):
                text = server.log.read_text(errors="replace")
                if port_was_taken(text):
                    return False
                raise failure(text)
            if dead.any():  # Triton waits for ever for the hello of a Python backend that died
                raise stub_died(server.log.read_text(errors="replace"))
            if server.api.ready():
                server.watch_loading(time.monotonic())
                self._check_version(server)
                return True
            time.sleep(_POLL_S)
        raise MachineError(
            f"Triton was not ready after {self._timeout_s:.0f} s",
            code="triton-start-failed",
            hint="look for a model that loads for ever, or free memory and cores",
            why=failure_reason(server.log.read_text(errors="replace"))[1],
        )

    def _check_version(self, server: TritonServer) -> None:
        said, believed = server.api.version(), self.version()
        if said != believed:
            raise MachineError(
                f"the server says that it is Triton {said}, its wheel should carry {believed}",
                code="triton-start-failed",
                hint="install deployctl again",
            )


def config_json(text: str) -> str:
    """config.pbtxt text as the JSON that Triton's load call wants."""
    from google.protobuf import json_format, text_format
    from tritonclient.grpc import model_config_pb2

    try:
        message = text_format.Parse(text, model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise ModelError(f"this config.pbtxt does not parse: {error}", code="triton-config-invalid", hint="deployctl package") from error
    return str(json_format.MessageToJson(message, preserving_proto_field_name=True))


def failure(log: str) -> DeployctlError:
    """The error of a server that ended before it was ready."""
    model, why = failure_reason(log)
    if model and why.startswith("Internal: Stub process"):
        return stub_died(log)  # the same event, which this time Triton saw before we did
    if model:
        return ModelError(
            f"{model} does not load: {why}", code="triton-load-failed", hint="mend the model or its config.pbtxt, then `deployctl package`"
        )
    return MachineError("Triton ended before it was ready", code="triton-start-failed", hint="deployctl doctor", why=why)


def port_was_taken(log: str) -> bool:
    """Whether a server ended because somebody else took one of its ports, which it notices only after loading."""
    return bool(_PORT_TAKEN.search(log)) and not _REASON.search(log)


def stub_died(log: str) -> ModelError:
    """The error of a server that loads for ever because the process of a Python model has ended."""
    loading = re.findall(r"loading: ([^:\s\"]+):\d+", log)
    done = set(re.findall(r"successfully loaded '([^']+)'", log))
    names = ", ".join(m for m in loading if m not in done) or "a Python model"
    return ModelError(
        f"{names} does not load: the process of a Python model ended while it was loading",
        code="triton-load-failed",
        hint="run the model's code by hand: it exits, crashes or runs out of memory when it is imported or initialised",
        why=failure_reason(log)[1] if re.search(r"Z E (?!.*CudaDriver)", log) else None,
    )


def failure_reason(log: str) -> tuple[str | None, str]:
    """The model that failed (None if it was no model) and Triton's own reason, from its log."""
    entries = _entries(log)
    for entry in entries:
        if found := _REASON.search(entry):
            return found["model"], _tidy(found["why"])
    for entry in entries:
        if "Poll failed for model directory" in entry or "failed to load all models" in entry:
            name = re.search(r"model directory '([^']+)'", entry)
            return (name[1] if name else "a model"), _tidy(entry)
    errors = [e for e in entries if re.search(r"(^E|Z E |error:)", e) and not _NOISE.search(e)]
    tail = errors[-1] if errors else (entries[-1] if entries else "it wrote nothing")
    return None, _tidy(tail)


def _entries(log: str) -> list[str]:
    """Log entries, a continuation line joined to the entry that it belongs to."""
    start = re.compile(r"^(?:[IWE]\d{4} |\d{4}-\d\d-\d\dT\S+ (?:\d+ )?[IWE] |error:|\+--|\|)")
    entries: list[str] = []
    for line in log.splitlines():
        if start.match(line) or not entries:
            entries.append(line)
        else:
            entries[-1] += "\n" + line
    return entries


def _tidy(text: str) -> str:
    """One line for people: the reason without stack frames, log prefix and quotes."""
    text = re.sub(r"^(?:[IWE]\d{4} \S+ \d+ |\d{4}-\d\d-\d\dT\S+ (?:\d+ )?[IWE] )\S+\] ", "", text)
    text = text.replace("\\n", "\n").split("\n\nAt:")[0]
    return " ".join(text.split()).strip('" ')[:600]
