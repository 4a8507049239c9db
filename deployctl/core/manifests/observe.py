"""What watches the service, each part opt-in: ServiceMonitor and alert rules, the dashboard, and the collector of Triton's spans.

What enters is a plan and its cluster's telemetry settings; what leaves are standard objects. The collector is the stock image
with our configuration; without it Triton traces nothing, since a span that nobody takes costs time for nothing.
"""

from __future__ import annotations

from typing import Any

from deployctl.core import alerts, collector, dashboard, kube_names
from deployctl.core.manifests.autoscaling import series, service_selector
from deployctl.core.manifests.policy import collector_labels
from deployctl.core.plan import Plan
from deployctl.core.platform import ClusterSpec

_CONFIG = "collector.json"
_SCRAPE_S = 5  # the rules of the policy `slo` count on it
_VERSION = "app.kubernetes.io/version"


def objects(plan: Plan, cluster: ClusterSpec) -> list[dict[str, Any]]:
    """Everything that the telemetry settings ask for, in the order of application; nothing by default."""
    telemetry = cluster.telemetry
    found: list[dict[str, Any]] = []
    if telemetry.collector is not None:
        found += _collector(plan, cluster, telemetry.collector, telemetry.forward)
    if telemetry.operator:
        found += [_monitor(plan, cluster), _alerts(plan, cluster)]
    if telemetry.dashboard:
        found.append(_dashboard(plan))
    return found


def _alerts(plan: Plan, cluster: ClusterSpec) -> dict[str, Any]:
    spans = cluster.telemetry.collector is not None and plan.trace_ratio > 0
    groups = alerts.groups(plan, selector=service_selector(plan, cluster), labels=series(plan), spans=spans)
    name = kube_names.name(plan.service, "alerts")
    return {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": {"name": name}, "spec": {"groups": groups}}


def _monitor(plan: Plan, cluster: ClusterSpec) -> dict[str, Any]:
    """Scrapes every pod of the headless Service, and the collector under the same labels, so that one selector finds all series."""
    endpoints: list[dict[str, Any]] = [{"port": "metrics", "interval": f"{_SCRAPE_S}s"}]
    if cluster.telemetry.collector is not None:
        endpoints.append(
            {
                "port": "histograms",
                "interval": f"{_SCRAPE_S}s",
                "relabelings": [{"targetLabel": "service", "replacement": kube_names.name(plan.service, "pods")}],
                "metricRelabelings": [{"action": "labeldrop", "regex": "otel_scope_.*|exported_job"}],
            }
        )
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": {"name": plan.service},
        "spec": {"selector": {"matchLabels": kube_names.selector(plan)}, "podTargetLabels": [_VERSION], "endpoints": endpoints},
    }


def _dashboard(plan: Plan) -> dict[str, Any]:
    """For Grafana's sidecar, which finds ConfigMaps by the label that the chart of kube-prometheus-stack sets."""
    name = kube_names.name(plan.service, "dashboard")
    data = {f"{plan.service}.json": kube_names.json_text(dashboard.dashboard(plan.service))}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"grafana_dashboard": "1"}}, "data": data}


def _collector(plan: Plan, cluster: ClusterSpec, image: str, forward: str | None) -> list[dict[str, Any]]:
    name = kube_names.name(plan.service, "collector")
    text = kube_names.json_text(collector.config(plan, forward=forward))
    labels = collector_labels(plan)
    ports = (("otlp", collector.OTLP), ("histograms", collector.SCRAPE))
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {_CONFIG: text}},
        _network_policy(plan, cluster, name, forward),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {
                "type": "ClusterIP",
                "selector": labels,
                "ports": [{"name": n, "port": p, "targetPort": n, "protocol": "TCP"} for n, p in ports],
            },
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name},
            "spec": {
                "replicas": 1,
                "revisionHistoryLimit": 2,
                "selector": {"matchLabels": labels},
                "template": {
                    # Another configuration is another pod: a ConfigMap that changes under a running collector is not read again.
                    "metadata": {"labels": labels, "annotations": _pod_notes(text)},
                    "spec": _pod(image, name, cluster),
                },
            },
        },
    ]


def _pod_notes(config: str) -> dict[str, str]:
    return {"deployctl/config": kube_names.short_hash(config), "prometheus.io/scrape": "true", "prometheus.io/port": str(collector.SCRAPE)}


def _pod(image: str, config_map: str, cluster: ClusterSpec) -> dict[str, Any]:
    pod: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "collector",
                "image": image,
                "args": [f"--config=file:/etc/collector/{_CONFIG}"],
                "ports": [
                    {"name": "otlp", "containerPort": collector.OTLP},
                    {"name": "histograms", "containerPort": collector.SCRAPE},
                ],
                "readinessProbe": {"httpGet": {"path": "/", "port": collector.HEALTH}, "periodSeconds": 10},
                "livenessProbe": {"httpGet": {"path": "/", "port": collector.HEALTH}, "periodSeconds": 20, "failureThreshold": 6},
                "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "256Mi"}},
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True},
                "volumeMounts": [{"name": "config", "mountPath": "/etc/collector", "readOnly": True}],
            }
        ],
        "volumes": [{"name": "config", "configMap": {"name": config_map}}],
    }
    if cluster.pull_secrets:
        pod["imagePullSecrets"] = [{"name": s} for s in cluster.pull_secrets]
    return pod


def _network_policy(plan: Plan, cluster: ClusterSpec, name: str, forward: str | None) -> dict[str, Any]:
    """Spans from Triton's pods, scrapes from the monitoring namespace; out only where traces go on to."""
    ingress = [
        {"from": [{"podSelector": {"matchLabels": kube_names.selector(plan)}}], "ports": [{"port": collector.OTLP, "protocol": "TCP"}]},
        {
            "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": cluster.metrics_namespace}}}],
            "ports": [{"port": collector.SCRAPE, "protocol": "TCP"}],
        },
    ]
    spec: dict[str, Any] = {
        "podSelector": {"matchLabels": collector_labels(plan)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": ingress,
        "egress": [],
    }
    if forward is not None:
        names = {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}
        spec["egress"] = [names, {"ports": [{"port": _port(forward), "protocol": "TCP"}]}]
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec}


def _port(url: str) -> int:
    host = url.partition("://")[2].partition("/")[0]
    port = host.rpartition(":")[2] if ":" in host else ""
    return int(port) if port.isdigit() else 443 if url.startswith("https://") else 80
