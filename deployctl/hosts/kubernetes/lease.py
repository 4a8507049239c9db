"""Who may change a service on a cluster now: one coordination.k8s.io Lease a service, with a token that only rises.

What enters is who asks; what leaves is the token of the holding, or who holds it instead. Time is the API server's, so no two
machines' clocks are compared. A holder that ended on this machine gives way at once, any other one after its TTL. The token is
`leaseTransitions`: the inventory keeps the one of its last writer, and a writer with a lower one is refused, so that even a
holder that slept through its own end cannot undo what came after it. Refuses to know what is changed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deployctl.adapters import processes
from deployctl.adapters.processes import ProcessId
from deployctl.core import kube_names
from deployctl.core.platform import ServiceAddress
from deployctl.errors import LockHeld
from deployctl.hosts.kubernetes.writer import Api

API, KIND = "coordination.k8s.io/v1", "Lease"
TTL_S = 30.0
PATIENCE_S = 60.0
_RENEW_S = TTL_S / 3
_LOOK_S = 0.5
_BY = "deployctl/by"
Live = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What a Lease says: `holder` is empty where nobody holds it, `by` is for people, `renewed_s` the API server's Unix time."""

    holder: str = ""
    by: str = ""
    token: int = 0
    renewed_s: float = 0.0

    def free_at(self, now_s: float) -> bool:
        """Whether anybody may take it."""
        return not self.holder or now_s - self.renewed_s > TTL_S


class Lease:
    """The Lease of one service, as one command holds it."""

    def __init__(self, api: Api, of: ServiceAddress, by: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._api, self._of, self._by, self._sleep = api, of, by, sleep
        self._name = kube_names.name("deployctl", of.service, of.env)
        self._mine: Holding | None = None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold it for the moment of a change. Not re-entrant.

        Raises:
            LockHeld: somebody else holds it and keeps renewing (`lock-held`, exit 12), with who.
        """
        self._take()
        try:
            yield
        finally:
            self._give_back()

    def token(self) -> int:
        """The fencing token; renews in time. 0 where nothing is held.

        Raises:
            LockHeld: somebody else took it over (`lease-lost`).
        """
        mine = self._mine
        if mine is None:
            return 0
        if self._api.now_s() - mine.renewed_s > _RENEW_S:
            item, live = self._look()
            if live.holder != mine.holder:
                raise self._lost(live)
            self._mine = self._write(item, replace(mine, renewed_s=self._api.now_s()))
        return mine.token

    def _take(self) -> None:
        holder, waited_s = _me(), 0.0
        while True:
            item, live = self._look()
            if live.holder == holder:  # an answer got lost; the write did not
                self._mine = live
                return
            if live.free_at(self._api.now_s()) or _ended_here(live.holder):
                with contextlib.suppress(LockHeld):  # somebody was faster: look again
                    self._mine = self._write(item, Holding(holder=holder, by=self._by, token=live.token + 1, renewed_s=self._api.now_s()))
                    return
            if waited_s >= PATIENCE_S:
                raise LockHeld(
                    f"{live.by or live.holder} is changing {self._of.service} in {self._of.env}",
                    why=f"the Lease {self._of.namespace}/{self._name} was renewed {self._api.now_s() - live.renewed_s:.0f} s ago",
                    hint="wait for it and repeat the command; a holder that dies gives way by itself within a minute",
                    code="lock-held",
                )
            self._sleep(_LOOK_S)
            waited_s += _LOOK_S

    def _give_back(self) -> None:
        mine, self._mine = self._mine, None
        if mine is None:
            return
        # Failing here is no failure of the change: the Lease runs out by itself.
        with contextlib.suppress(Exception):
            item, live = self._look()
            if live.holder == mine.holder:
                self._write(item, replace(mine, holder=""))

    def _look(self) -> tuple[Live | None, Holding]:
        item = self._api.get(API, KIND, self._of.namespace, self._name)
        return item, _read(item)

    def _write(self, item: Live | None, holding: Holding) -> Holding:
        wanted = _manifest(self._of, self._name, holding)
        if item is None:
            self._api.create(wanted)
        else:
            wanted["metadata"]["resourceVersion"] = item["metadata"]["resourceVersion"]
            self._api.apply(wanted, force=True)
        return holding

    def _lost(self, live: Holding) -> LockHeld:
        return LockHeld(
            f"this command lost its turn: {live.by or 'somebody else'} took over",
            why=f"it said nothing for more than {TTL_S:.0f} s",
            hint="deployctl status   (and repeat the command if yours should win)",
            code="lease-lost",
        )


def _me() -> str:
    """This process for ever: boot, pid namespace, pid and start time, and a number of its own for each holding."""
    me = processes.identify(os.getpid())
    assert me is not None
    return f"{_machine()}.{me.pid}.{me.start_ticks}.{secrets.token_hex(4)}"


def _machine() -> str:
    """Names what a pid is unique in: this boot and this pid namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    space = str(Path("/proc/self/ns/pid").readlink()).removeprefix("pid:[").removesuffix("]")
    return f"{boot}.{space}"


def _ended_here(holder: str) -> bool:
    """Whether the holder was a process of this very machine and has ended: no need to wait for its TTL then."""
    machine, _, rest = holder.partition(f"{_machine()}.")
    parts = rest.split(".")
    if machine or len(parts) != 3 or not all(p.isdigit() for p in parts[:2]):
        return False
    return not processes.alive(ProcessId(pid=int(parts[0]), start_ticks=int(parts[1])))


def _read(item: Live | None) -> Holding:
    if item is None:
        return Holding()
    spec = item.get("spec") or {}
    renewed = spec.get("renewTime")
    return Holding(
        holder=str(spec.get("holderIdentity") or ""),
        by=str((item["metadata"].get("annotations") or {}).get(_BY, "")),
        token=int(spec.get("leaseTransitions") or 0),
        renewed_s=datetime.fromisoformat(renewed).timestamp() if renewed else 0.0,
    )


def _manifest(of: ServiceAddress, name: str, holding: Holding) -> Live:
    return {
        "apiVersion": API,
        "kind": KIND,
        "metadata": {
            "name": name,
            "namespace": of.namespace,
            "labels": {**kube_names.labels(of), "app.kubernetes.io/component": "lease"},
            "annotations": {kube_names.OWNER: kube_names.owner(of), _BY: holding.by},
        },
        "spec": {
            "holderIdentity": holding.holder,
            "leaseDurationSeconds": round(TTL_S),
            "leaseTransitions": holding.token,
            "renewTime": datetime.fromtimestamp(holding.renewed_s, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        },
    }
