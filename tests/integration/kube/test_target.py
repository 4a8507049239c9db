"""Kubernetes behind the Target port: a release from a project's own store, applied, judged, changed, rolled back, taken down."""

import dataclasses

import pytest

from deployctl.adapters.files import FileBlobStore, FileBundleStore
from deployctl.adapters.kubernetes import Cluster
from deployctl.adapters.repository import TritonRepository
from deployctl.core.decision import ScalingPolicy
from deployctl.core.platform import ServiceAddress
from deployctl.core.release import History, next_release, rollback
from deployctl.errors import NotFound, Refused
from deployctl.hosts.kubernetes.records import ClusterRecordStore
from deployctl.hosts.kubernetes.target import KubernetesTarget
from deployctl.ports import Workspace
from deployctl.testing import builders, kube

pytestmark = pytest.mark.kube


class Silent:
    def step(self, message):
        pass

    note = warn = update = step


class Project:
    """A project folder with its own store and records, and a target on the rig."""

    def __init__(self, plane, namespace, root):
        self.plane, self.namespace = plane, namespace
        self.workspace = Workspace(root)
        self.blobs = FileBlobStore(self.workspace.blobs)
        self.bundles = FileBundleStore(self.blobs, self.workspace.state / "bundles")
        cluster = Cluster("admin", kubeconfig=str(plane.kubeconfig))
        address = ServiceAddress(context="admin", namespace=namespace, service="echo", env="prod")
        self.records = ClusterRecordStore(cluster, address, self.bundles, TritonRepository(self.blobs), "ada@desk (pid 1)")
        self.target = KubernetesTarget(cluster, self.records)

    def plan(self, t0_s, replicas=2, **cluster):
        bundle = builders.sleep_bundle(self.blobs, self.bundles, t0_s)
        scaling = ScalingPolicy(min_replicas=replicas, max_replicas=replicas)
        return kube.plan(bundle, scaling=scaling, replicas=replicas, cluster={"namespace": self.namespace, "context": "admin", **cluster})

    def release(self, made, action="up"):
        history = self.records.history()
        return self._commit(history, next_release(history, made, action=action, now_s=1.0))

    def roll_back(self):
        history = self.records.history()
        return self._commit(history, rollback(history, None, now_s=2.0)[0])

    def _commit(self, history: History, release):
        self.records.append(release, expected_parent=history.current.digest if history.current else None)
        self.target.apply(release)
        return release

    def wait(self, phase):
        def check():
            status = self.target.status()
            return status if status.phase == phase else None

        return self.plane.until(check, f"{phase}: {self.target.status()}")


@pytest.fixture
def project(plane, namespace, tmp_path):
    return Project(plane, namespace, tmp_path)


def test_a_whole_life(project):
    assert project.target.status().phase == "stopped"
    project.release(project.plan(0.01))
    first = project.wait("serving")
    assert (first.revision_wanted, first.revision_serving, len(first.replicas)) == (1, 1, 2)
    assert first.url == f"http://echo.{project.namespace}.svc:8000"
    assert {r.state for r in first.replicas} == {"ready"}
    project.release(project.plan(0.02))
    assert project.target.status().revision_wanted == 2
    assert project.wait("serving").revision_serving == 2
    scaled = project.plan(0.02, replicas=4)
    project.release(scaled, "scale")
    assert len(project.wait("serving").replicas) == 4
    back = project.roll_back()
    assert (back.revision, back.rolled_back_to) == (4, 1)
    assert project.wait("serving").revision_serving == 4
    assert project.target.drift() == []
    project.target.down(Silent())
    assert project.target.status().phase == "stopped"
    left = project.plane.get(f"/api/v1/namespaces/{project.namespace}/pods")["items"]
    assert left == []
    project.target.down(Silent())  # twice is no error


def test_a_failing_roll_out_says_which_revision_still_serves(project):
    project.release(project.plan(0.01))
    project.wait("serving")
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "gpu"}, "spec": {"hard": {"requests.nvidia.com/gpu": "2"}}}
    path = f"/api/v1/namespaces/{project.namespace}/resourcequotas/gpu"
    project.plane.apply(path, quota)
    project.plane.until(lambda: "used" in project.plane.get(path).get("status", {}), "a counted quota")
    project.release(project.plan(0.03))
    failed = project.wait("failed")
    assert "quota" in failed.message
    assert (failed.revision_serving, failed.revision_wanted) == (1, 2)
    assert {r.revision for r in failed.replicas} == {1}


def test_nothing_unresolved_is_applied(project):
    with pytest.raises(Refused) as caught:
        project.release(project.plan(0.01, image=None))
    assert caught.value.code == "unresolved"
    assert project.plane.get(f"/apis/apps/v1/namespaces/{project.namespace}/deployments")["items"] == []


def test_logs_of_a_replica_that_is_not_there(project):
    project.release(project.plan(0.01))
    project.wait("serving")
    with pytest.raises(NotFound) as caught:
        list(project.target.logs(replica="echo-nobody", since_s=None, follow=False))
    assert caught.value.code == "replica-not-found"


def test_status_needs_no_checkout_for_its_record(project):
    release = project.release(project.plan(0.01))
    project.wait("serving")
    inventory = project.target._writer(release.plan).inventory()
    assert inventory.wanted == release
    assert dataclasses.replace(inventory.wanted.plan, cluster=None) == dataclasses.replace(release.plan, cluster=None)
