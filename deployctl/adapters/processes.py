"""Operating-system processes by (pid, start time): what enters is a command, what leaves is an identity that a reused pid cannot fake.

The one adapter that other adapters may use. It refuses to know what the processes are for.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deployctl.ports import CoreUse

_PROC = Path("/proc")
_POLL_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessId:
    """A process: `start_ticks` is field 22 of /proc/PID/stat (clock ticks after boot), so a reused pid is told apart."""

    pid: int
    start_ticks: int


def identify(pid: int) -> ProcessId | None:
    """The identity of a live process; None when there is none (a zombie counts as none and is reaped if it is our child)."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()
    if fields[0] in ("Z", "X"):
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        return None
    return ProcessId(pid=pid, start_ticks=int(fields[19]))


def alive(process: ProcessId) -> bool:
    """Whether exactly this process still runs."""
    return identify(process.pid) == process


@contextlib.contextmanager
def on_cores(cpus: tuple[int, ...]) -> Iterator[None]:
    """What this thread starts meanwhile runs on these cores from its first instruction on; empty means all."""
    before = os.sched_getaffinity(0)
    try:
        if cpus:
            os.sched_setaffinity(0, cpus)
        yield
    finally:
        if cpus:
            os.sched_setaffinity(0, before)


def spawn(argv: Sequence[str], *, env: Mapping[str, str], log: Path, cpus: tuple[int, ...] = ()) -> ProcessId:
    """Start a command in a session and process group of its own, its output appended to `log`, no input, no inherited files.

    Args:
        argv: program (absolute path) and arguments.
        env: the whole environment.
        log: file for stdout and stderr.
        cpus: cores that it and its children may use; empty means all.

    Raises:
        OSError: the program cannot be executed.
    """
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    with on_cores(cpus):
        pid = os.posix_spawn(argv[0], list(argv), dict(env), file_actions=actions, setsid=True)
    return identify(pid) or ProcessId(pid=pid, start_ticks=-1)


def wait_gone(process: ProcessId, timeout_s: float) -> bool:
    """Wait until the process has ended; False when it has not within `timeout_s`."""
    return wait_for(lambda: not alive(process), timeout_s)


def wait_for(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Poll `condition` until it holds (True) or `timeout_s` is over (False)."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(_POLL_S)
    return True


class DeadChildren:
    """Notices children of a process that have ended without it taking notice: zombies that stay.

    Triton starts helpers of its own and takes their end within moments, so one look is no proof; the same zombie seen over
    `patience_s` is.
    """

    def __init__(self, parent: int, patience_s: float = 1.0) -> None:
        self._parent = parent
        self._patience_s = patience_s
        self._seen: dict[int, float] = {}

    def any(self) -> bool:
        """Look again; True when a child has been a zombie for longer than the patience."""
        now_s = time.monotonic()
        self._seen = {pid: self._seen.get(pid, now_s) for pid in _zombies(self._parent)}
        return any(now_s - since_s >= self._patience_s for since_s in self._seen.values())


def _zombies(parent: int) -> list[int]:
    found = []
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
            except OSError:
                continue
            state, owner = text[text.rindex(")") + 2 :].split()[:2]
            if state == "Z" and int(owner) == parent:
                found.append(int(entry.name))
    return found


def send(process: ProcessId, number: signal.Signals) -> None:
    """Send a signal to exactly this process; nothing happens when it has ended."""
    if alive(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def members(group: int) -> list[ProcessId]:
    """The live processes of a process group."""
    return [p for p in everyone() if _group(p.pid) == group]


def stop_group(leader: ProcessId, grace_s: float) -> None:
    """SIGTERM to the leader, wait by pid up to `grace_s`, then SIGKILL what is left of its group (which may have outlived it).

    The group's number equals the leader's pid because `spawn` gave it a session of its own. As long as one member lives, the
    number cannot be taken by a stranger; when none lives, there is nothing to kill.
    """
    known = [p for p in members(leader.pid) if p.start_ticks >= leader.start_ticks]
    if alive(leader):
        send(leader, signal.SIGTERM)
        wait_gone(leader, grace_s)
    kill_all({*known, *(p for p in members(leader.pid) if alive(leader) or p in known)})


def kill_all(processes: Iterable[ProcessId], timeout_s: float = 5.0) -> None:
    """SIGKILL each and wait until all are gone."""
    chosen = list(processes)
    for process in chosen:
        send(process, signal.SIGKILL)
    wait_for(lambda: not any(alive(p) for p in chosen), timeout_s)


def everyone() -> Iterator[ProcessId]:
    """Every live process that can be seen."""
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (found := identify(int(entry.name))) is not None:
            yield found


def marked(variable: str, value: str, *, prefix: bool = False) -> list[ProcessId]:
    """The live processes that were started with `variable=value` in their environment (or a value beginning with it)."""
    return [p for p, seen in marks(variable) if seen == value or (prefix and seen.startswith(value))]


def marks(variable: str) -> list[tuple[ProcessId, str]]:
    """Every live process that has `variable` in its start environment, with the value."""
    wanted = variable.encode() + b"="
    found = []
    for process in everyone():
        try:
            environ = (_PROC / str(process.pid) / "environ").read_bytes()
        except OSError:
            continue
        for item in environ.split(b"\0"):
            if item.startswith(wanted):
                found.append((process, item[len(wanted) :].decode(errors="replace")))
                break
    return found


def shared_memory(prefix: str) -> list[Path]:
    """Shared memory regions whose name begins with `prefix`."""
    return sorted(Path("/dev/shm").glob(f"{prefix}*"))


def remove_shared_memory(prefix: str) -> None:
    """Remove regions that a killed process left."""
    for region in shared_memory(prefix):
        region.unlink(missing_ok=True)


def free_ports(count: int) -> tuple[int, ...]:
    """Loopback ports that were free a moment ago, all different."""
    sockets = []
    try:
        for _ in range(count):
            probe = socket.socket()
            sockets.append(probe)
            probe.bind(("127.0.0.1", 0))
        return tuple(s.getsockname()[1] for s in sockets)
    finally:
        for probe in sockets:
            probe.close()


def port_taken(port: int) -> bool:
    """Whether somebody listens on (or holds) this loopback port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def cores() -> int:
    """Cores that this process may use."""
    return len(cpus())


def cpus(pid: int = 0) -> tuple[int, ...]:
    """The cores that this process, or another, may use, by number."""
    return tuple(sorted(os.sched_getaffinity(pid)))


def core_use(leader: int) -> CoreUse:
    """What the live threads of a process group have used of the cores, and how long they stood ready without one.

    Threads from /proc/PID/task/TID/schedstat (nanoseconds on a core, nanoseconds on its run queue); the sum from /proc/PID/stat, which
    keeps what ended threads and reaped children used.
    """
    server: dict[int, float] = {}
    backends: dict[int, tuple[float, float]] = {}
    spent_s = 0.0
    for process in members(leader):
        with contextlib.suppress(OSError):
            spent_s += core_seconds(process.pid)
            for task in (_PROC / str(process.pid) / "task").iterdir():
                with contextlib.suppress(OSError, ValueError):
                    on_core, on_queue, _ = map(int, (task / "schedstat").read_text().split())
                    if process.pid == leader:
                        server[int(task.name)] = on_core / 1e9
                    else:
                        backends[int(task.name)] = (on_core / 1e9, on_queue / 1e9)
    return CoreUse(server=server, backends=backends, spent_s=spent_s)


def core_seconds(pid: int) -> float:
    """Core-seconds of a process, with those of its children that have ended."""
    fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def busy_s(cores: Sequence[int]) -> float:
    """Core-seconds for which these cores were not idle so far, whoever used them; time that a hypervisor took counts."""
    wanted = {f"cpu{core}" for core in cores}
    ticks = 0
    for line in (_PROC / "stat").read_text().splitlines():
        name, *fields = line.split()
        if name in wanted:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
            ticks += user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK")


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return -1
