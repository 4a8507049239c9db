"""Releases of one service as ConfigMaps of its namespace (RecordStore): the cluster is the truth, not a checkout.

Exactly one writer can create revision 7, so of two racers one wins; the Lease keeps them apart for the moment of a change.
What leaves beside the port is the content that a recorded release names. Refuses to know what a release means.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

from deployctl.core import kube_inventory, kube_records, manifests
from deployctl.core.bundle import Bundle
from deployctl.core.collect import Content
from deployctl.core.kube_records import Recorded
from deployctl.core.plan import Plan
from deployctl.core.platform import ServiceAddress
from deployctl.core.release import History, Release, content_of, overtaken, without_hold
from deployctl.core.serving import ServingConfig
from deployctl.errors import LockHeld, NotFound
from deployctl.hosts.kubernetes.lease import Lease
from deployctl.hosts.kubernetes.writer import Api
from deployctl.ports import BundleStore, RepositoryBuilder

_TRIES = 5


class ClusterRecordStore:
    """Records of one service in one environment; `bundles` and `repository` are the project's own."""

    def __init__(self, api: Api, of: ServiceAddress, bundles: BundleStore, repository: RepositoryBuilder, by: str) -> None:
        self._api, self._of, self._bundles, self._repository = api, of, bundles, repository
        self.lease = Lease(api, of, by)

    def history(self) -> History:
        """Every release that is kept, oldest first.

        Raises:
            ProjectError: a record is damaged, missing or was changed afterwards (`record-damaged`).
        """
        return History(releases=tuple(release for release, _ in self._chain()), held=self._held()[0])

    def append(self, release: Release, *, expected_parent: str | None) -> None:
        """Add the next release, then drop the oldest beyond what is kept.

        Raises:
            LockHeld: somebody else appended first (`plan-stale`, exit 7), with their verb and name.
            Refused: it does not fit (`record-too-big`).
        """
        known = self._chain()
        current = known[-1][0] if known else None
        if (current.digest if current else None) != expected_parent:
            raise overtaken(current, self._api.now_s())
        try:
            self._api.create(kube_records.release_manifest(release, self._known(release.plan), self._of))
        except LockHeld as error:
            now = self._chain()[-1][0]
            if now != release:  # equal: it was our own write, whose answer got lost and which was then tried again
                raise overtaken(now, self._api.now_s()) from error
        for revision in kube_records.surplus([r.revision for r, _ in known], self._serving()):
            self._api.delete("v1", "ConfigMap", self._of.namespace, kube_records.release_name(self._of, revision))

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold the service's Lease for the moment of a change; a dead holder is replaced within a minute."""
        return self.lease.held()

    def hold(self, content: str) -> None:
        """Put a content digest on hold; nothing happens if it already is."""
        for _ in range(_TRIES):
            held, version = self._held()
            if content in held or self._write_held((*held, content), version):
                return
        raise self._contended()

    def allow(self, content: str) -> None:
        """Lift a hold by digest or by a unique prefix of it, with or without `sha256:`.

        Raises:
            NotFound: nothing on hold matches, or several do (`hold-not-found`).
        """
        for _ in range(_TRIES):
            held, version = self._held()
            if self._write_held(without_hold(held, content), version):
                return
        raise self._contended()

    def bundle(self, digest: str) -> Bundle | None:
        """The bundle that a kept release names, None if none does."""
        for release, item in reversed(self._chain()):
            if release.plan.bundle == digest:
                content = kube_records.read_content(item)
                return content.bundle if content else None
        return None

    def content(self, plan: Plan) -> Recorded | None:
        """What the plan's objects are made of: from the project where it has everything, else as it was recorded.

        Raises:
            NotFound: neither has it (`bundle-not-found`, `blob-not-found`).
        """
        if plan.bundle is None:
            return None
        try:
            bundle = self._bundles.load(plan.bundle)
            return Recorded(bundle=bundle, configs=manifests.configs_of(plan, bundle, self._config_text))
        except NotFound:
            for release, item in reversed(self._chain()):
                if release.content == content_of(plan):
                    return kube_records.read_content(item)
            raise

    def _known(self, plan: Plan) -> Recorded | None:
        """The content where it is known; a release is recorded without it too, and then needs a project that has it."""
        with contextlib.suppress(NotFound):
            return self.content(plan)
        return None

    def _config_text(self, bundle: Bundle, model: str, serving: ServingConfig) -> str:
        return self._repository.config_text(bundle, model, serving, native=True)

    def _chain(self) -> list[tuple[Release, kube_records.Live]]:
        labels = kube_records.selector(self._of, kube_records.RELEASE)
        return kube_records.chain(self._api.list("v1", "ConfigMap", self._of.namespace, labels=labels))

    def _serving(self) -> int | None:
        """The oldest revision that the inventory still speaks of: pods of it may run."""
        name = kube_inventory.name(self._of.service, self._of.env)
        inventory = kube_inventory.read(self._api.get("v1", "ConfigMap", self._of.namespace, name))
        return min(inventory.wanted.revision, inventory.serving or inventory.wanted.revision) if inventory else None

    def _held(self) -> tuple[tuple[str, ...], str | None]:
        item = self._api.get("v1", "ConfigMap", self._of.namespace, kube_records.holds_name(self._of))
        return kube_records.read_holds(item), item["metadata"]["resourceVersion"] if item else None

    def _write_held(self, held: tuple[str, ...], version: str | None) -> bool:
        """Compare-and-set; False if somebody else changed the list since it was read."""
        item = kube_records.holds_manifest(held, self._of)
        try:
            if version is None:
                self._api.create(item)
            else:
                item["metadata"]["resourceVersion"] = version
                self._api.apply(item, force=True)
        except LockHeld:
            return False
        return True

    def _contended(self) -> LockHeld:
        return LockHeld("the list of releases on hold keeps changing", hint="run the same command again", code="object-changed")


class RecordedBundles:
    """BundleStore over the project's own, and where that lacks one, over what the cluster's records hold."""

    def __init__(self, own: BundleStore, records: ClusterRecordStore) -> None:
        self._own, self._records = own, records

    def save(self, bundle: Bundle) -> str:
        """Store it in the project."""
        return self._own.save(bundle)

    def load(self, digest: str) -> Bundle:
        """The bundle of that digest; NotFound if neither has it (`bundle-not-found`)."""
        try:
            return self._own.load(digest)
        except NotFound:
            found = self._records.bundle(digest)
            if found is None:
                raise
            return found

    def stored(self) -> Iterator[Content]:
        """The project's own."""
        return self._own.stored()

    def discard(self, digests: Sequence[str], *, older_than_s: float) -> int:
        """Remove from the project's own; what the cluster's records hold goes with them."""
        return self._own.discard(digests, older_than_s=older_than_s)
