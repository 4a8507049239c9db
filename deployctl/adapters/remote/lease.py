"""Leases in the shared store: one changer at a time over machines, and a number that fences off who was too slow."""

from __future__ import annotations

import dataclasses

from deployctl.core import codec
from deployctl.core.store import Lease
from deployctl.errors import LockHeld
from deployctl.ports import ObjectStore


class HeldLease:
    """A lease of ours; whoever writes under it renews first, and stops where it was lost."""

    def __init__(self, objects: ObjectStore, key: str, lease: Lease, tag: str) -> None:
        self._objects, self._key, self.lease, self._tag = objects, key, lease, tag

    def renew(self) -> int:
        """The fencing token. It is written anew each time: only the store knows whether a paused machine still has the lease."""
        self.write(dataclasses.replace(self.lease, beat=self.lease.beat + 1))
        return self.lease.token

    def write(self, lease: Lease) -> None:
        """Put the lease's next state; LockHeld where somebody else took it (`store-lease-lost`)."""
        tag = self._objects.put(self._key, codec.dumps(lease).encode(), expected=self._tag)
        if tag is None:
            raise lease_lost(self._objects.address)
        self.lease, self._tag = lease, tag


def lease_lost(address: str) -> LockHeld:
    """Somebody else took the lease over (`store-lease-lost`)."""
    return LockHeld(
        "this command was too slow: somebody else changes the store now; it stopped before its next change",
        why="its lease was not renewed in time and was taken over",
        where=address,
        hint="repeat the command: it goes on where it was",
        code="store-lease-lost",
    )
