"""Where the files of one local environment lie, and the state that survives a kill.

What enters and leaves are frozen records; every write is whole (temporary sibling, fsync, rename) and happens before the action
that it announces. Refuses to decide anything.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from deployctl.adapters import processes
from deployctl.adapters.processes import ProcessId
from deployctl.core import codec
from deployctl.core.rollout import ReplicaState
from deployctl.errors import MachineError, ProjectError
from deployctl.ports import TargetStatus, Workspace

T = TypeVar("T")

MARK = "DEPLOYCTL_REPLICA"
DOOR = "front-door"
SUPERVISOR = "supervisor"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaRecord:
    """One replica; what is None is not known yet.

    Attributes:
        name: `replica-7`, never used twice in an environment.
        revision, content: of the release that it was started for.
        reason: why it is in this state, for people.
        since_s: Unix time of the last change of state.
        process: leader of its process group.
        secret: opens its admin API; the file is readable by this user only.
        cores: reserved for it, for the cost counter.
    """

    name: str
    revision: int
    content: str
    state: ReplicaState
    reason: str
    since_s: float
    process: ProcessId | None = None
    http_port: int = 0
    grpc_port: int = 0
    metrics_port: int = 0
    shm_prefix: str = ""
    secret: str = ""
    in_rotation: bool = False
    restarts: int = 0
    cores: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorRecord:
    """The running front door."""

    process: ProcessId
    http_port: int
    grpc_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Starts of one release's content that went wrong: how many in a row, why, and when the next may be tried (Unix time)."""

    content: str
    count: int
    reason: str
    next_start_s: float
    hopeless: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HostState:
    """Everything that the next supervisor must know.

    Attributes:
        sequence: number of the newest replica.
        replicas_wanted: last decided number; 0 before the first release.
        serving: revision that took over the traffic last.
        failed: revision that was given up while an older one serves, and why.
        core_seconds: reserved cores times time, since the first `up`.
        otlp_port: where replicas send spans.
    """

    schema_version: Literal[1] = 1
    replicas: tuple[ReplicaRecord, ...] = ()
    door: DoorRecord | None = None
    sequence: int = 0
    replicas_wanted: int = 0
    serving: int | None = None
    failed: int | None = None
    failed_reason: str = ""
    failure: Failure | None = None
    core_seconds: float = 0.0
    otlp_port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusFile:
    """status.json: the status and who wrote it."""

    writer: ProcessId
    at_s: float
    status: TargetStatus


class EnvFolder:
    """Paths and files of one environment."""

    def __init__(self, workspace: Workspace, env: str) -> None:
        self.workspace = workspace
        self.env = env
        self.root = workspace.env(env)
        self.state_file = self.root / "state.json"
        self.status_file = self.root / "status.json"
        self.replicas = self.root / "replicas"
        self.logs = self.root / "logs"
        self.store = self.root / "spans.db"
        self.door = self.root / DOOR
        self.releases = self.root / "releases"
        self._lock = self.root / "supervisor.lock"

    def mark(self, name: str = "") -> str:
        """Value of DEPLOYCTL_REPLICA by which a process of ours is found in /proc, whoever its parent is."""
        key = hashlib.sha256(str(self.workspace.root.resolve()).encode()).hexdigest()[:16]
        return f"{key}/{self.env}/{name}"

    def log(self, name: str) -> Path:
        """Log file of a replica, the front door or the supervisor."""
        return self.logs / f"{name}.log"

    def load(self) -> HostState:
        """The last state; an empty one when there is none or it is damaged (marked processes are found anyway)."""
        return _read(HostState, self.state_file) or HostState()

    def save(self, state: HostState) -> None:
        """Write the state: whole, durable, for this user's eyes."""
        write_whole(self.state_file, codec.dumps(state), durable=True)

    def write_status(self, file: StatusFile) -> None:
        """Write status.json."""
        write_whole(self.status_file, codec.dumps(file), durable=False)

    def read_status(self) -> StatusFile | None:
        """The last status.json; None when there is none or it is not one of this version."""
        return _read(StatusFile, self.status_file)

    def holder(self) -> ProcessId | None:
        """The live process that holds the supervisor's lock."""
        known = self._named()[0]
        return known if known is not None and processes.alive(known) and not self._free() else None

    def _named(self) -> tuple[ProcessId | None, bool]:
        """Who last took the lock, and whether it took it to supervise."""
        try:
            data = json.loads(self._lock.read_text())
            return ProcessId(pid=data["pid"], start_ticks=data["start_ticks"]), bool(data["supervises"])
        except (FileNotFoundError, ValueError, KeyError):
            return None, False

    def _supervised(self) -> bool:
        known, supervises = self._named()
        return known is not None and supervises and known.pid != os.getpid() and processes.alive(known)

    def _free(self) -> bool:
        with self._lock.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    @contextlib.contextmanager
    def exclusive(self, wait_s: float, *, supervises: bool = False) -> Iterator[None]:
        """Hold the supervisor's lock; the kernel drops it when the process dies.

        A process that wants to supervise does not wait for another supervisor: it would take over when that one is stopped by
        `down`, and bring back what was just taken down.

        Raises:
            MachineError: somebody holds it after `wait_s`, or supervises already (`supervisor-busy`).
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with self._lock.open("a+") as file:
            taken = False

            def settled() -> bool:
                nonlocal taken
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return supervises and self._supervised()
                taken = True
                return True

            processes.wait_for(settled, wait_s)
            if not taken:
                raise MachineError("another supervisor looks after this environment", code="supervisor-busy", hint="deployctl status")
            me = processes.identify(os.getpid())
            file.truncate(0)
            file.write(json.dumps({"pid": os.getpid(), "start_ticks": me.start_ticks if me else 0, "supervises": supervises}))
            file.flush()
            yield


def _read(cls: type[T], file: Path) -> T | None:
    try:
        return codec.loads(cls, file.read_text())
    except (FileNotFoundError, ProjectError):
        return None


def write_whole(path: Path, text: str, *, durable: bool) -> None:
    """Replace a file so that a reader sees the old or the new content, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
