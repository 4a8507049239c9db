"""Who may reach the pods and when they may be taken away: Services, NetworkPolicies and the PodDisruptionBudget."""

from __future__ import annotations

from typing import Any

from deployctl.core import kube_names
from deployctl.core.collector import OTLP
from deployctl.core.manifests.workload import GRPC, HTTP, METRICS
from deployctl.core.plan import Plan
from deployctl.core.platform import ClusterSpec


def services(plan: Plan) -> list[dict[str, Any]]:
    """One address for everybody, and a headless one for gRPC clients that balance over the pods themselves."""
    ports = [
        {"name": name, "port": port, "targetPort": name, "protocol": "TCP", "appProtocol": protocol}
        for name, port, protocol in (("http", HTTP, "http"), ("grpc", GRPC, "kubernetes.io/h2c"))
    ]
    metrics = {"name": "metrics", "port": METRICS, "targetPort": "metrics", "protocol": "TCP"}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": plan.service},
            "spec": {"type": "ClusterIP", "selector": kube_names.selector(plan), "ports": ports},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": kube_names.name(plan.service, "pods")},
            "spec": {"type": "ClusterIP", "clusterIP": "None", "selector": kube_names.selector(plan), "ports": [*ports, metrics]},
        },
    ]


def disruption_budget(plan: Plan) -> dict[str, Any]:
    """One voluntary disruption at a time; a pod that is not healthy never blocks the drain of its node."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": plan.service},
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": kube_names.selector(plan)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def network_policies(plan: Plan, cluster: ClusterSpec) -> list[dict[str, Any]]:
    """Nothing in or out by default; then inference from the namespace, scrapes, names, and the store over TLS."""
    pods = {"matchLabels": kube_names.selector(plan)}
    egress: list[dict[str, Any]] = [{"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}]
    # The node's metadata service would hand out the node's own identity: the pod has one of its own.
    egress.append(
        {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.169.254/32"]}}], "ports": [{"port": _store_port(cluster), "protocol": "TCP"}]}
    )
    if cluster.telemetry.collector is not None:
        egress.append({"to": [{"podSelector": {"matchLabels": collector_labels(plan)}}], "ports": [{"port": OTLP, "protocol": "TCP"}]})
    ingress = [
        {"from": [{"podSelector": {}}], "ports": [{"port": HTTP, "protocol": "TCP"}, {"port": GRPC, "protocol": "TCP"}]},
        {
            "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": cluster.metrics_namespace}}}],
            "ports": [{"port": METRICS, "protocol": "TCP"}],
        },
    ]
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": kube_names.name(plan.service, "deny")},
            "spec": {"podSelector": pods, "policyTypes": ["Ingress", "Egress"]},
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": kube_names.name(plan.service, "allow")},
            "spec": {"podSelector": pods, "policyTypes": ["Ingress", "Egress"], "ingress": ingress, "egress": egress},
        },
    ]


def collector_labels(plan: Plan) -> dict[str, str]:
    """The labels that find the collector's pods, and none of Triton's."""
    return {**kube_names.selector(plan), "app.kubernetes.io/name": kube_names.name(plan.service, "collector")}


def _store_port(cluster: ClusterSpec) -> int:
    address = cluster.store_endpoint or cluster.store or ""
    host = address.partition("://")[2].partition("/")[0]
    port = host.rpartition(":")[2] if ":" in host else ""
    if port.isdigit():
        return int(port)
    return 80 if address.startswith("http://") else 443
