"""One service in one namespace of the rig, driven as a host drives it."""

import re
from pathlib import Path

import yaml

from deployctl.adapters.kubernetes import Cluster
from deployctl.core import kube_rollout, manifests
from deployctl.core.decision import ScalingPolicy
from deployctl.core.release import Release
from deployctl.hosts.kubernetes.writer import Writer
from deployctl.testing import kube

FIXED = ScalingPolicy(min_replicas=3, max_replicas=3)


class Service:
    """One service in one namespace, driven as a host drives it."""

    def __init__(self, plane, namespace, context="admin"):
        self.plane, self.namespace, self.context = plane, namespace, context
        self.revision = 0

    def plan(self, text=b"one", scaling=FIXED, cluster=None, **changes):
        packed = kube.bundle({"model.py": text})
        return packed, kube.plan(packed, scaling=scaling, cluster={"namespace": self.namespace, **(cluster or {})}, **changes)

    def release(self, made, action="up"):
        self.revision += 1
        return Release(revision=self.revision, created_at_s=0.0, action=action, plan=made)

    def up(self, packed, made, release=None, action="up"):
        """Apply; the release, and how many writes it took."""
        api = Cluster(self.context, kubeconfig=str(self.plane.kubeconfig))
        release = release or self.release(made, action)
        Writer(api, made).apply(release, manifests.objects(kube.inputs(packed, made)))
        return release, api.writes

    def writer(self, made):
        return Writer(Cluster(self.context, kubeconfig=str(self.plane.kubeconfig)), made)

    def judged(self, made):
        view = self.writer(made).view()
        return kube_rollout.judge(*view) if view else None

    def wait(self, made, phase="done", limit_s=60):
        def check():
            now = self.judged(made)
            return now if now and now.phase == phase else None

        return self.plane.until(check, f"phase {phase}: {self.judged(made)}", limit_s=limit_s)

    def live(self, kind, name="echo", group="/apis/apps/v1"):
        return self.plane.get(f"{group}/namespaces/{self.namespace}/{kind}/{name}")

    def ours(self):
        """Every object in the namespace with our label, by kind and name, pods left out."""
        paths = {"/api/v1": ("configmaps", "services", "serviceaccounts"), "/apis/apps/v1": ("deployments", "replicasets"),
                 "/apis/autoscaling/v2": ("horizontalpodautoscalers",), "/apis/networking.k8s.io/v1": ("networkpolicies",),
                 "/apis/policy/v1": ("poddisruptionbudgets",)}  # fmt: skip
        found = set()
        for group, kinds in paths.items():
            for kind in kinds:
                items = self.plane.get(f"{group}/namespaces/{self.namespace}/{kind}?labelSelector=app.kubernetes.io/managed-by%3Ddeployctl")["items"]
                found |= {f"{kind}/{i['metadata']['name']}" for i in items}
        return found


def bind_role_of_guide(plane, namespace):
    """Bind the Role in docs/guides/kubernetes.md to the user of the context `least`, who has no other right; the Role."""
    guide = Path(__file__).resolve().parents[3] / "docs" / "guides" / "kubernetes.md"
    text = next(block for block in re.findall(r"```yaml\n(.*?)```", guide.read_text(), re.DOTALL) if "kind: Role\n" in block)
    role = yaml.safe_load(text)
    role["metadata"] = {"name": "deployctl", "namespace": namespace}
    root = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    assert plane.request("POST", f"{root}/roles", role)[0] == 201
    binding = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "deployctl"},
               "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "deployctl"},
               "subjects": [{"kind": "User", "name": "deployctl-ci", "apiGroup": "rbac.authorization.k8s.io"}]}  # fmt: skip
    assert plane.request("POST", f"{root}/rolebindings", binding)[0] == 201
    return role
