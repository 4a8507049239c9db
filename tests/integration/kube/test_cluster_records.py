"""Releases, holds and the lease as objects of a real cluster: the contract of every record store, and what only a cluster can suffer."""

import dataclasses
import os
import subprocess
import sys

import pytest

from deployctl.adapters.files import FileBlobStore, FileBundleStore
from deployctl.adapters.kubernetes import Cluster
from deployctl.adapters.repository import TritonRepository
from deployctl.core import kube_records
from deployctl.core.platform import ServiceAddress
from deployctl.core.release import next_release
from deployctl.errors import LockHeld, NotFound, ProjectError
from deployctl.hosts.kubernetes import lease as leases
from deployctl.hosts.kubernetes.lease import Lease
from deployctl.hosts.kubernetes.records import ClusterRecordStore, RecordedBundles
from deployctl.testing import builders
from deployctl.testing.contracts import RecordStoreContract, a_plan

pytestmark = pytest.mark.kube


class Place:
    """One namespace, and stores that look at it."""

    def __init__(self, plane, namespace):
        self.plane, self.namespace = plane, namespace
        self.address = ServiceAddress(context="admin", namespace=namespace, service="svc", env="prod")

    def cluster(self, cls=Cluster, **options):
        return cls("admin", kubeconfig=str(self.plane.kubeconfig), **options)

    def store(self, folder, cls=Cluster, **options):
        blobs = FileBlobStore(folder / "blobs")
        bundles = FileBundleStore(blobs, folder / "bundles")
        return ClusterRecordStore(self.cluster(cls, **options), self.address, bundles, TritonRepository(blobs), "ada@desk (pid 1)")

    def lease(self, by="ada@desk (pid 1)", cls=Cluster, sleep=lambda _: None):
        return Lease(self.cluster(cls), self.address, by, sleep=sleep)

    def config_map(self, name):
        return self.plane.get(f"/api/v1/namespaces/{self.namespace}/configmaps/{name}")


@pytest.fixture
def place(plane, namespace):
    return Place(plane, namespace)


class TestClusterRecords(RecordStoreContract):
    @pytest.fixture(autouse=True)
    def _place(self, place):
        self.place = place

    def make(self, folder):
        return self.place.store(folder)

    def test_another_checkout_sees_the_same(self, tmp_path):
        made = self.append(self.make(tmp_path))
        assert self.make(tmp_path / "elsewhere").history().current == made

    def test_a_record_cannot_be_changed_and_one_that_was_replaced_is_seen(self, tmp_path):
        store = self.make(tmp_path)
        self.append(store)
        self.append(store, replicas=2)
        path = f"/api/v1/namespaces/{self.place.namespace}/configmaps/deployctl-svc-prod-r1"
        item = self.place.plane.get(path)
        item["data"]["release.json"] = item["data"]["release.json"].replace('"replicas": 1', '"replicas": 7')
        code, text = self.place.plane.request("PUT", path, item)
        assert code == 422 and "immutable" in text
        assert self.place.plane.request("DELETE", path)[0] == 200
        item["metadata"] = {k: item["metadata"][k] for k in ("name", "namespace", "labels", "annotations")}
        assert self.place.plane.request("POST", path.rpartition("/")[0], item)[0] == 201
        with pytest.raises(ProjectError, match="revision 1 was changed") as refusal:
            store.history()
        assert refusal.value.where == f"ConfigMap {self.place.namespace}/deployctl-svc-prod-r2"

    def test_history_is_bounded_and_stays_one_chain(self, tmp_path, monkeypatch):
        monkeypatch.setattr(kube_records, "KEPT", 3)
        store = self.make(tmp_path)
        for n in range(1, 7):
            self.append(store, replicas=n)
        assert [r.revision for r in store.history().releases] == [3, 4, 5, 6]  # the newest, and the KEPT before it

    def test_the_bundle_of_a_release_needs_no_checkout(self, tmp_path):
        blobs = FileBlobStore(tmp_path / "blobs")
        packed = builders.sleep_bundle(blobs, FileBundleStore(blobs, tmp_path / "bundles"), 0.01)
        made = self.append(self.make(tmp_path), bundle=packed.digest, settings={})
        elsewhere = self.make(tmp_path / "elsewhere")
        found = RecordedBundles(FileBundleStore(FileBlobStore(tmp_path / "x"), tmp_path / "y"), elsewhere)
        assert found.load(packed.digest) == packed
        assert elsewhere.content(made.plan) == self.make(tmp_path).content(made.plan)
        with pytest.raises(NotFound):
            found.load("sha256:" + "0" * 64)

    def test_a_long_trace_is_stored_compressed_and_comes_back(self, tmp_path):
        store = self.make(tmp_path)
        plan = a_plan()
        times = tuple(float(n) + n / 7 for n in range(20_000))
        long = dataclasses.replace(plan.demand, arrivals="trace", times_s=times)
        made = self.append(store, demand=long)
        item = self.place.config_map("deployctl-svc-prod-r1")
        assert "data" not in item and set(item["binaryData"]) == {"release.json.gz"}
        assert store.history().current == made

    def test_an_answer_that_got_lost_is_no_lost_race(self, tmp_path):
        class Forgetful(Cluster):
            def _once(self, method, path, options, body, content):
                answer = super()._once(method, path, options, body, content)
                return (0, "lost", 0.0) if method == "POST" and answer[0] == 201 else answer

        store = self.place.store(tmp_path, Forgetful, sleep=lambda _: None)
        release = next_release(store.history(), a_plan(), action="up", now_s=1.0)
        store.append(release, expected_parent=None)
        assert store.history().current == release


class Later(Cluster):
    """A cluster whose clock is ahead."""

    def now_s(self):
        return super().now_s() + leases.TTL_S + 1


def test_a_lease_keeps_others_out_and_names_the_holder(place):
    mine, waits = place.lease(), []
    with mine.held():
        assert mine.token() == 1
        with pytest.raises(LockHeld) as refusal, place.lease("bob@desk (pid 2)", sleep=waits.append).held():
            pass
        assert refusal.value.exit_code == 12 and "ada@desk (pid 1) is changing svc in prod" in refusal.value.message
        assert sum(waits) <= leases.PATIENCE_S
    with place.lease("bob@desk (pid 2)").held():
        pass


def test_a_silent_holder_is_replaced_after_its_time_and_fenced_off(place):
    stale = place.lease()
    stale._take()  # and never gives back: it hangs
    fresh = place.lease("bob@desk (pid 2)", Later)
    with fresh.held():
        assert fresh.token() == 2
        stale._mine = dataclasses.replace(stale._mine, renewed_s=0.0)  # it wakes up and wants to renew
        with pytest.raises(LockHeld) as lost:
            stale.token()
        assert lost.value.code == "lease-lost" and "bob@desk" in lost.value.message


def test_a_holder_that_lives_renews(place):
    mine = place.lease()
    with mine.held():
        before = mine._mine.renewed_s
        mine._mine = dataclasses.replace(mine._mine, renewed_s=before - leases.TTL_S / 2)
        assert mine.token() == 1 and mine._mine.renewed_s >= before - 1


def test_a_holder_that_was_killed_on_this_machine_gives_way_at_once(place):
    code = f"""
from deployctl.adapters.kubernetes import Cluster
from deployctl.adapters.repository import TritonRepository
from deployctl.core.platform import ServiceAddress
from deployctl.hosts.kubernetes.lease import Lease
import os
Lease(Cluster("admin", kubeconfig={str(place.plane.kubeconfig)!r}), {place.address!r}, "ada")._take()
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], env=os.environ.copy()).returncode == -9
    waits = []
    with place.lease("bob@desk (pid 2)", sleep=waits.append).held():
        assert waits == []
