"""The supervisor's hold on the front door: started once, adopted afterwards, kept on the same ports, told who gets traffic.

What enters are ports and upstreams, what leaves are a `DoorRecord` to remember and counters. Refuses to decide who gets traffic.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Literal

from deployctl.adapters import processes
from deployctl.adapters.envoy import DoorSpec, EnvoyDoor, port_taken_error
from deployctl.errors import DeployctlError
from deployctl.hosts.local.layout import DOOR, MARK, DoorRecord, EnvFolder
from deployctl.hosts.local.meter import DoorMeter

_RETRY_S = 1.0
_UNHEARD = 4
_FREED_S = 2.0


class FrontDoor:
    """One Envoy; `remember` writes its record down."""

    def __init__(
        self, folder: EnvFolder, record: DoorRecord | None, remember: Callable[[DoorRecord | None], None], say: Callable[[str], None]
    ) -> None:
        self._folder = folder
        self._envoy = EnvoyDoor(folder.door)
        self._log = folder.log(DOOR)
        self._remember = remember
        self._say = say
        self._applied: DoorSpec | None = None  # what an adopted one has is not known, so it is told once more
        self._next_try_s = 0.0
        self.record = record
        self._unheard = 0  # readings in a row without an answer
        self.settled = False  # whether it does what was last asked of it
        self.trouble = ""
        self.meter = DoorMeter()

    def keep(self, wanted: DoorSpec) -> bool:
        """Whether it runs and does what is wanted; otherwise it is called again, and what is wrong stands in `trouble`.

        A port of 0 lets it choose, and keep what it chose.
        """
        self.settled = self._keep(wanted)
        return self.settled

    def _keep(self, wanted: DoorSpec) -> bool:
        door = self.record
        if door and self._lives(door) and wanted.http_port in (0, door.http_port) and wanted.grpc_port in (0, door.grpc_port):
            return self._sync(dataclasses.replace(wanted, http_port=door.http_port, grpc_port=door.grpc_port))
        if time.monotonic() < self._next_try_s:
            return False
        self._next_try_s = time.monotonic() + _RETRY_S
        if door is not None and self._lives(door):  # it is to move: nothing is closed before the new place is known to be free
            for new in (wanted.http_port, wanted.grpc_port):
                if new not in (0, door.http_port, door.grpc_port) and processes.port_taken(new):
                    return self._fail(port_taken_error(new))
        if door is not None:
            self._say("the front door is started again")
            self._envoy.stop(door.process)
        http_port = self._choose(wanted.http_port, door.http_port if door else 0)
        grpc_port = self._choose(wanted.grpc_port, door.grpc_port if door else 0)
        spec = dataclasses.replace(wanted, http_port=http_port, grpc_port=grpc_port)
        try:
            process = self._envoy.start(spec, log=self._log, mark={MARK: self._folder.mark(DOOR)})
        except DeployctlError as error:
            return self._fail(error)
        self.trouble, self._applied, self._unheard = "", spec, 0
        self._set(DoorRecord(process=process, http_port=http_port, grpc_port=grpc_port))
        self._say(f"the front door listens on 127.0.0.1:{http_port} (HTTP) and 127.0.0.1:{grpc_port} (gRPC)")
        return True

    @staticmethod
    def _choose(wanted: int, former: int) -> int:
        if wanted:
            return wanted
        # A killed process keeps its ports until its last thread is gone.
        free = former and processes.wait_for(lambda: not processes.port_taken(former), _FREED_S)
        return former if free else processes.free_ports(1)[0]

    def _sync(self, spec: DoorSpec) -> bool:
        if spec == self._applied:
            return True
        try:
            self._envoy.change(spec)
        except DeployctlError as error:
            return self._fail(error)
        self._applied, self.trouble = spec, ""
        return True

    def read(self) -> None:
        """Take one reading of the counters."""
        counters = self._envoy.counters() if self.record else None
        self._unheard = self._unheard + 1 if counters is None else 0
        self.meter.add(time.time(), counters)

    def _lives(self, door: DoorRecord) -> bool:
        """Whether it runs and can be told something; one that hangs, or whose admin socket was removed, is replaced."""
        return self._unheard < _UNHEARD and processes.alive(door.process)

    def _set(self, record: DoorRecord | None) -> None:
        self.record = record
        self._remember(record)

    def _fail(self, error: DeployctlError) -> Literal[False]:
        text = error.message + (f": {error.why}" if error.why else "") + f" ({error.hint})"
        if text != self.trouble:
            self._say(text)
        self.trouble = text
        return False
