"""The Target port for this machine: makes sure that a supervisor runs, reads what it tells, and takes everything down.

Refuses to act on replicas itself, except in `down`, which holds the supervisor's lock meanwhile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
import time
from collections.abc import Iterator

from deployctl.adapters import processes
from deployctl.adapters.envoy import EnvoyDoor, port_taken_error
from deployctl.adapters.processes import ProcessId
from deployctl.adapters.records import FileRecordStore
from deployctl.adapters.triton import Installation, TritonApi
from deployctl.core.contention import CoreReading
from deployctl.core.kube_drift import Difference
from deployctl.core.plan import Plan
from deployctl.core.release import Release
from deployctl.errors import ClusterError, MachineError, NotFound, ProjectError
from deployctl.hosts.local import logs as log_files
from deployctl.hosts.local.layout import DOOR, MARK, SUPERVISOR, EnvFolder, HostState
from deployctl.hosts.local.replica import EXIT_TIMEOUT_S
from deployctl.hosts.local.takeover import erase, remove
from deployctl.ports import Progress, ServerStats, TargetStatus, Workspace

_START_S = 30.0
_STOP_S = 15.0
_SILENT_S = 20.0


class LocalTarget:
    """One environment on this machine."""

    def __init__(self, workspace: Workspace, env: str) -> None:
        self._folder = EnvFolder(workspace, env)

    def apply(self, release: Release) -> None:
        """Make sure that a supervisor runs; it sees the release, which is already recorded, by itself.

        Raises:
            MachineError: see `check`, or the supervisor does not start (`supervisor-failed`).
        """
        if self._folder.holder() is None:
            self.check(release.plan)
            self._start()

    def check(self, plan: Plan) -> None:
        """Whether a release of this plan can begin here; nothing is changed.

        Raises:
            MachineError: Triton or Envoy is not installed, or a port is taken (`port-taken`).
        """
        Installation(self._folder.workspace.state / "triton").check()
        EnvoyDoor.binary()
        door = self._folder.load().door
        if door is None or not processes.alive(door.process):
            if processes.marked(MARK, self._folder.mark(DOOR)):
                return  # one that nobody remembers has the ports; the supervisor ends it first
            door = None
        ours = (0, door.http_port, door.grpc_port) if door else (0,)
        for port in (plan.ports.http, plan.ports.grpc):
            if port not in ours and processes.port_taken(port):
                raise port_taken_error(port)

    def _start(self) -> None:
        """Start the supervisor in a session of its own and wait until it tells its status."""
        self._folder.logs.mkdir(parents=True, exist_ok=True)
        log = self._folder.log(SUPERVISOR)
        # -P: a module in the user's folder must not stand in for one of ours.
        argv = [sys.executable, "-P", "-m", "deployctl.hosts.local", "--root", str(self._folder.workspace.root), "--env", self._folder.env]
        process = processes.spawn(argv, env=dict(os.environ), log=log)

        def told() -> bool:
            return self._fresh() is not None

        processes.wait_for(lambda: told() or (not processes.alive(process) and self._folder.holder() is None), _START_S)
        if not told():
            why = log.read_text(errors="replace").strip()[-600:] if log.exists() else "it wrote nothing"
            raise MachineError("the supervisor does not start", code="supervisor-failed", hint="deployctl logs; deployctl doctor", why=why)

    def _fresh(self) -> TargetStatus | None:
        """The status that the living supervisor wrote."""
        file = self._folder.read_status()
        holder = self._folder.holder()
        if file is None or holder is None or file.writer != holder:
            return None
        silent_s = time.time() - file.at_s
        if silent_s < _SILENT_S:
            return file.status
        message = f"the supervisor (pid {holder.pid}) has told nothing for {silent_s:.0f} s; `deployctl logs` may say why"
        return dataclasses.replace(file.status, phase="degraded", message=message)

    def status(self) -> TargetStatus:
        """The live status; without a supervisor, what still serves."""
        return self._fresh() or self._orphaned()

    def _orphaned(self) -> TargetStatus:
        state = self._folder.load()
        door = state.door if state.door and processes.alive(state.door.process) else None
        routed = [r for r in state.replicas if r.in_rotation and r.process is not None and processes.alive(r.process)]
        serves = door is not None and bool(routed)
        last = self._folder.read_status()
        starting = self._folder.holder() is not None
        message = f"no supervisor runs; the front door and {len(routed)} replica(s) go on serving" if serves else "nothing runs"
        return TargetStatus(
            alive=False,
            url=f"http://127.0.0.1:{door.http_port}" if door and serves else None,
            grpc_url=f"127.0.0.1:{door.grpc_port}" if door and serves else None,
            revision_serving=state.serving if serves else None,
            revision_wanted=last.status.revision_wanted if last and serves else None,
            phase="starting" if starting else "degraded" if serves else "stopped",
            message="the supervisor starts" if starting else message,
            replicas=last.status.replicas if last and serves else (),
            replicas_wanted=state.replicas_wanted if serves else 0,
            policy_says="",
            recent=last.status.recent if last else (),
        )

    def stats(self) -> dict[str, ServerStats]:
        """Each routed replica's own statistics; one that does not answer is left out."""
        found = {}
        for record in self._folder.load().replicas:
            if record.in_rotation and record.http_port:
                with contextlib.suppress(ClusterError):
                    found[record.name] = TritonApi(f"127.0.0.1:{record.http_port}", secret=record.secret).stats(timeout_s=2.0)
        return found

    def core_reading(self) -> CoreReading | None:
        """Replicas, front door, supervisor and this command with what it has ended, on the cores of the replicas; None where none serves."""
        routed = [r.process for r in self._folder.load().replicas if r.in_rotation and r.process is not None]
        cores: set[int] = set()
        for process in routed:
            with contextlib.suppress(OSError):
                cores.update(processes.cpus(process.pid))
        if not cores:
            return None
        ours = [*processes.marked(MARK, self._folder.mark(), prefix=True), self._folder.holder(), processes.identify(os.getpid())]
        own_s: dict[str, float] = {}
        for process in (p for p in ours if p is not None):
            with contextlib.suppress(OSError):
                own_s[f"{process.pid}-{process.start_ticks}"] = processes.core_seconds(process.pid)
        return CoreReading(at_s=time.monotonic(), cores=float(len(cores)), busy_s=processes.busy_s(sorted(cores)), own_s=own_s)

    @contextlib.contextmanager
    def reach(self) -> Iterator[str]:
        """The front door itself.

        Raises:
            ClusterError: nothing serves (`not-reachable`).
        """
        url = self.status().url
        if url is None:
            raise ClusterError("nothing serves", hint="deployctl status", code="not-reachable")
        yield url

    def pending(self, plan: Plan) -> list[Difference]:
        """Refused (`no-live-objects`): replicas are processes, and a changed release starts new ones."""
        raise ProjectError(
            f"{plan.env} runs on this machine, as processes and not as objects",
            hint="deployctl diff   (compares releases)",
            code="no-live-objects",
        )

    def drift(self) -> list[Difference]:
        """Where the live replicas are not those of the newest release; nobody can change one behind the supervisor's back.

        Raises:
            NotFound: nothing runs (`not-running`).
        """
        newest, status = FileRecordStore(self._folder.root).history().current, self.status()
        if newest is None or status.revision_serving is None:
            raise NotFound("nothing runs here", hint="deployctl up", code="not-running")
        ready = sum(r.state == "ready" for r in status.replicas)
        facts = {"revision": (status.revision_serving, newest.revision), "replicas": (ready, status.replicas_wanted)}
        name = newest.plan.service
        return [Difference(kind="Service", name=name, path=path, live=live, wanted=want) for path, (live, want) in facts.items() if live != want]

    def logs(self, *, replica: str | None, since_s: float | None, follow: bool) -> Iterator[str]:
        """Lines `[source] text`; source is `replica-N`, `front-door` or `supervisor`.

        Raises:
            NotFound: no replica of that name left a log (`replica-not-found`).
        """
        names = log_files.replicas(self._folder.logs)
        if replica is not None and not {replica, f"replica-{replica}"} & set(names):
            raise NotFound(
                f"there is no replica {replica}", why=f"there are {', '.join(names) or 'none'}", hint="deployctl status", code="replica-not-found"
            )
        return log_files.read(self._folder.logs, replica=replica, since_s=since_s, follow=follow)

    def down(self, progress: Progress) -> None:
        """Stop the supervisor, the front door and all replicas, and remove private copies; works after a kill of everything.

        Raises:
            MachineError: the supervisor cannot be stopped (`supervisor-busy`).
        """
        if not self._folder.root.is_dir():
            return
        holder = self._folder.holder()
        if holder is not None:
            progress.step("stopping the supervisor")
            processes.send(holder, signal.SIGTERM)
            if not processes.wait_gone(holder, _STOP_S):
                processes.kill_all([holder])
        with self._folder.exclusive(_STOP_S):
            state = self._folder.load()
            progress.step("closing the front door, then stopping the replicas")
            self._close_door(state)
            self._stop_replicas(state)
            for file in (self._folder.state_file, self._folder.status_file):
                file.unlink(missing_ok=True)

    def _close_door(self, state: HostState) -> None:
        door = EnvoyDoor(self._folder.door)
        if state.door is not None:
            door.stop(state.door.process)
        processes.kill_all(processes.marked(MARK, self._folder.mark(DOOR)))
        door.clean()

    def _stop_replicas(self, state: HostState) -> None:
        running: list[ProcessId] = [r.process for r in state.replicas if r.process is not None]
        for process in running:
            processes.send(process, signal.SIGTERM)
        processes.wait_for(lambda: not any(processes.alive(p) for p in running), EXIT_TIMEOUT_S / 2)
        for record in state.replicas:
            erase(self._folder, record)
        processes.kill_all(processes.marked(MARK, self._folder.mark(), prefix=True))
        if self._folder.replicas.is_dir():
            for folder in self._folder.replicas.iterdir():
                remove(folder, "", (MARK, self._folder.mark(folder.name)))
