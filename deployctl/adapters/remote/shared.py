"""The parts of a shared store, joined."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from deployctl.adapters.remote.content import RemoteBlobs, RemoteBundles
from deployctl.adapters.remote.lease import HeldLease
from deployctl.adapters.remote.records import RemoteRecords
from deployctl.core import codec, store
from deployctl.core.store import Lease
from deployctl.errors import CloudError, LockHeld
from deployctl.ports import BlobStore, ObjectStore


class Remote:
    """RemoteStore over one ObjectStore.

    Args:
        objects: the store.
        local: this machine's blobs; what is fetched is kept there.
        scratch: folder for downloads under way, on the same disk.
        owner: who takes leases, told to whoever has to wait.
        ttl_s: how long a lease holds without a renewal.
        patience_s: how long to wait for somebody else's; more than `ttl_s`, so that a dead holder is outlived.
        poll_s: between looks at it.
        monotonic_s, sleep_s: time, for tests.
    """

    def __init__(
        self,
        objects: ObjectStore,
        local: BlobStore,
        scratch: Path,
        *,
        owner: str,
        ttl_s: float = store.LEASE_TTL_S,
        patience_s: float = 90.0,
        poll_s: float = 0.5,
        monotonic_s: Callable[[], float] = time.monotonic,
        sleep_s: Callable[[float], None] = time.sleep,
    ) -> None:
        self.objects = objects
        self.blobs = RemoteBlobs(objects, local, scratch)
        self.bundles = RemoteBundles(objects)
        self._owner, self._ttl_s, self._patience_s, self._poll_s = owner, ttl_s, patience_s, poll_s
        self._monotonic_s, self._sleep_s = monotonic_s, sleep_s

    def records(self, service: str, env: str) -> RemoteRecords:
        """Releases of one environment."""
        return RemoteRecords(self.objects, service, env, lambda: self.lease(f"{service}.{env}"))

    @contextlib.contextmanager
    def lease(self, name: str) -> Iterator[Callable[[], int]]:
        """See the port. A holder that died is replaced when its TTL has passed, by the store's clock."""
        held = HeldLease(self.objects, store.lease_key(name), *self._take(name))
        try:
            yield held.renew
        finally:
            with contextlib.suppress(CloudError, LockHeld):  # it ends by itself
                held.write(dataclasses.replace(held.lease, released=True, beat=held.lease.beat + 1))

    def _take(self, name: str) -> tuple[Lease, str]:
        key, nonce, deadline_s = store.lease_key(name), secrets.token_hex(8), self._monotonic_s() + self._patience_s
        while True:
            found = self.objects.get(key)
            lease = codec.loads(Lease, found.data.decode(), where=f"{self.objects.address}/{key}") if found else None
            if store.lease_is_free(lease, found.age_s if found else 0.0):
                mine = store.next_lease(lease, owner=self._owner, nonce=nonce, ttl_s=self._ttl_s)
                tag = self.objects.put(key, codec.dumps(mine).encode(), expected=found.tag if found else None)
                if tag is not None:
                    return mine, tag
            elif self._monotonic_s() >= deadline_s and lease is not None:
                raise LockHeld(
                    f"{lease.owner} is changing {self.objects.address}",
                    why=f"the lease {name} is theirs; it was renewed within the last {lease.ttl_s:.0f} s",
                    hint="wait for them, then repeat the command; a holder that died is replaced by itself",
                    code="store-lease-held",
                )
            self._sleep_s(self._poll_s)
