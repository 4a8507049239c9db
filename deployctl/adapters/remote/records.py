"""Release records of one environment in the shared store."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator

from deployctl.adapters.remote.lease import lease_lost
from deployctl.adapters.remote.parallel import at_once
from deployctl.core import codec, store
from deployctl.core.release import History, ParentChanged, Release, check_link, overtaken, without_hold
from deployctl.core.store import Head
from deployctl.errors import ProjectError
from deployctl.ports import ObjectStore, Stored


class RemoteRecords:
    """RecordStore of one environment in the shared store."""

    def __init__(
        self, objects: ObjectStore, service: str, env: str, lease: Callable[[], contextlib.AbstractContextManager[Callable[[], int]]]
    ) -> None:
        self._objects, self._service, self._env, self._lease = objects, service, env, lease
        self._renew: Callable[[], int] | None = None

    def history(self) -> History:
        """All releases, chain checked.

        Raises:
            ProjectError: a record is damaged or missing, the newest ones included (`record-damaged`).
        """
        found, lost = self.salvage()
        if lost:
            raise ProjectError(
                lost[0],
                why="releases are chained by digest, so that a change is seen",
                where=f"{self._objects.address}/{store.releases_prefix(self._service, self._env)}",
                hint=f"deployctl recover --env {self._env}   (says what is whole and what is lost)",
                code="record-damaged",
            )
        return found

    def salvage(self) -> tuple[History, tuple[str, ...]]:
        """The longest sound beginning of the history, and what is lost, in words."""
        head, _ = self._head()  # before the listing, see `newest`
        numbers = self._numbers()
        whole: list[Release] = []
        lost: list[str] = []
        for number, found in zip(numbers, at_once(self._read, numbers), strict=True):
            where = f"{self._objects.address}/{store.release_key(self._service, self._env, number)}"
            try:
                release = codec.loads(Release, found.data.decode(errors="replace") if found else "", where=where)
                check_link(release, whole[-1] if whole else None, number=number, where=where, first=head.first)
            except ProjectError as error:
                lost = [f"revision {number}: {error.message}", *(f"revision {n}: follows a lost one" for n in numbers if n > number)]
                if isinstance(error, ParentChanged):
                    lost.insert(0, f"revision {whole.pop().revision}: is not what was recorded")
                break
            whole.append(release)
        known = whole[-1].revision if whole else head.first - 1
        if not lost and head.revision > known:
            lost = [f"revision {n} is missing: {head.revision} were recorded" for n in range(known + 1, head.revision + 1)]
        elif not lost and head.revision and head.digest != whole[head.revision - head.first].digest:
            lost = [f"revision {r.revision}: is not what was recorded" for r in whole[head.revision - head.first :]]
            del whole[head.revision - head.first :]
        return History(releases=tuple(whole), held=head.held), tuple(lost)

    def newest(self) -> Release | None:
        """The last record, checked against the pointer only: enough to append, and cheap however long the history is."""
        head, _ = self._head()  # first: it never goes back, so every record that it counts is in the listing after it
        numbers = self._numbers()
        if not numbers:
            return self.history().current
        found = self._read(numbers[-1])
        where = f"{self._objects.address}/{store.release_key(self._service, self._env, numbers[-1])}"
        release = codec.loads(Release, found.data.decode(errors="replace") if found else "", where=where)
        if head.revision > release.revision or (head.revision == release.revision and head.digest != release.digest):
            self.history()  # says what is lost
        return release

    def rewrite(self, release: Release) -> None:
        """Put a record in place of a lost or damaged one; only for who holds the sound chain."""
        key = store.release_key(self._service, self._env, release.revision)
        found, data = self._objects.get(key), codec.dumps(release).encode()
        if found is None or found.data != data:
            self._objects.put(key, data, expected=found.tag if found else None)

    def keep_holds(self, held: tuple[str, ...]) -> None:
        """Make the holds exactly these; writes nothing where they are."""
        self._change(lambda head: dataclasses.replace(head, held=held))

    def append(self, release: Release, *, expected_parent: str | None) -> None:
        """Add the next release; durable when this returns.

        Raises:
            LockHeld: somebody else appended first (`plan-stale`), or took the lease meanwhile (`store-lease-lost`).
        """
        current = self.newest()
        if current is None and release.revision > 1:
            self._begin(release.revision)
        elif (current.digest if current else None) != expected_parent:
            raise overtaken(current, time.time())
        token = self._renew() if self._renew else 0
        if token and self._head()[0].fence > token:
            raise lease_lost(self._objects.address)
        data = codec.dumps(release).encode()
        if self._objects.put(store.release_key(self._service, self._env, release.revision), data, expected=None) is None:
            raise overtaken(self.newest(), time.time())
        self._change(lambda head: _moved(head, release, token))

    def _begin(self, first: int) -> None:
        """An empty copy begins late: the records before are kept nowhere any more."""
        self._change(lambda head: head if head.revision else dataclasses.replace(head, first=first))

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the environment's lease: what is appended inside carries its fencing token."""
        with self._lease() as renew:
            self._renew = renew
            try:
                yield
            finally:
                self._renew = None

    def hold(self, content: str) -> None:
        """Put a content digest on hold; nothing happens if it already is."""
        self._change(lambda head: head if content in head.held else dataclasses.replace(head, held=(*head.held, content)))

    def allow(self, content: str) -> None:
        """Lift a hold by digest or by a unique prefix of it, with or without `sha256:`; NotFound else (`hold-not-found`)."""
        self._change(lambda head: dataclasses.replace(head, held=without_hold(head.held, content)))

    def _numbers(self) -> list[int]:
        rows = [store.release_at(item.key) for item in self._objects.list(store.releases_prefix(self._service, self._env))]
        return sorted(row[2] for row in rows if row is not None)

    def _read(self, number: int) -> Stored | None:
        return self._objects.get(store.release_key(self._service, self._env, number))

    def _head(self) -> tuple[Head, str | None]:
        key = f"{store.releases_prefix(self._service, self._env)}head.json"
        found = self._objects.get(key)
        return (codec.from_data(Head, json.loads(found.data)), found.tag) if found else (Head(), None)

    def _change(self, change: Callable[[Head], Head]) -> None:
        """Compare and set until it holds; every other writer's change is kept."""
        key = f"{store.releases_prefix(self._service, self._env)}head.json"
        while True:
            head, tag = self._head()
            wanted = change(head)
            if wanted == head or self._objects.put(key, codec.dumps(wanted).encode(), expected=tag) is not None:
                return


def _moved(head: Head, release: Release, token: int) -> Head:
    """The pointer on `release`; it never goes back, nor does the fence."""
    if head.revision >= release.revision:
        return head
    return dataclasses.replace(head, revision=release.revision, digest=release.digest, fence=max(head.fence, token))
