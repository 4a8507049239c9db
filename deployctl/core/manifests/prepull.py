"""Image pre-pull, opt-in: a plan enters, a DaemonSet leaves that keeps the Triton image on every node of the pool.

A Triton image is gigabytes, and its pull is most of a cold start on a fresh node. Where the autoscaler adds pods to nodes that are
there already, or the node's image collection threw the image away, this makes the pull happen before it is waited for.
It cannot help a pod that waits for a node which does not exist yet. Its pods do nothing, and match no selector of the service's.
"""

from __future__ import annotations

from typing import Any

from deployctl.core import kube_names
from deployctl.core.plan import Plan
from deployctl.core.platform import ClusterSpec


def objects(plan: Plan, cluster: ClusterSpec) -> list[dict[str, Any]]:
    """The DaemonSet, where the environment asks for it and the image is known."""
    if not cluster.image_prepull or cluster.image is None:
        return []
    name = kube_names.name(plan.service, "prepull")
    labels = {**kube_names.selector(plan), "app.kubernetes.io/name": name}
    spec = {
        "revisionHistoryLimit": 2,
        "selector": {"matchLabels": labels},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%"}},
        "template": {"metadata": {"labels": labels}, "spec": _pod(plan, cluster, cluster.image)},
    }
    return [{"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": name}, "spec": spec}]


def _pod(plan: Plan, cluster: ClusterSpec, image: str) -> dict[str, Any]:
    pod: dict[str, Any] = {
        "serviceAccountName": plan.service,  # it carries the image pull secrets
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 0,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "runAsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "nodeSelector": {cluster.pool.node_label: cluster.pool.name},
        "containers": [
            {
                "name": "hold",
                "image": image,
                "command": ["sleep", "infinity"],
                "resources": {"requests": {"cpu": "1m", "memory": "8Mi"}, "limits": {"memory": "16Mi"}},
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True},
            }
        ],
    }
    if cluster.pool.taint:
        pod["tolerations"] = [{"key": cluster.pool.taint, "operator": "Exists", "effect": "NoSchedule"}]
    return pod
