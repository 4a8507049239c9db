"""A project folder whose releases run as real processes on the joined rig: sleeping models, its own blob store, the Target of the product."""

from deployctl.adapters.files import FileBlobStore, FileBundleStore
from deployctl.adapters.kubernetes import Cluster
from deployctl.adapters.repository import TritonRepository
from deployctl.core.decision import ScalingPolicy
from deployctl.core.platform import ServiceAddress
from deployctl.core.release import next_release, rollback
from deployctl.hosts.kubernetes.records import ClusterRecordStore
from deployctl.hosts.kubernetes.target import KubernetesTarget
from deployctl.ports import Workspace
from deployctl.testing import builders, kube


class JoinedProject:
    """One service `echo`; times of a leaving pod are short, so that tests need not wait long."""

    def __init__(self, joined, namespace, root):
        self.joined, self.plane, self.namespace = joined, joined.plane, namespace
        self.workspace = Workspace(root)
        self.blobs = FileBlobStore(self.workspace.blobs)
        self.bundles = FileBundleStore(self.blobs, self.workspace.state / "bundles")
        cluster = Cluster("admin", kubeconfig=str(joined.plane.kubeconfig))
        address = ServiceAddress(context="admin", namespace=namespace, service="echo", env="prod")
        self.records = ClusterRecordStore(cluster, address, self.bundles, TritonRepository(self.blobs), "ada@desk (pid 1)")
        self.target = KubernetesTarget(cluster, self.records)
        self.store = joined.serve(self.workspace.state)

    def bundle(self, offset=0, t0_s=0.002, **parameters):
        """A model that sleeps and adds `offset` to what it repeats: the answer says which release gave it."""
        return builders.sleep_bundle(self.blobs, self.bundles, t0_s, 0.0005, parameters={"answer_offset": str(offset), **parameters})

    def plan(self, bundle, replicas=2, scaling=None, **cluster):
        fields = {"namespace": self.namespace, "context": "admin", "pool": self.joined.pool, "store": self.store,
                  "longest_request_s": 2.0, "grpc_connection_age_s": 2.0, **cluster}  # fmt: skip
        scaling = scaling or ScalingPolicy(min_replicas=replicas, max_replicas=replicas)
        return kube.plan(bundle, scaling=scaling, replicas=replicas, cluster=fields)

    def release(self, made, action="up"):
        """Put a plan on record and apply it."""
        history = self.records.history()
        return self._commit(history, next_release(history, made, action=action, now_s=1.0))

    def roll_back(self):
        history = self.records.history()
        return self._commit(history, rollback(history, None, now_s=2.0)[0])

    def _commit(self, history, release):
        self.records.append(release, expected_parent=history.current.digest if history.current else None)
        self.target.apply(release)
        return release

    def wait(self, phase="serving", limit_s=120):
        """The status when it first has this phase."""

        def check():
            status = self.target.status()
            return status if status.phase == phase else None

        return self.plane.until(check, f"phase {phase}", limit_s=limit_s, step_s=0.5)

    def pods(self):
        return self.plane.get(f"/api/v1/namespaces/{self.namespace}/pods")["items"]

    def end(self):
        """Remove the service and every pod of it at once."""
        self.plane.request("DELETE", f"/apis/apps/v1/namespaces/{self.namespace}/deployments/echo")
        self.plane.until(lambda: not self.plane.get(f"/apis/apps/v1/namespaces/{self.namespace}/replicasets")["items"], "no ReplicaSet")
        for pod in self.pods():
            path = f"/api/v1/namespaces/{self.namespace}/pods/{pod['metadata']['name']}"
            self.plane.request("DELETE", path, {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0})
        self.plane.until(lambda: not self.joined.workers(self.namespace), "pods that are gone")
