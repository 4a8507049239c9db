"""What runs in a cluster beside the services: what enters are documents of its API, what leaves are facts and findings.

Only one server in a cluster can answer `external.metrics.k8s.io`, so who does decides which autoscaler can read our signals.
Not allowed to look is unknown, never absent. Refuses to know clients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from deployctl.core.finding import Finding
from deployctl.core.platform import ClusterSpec, Platform

_SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
# What is asked of the API server, by name. Discovery (`/apis/GROUP/VERSION`) needs no right of its own.
PATHS: dict[str, str] = {
    "external": f"{_SERVICES}/v1beta1.external.metrics.k8s.io",
    "custom": f"{_SERVICES}/v1beta2.custom.metrics.k8s.io",
    "resource": f"{_SERVICES}/v1beta1.metrics.k8s.io",
    "groups": "/apis",
    "nodes": "/api/v1/nodes",
}
GROUPS: dict[str, str] = {
    "keda": "keda.sh",
    "prometheus": "monitoring.coreos.com",
    "otel": "opentelemetry.io",
    "karpenter": "karpenter.sh",
    "gateway": "gateway.networking.k8s.io",
}
Answer = dict[str, Any] | None | Literal["unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Who answers a metrics API: `namespace/service` behind it and whether the API server reaches it."""

    name: str
    available: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodes:
    """Nodes of one pool: how many there are, and how many of them offer the devices that a replica asks for."""

    total: int
    offering: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a cluster has. None means absent, `unknown` that one may not look.

    Attributes:
        external, custom, resource: who answers external, custom and resource metrics.
        kinds: add-on (a key of GROUPS) -> whether its kinds are served; empty where unknown.
        pools: nodes by pool; empty where one may not look.
    """

    external: Server | Literal["unknown"] | None = "unknown"
    custom: Server | Literal["unknown"] | None = "unknown"
    resource: Server | Literal["unknown"] | None = "unknown"
    kinds: dict[str, bool]
    pools: dict[str, Nodes]


def found(answers: dict[str, Answer], platform: Platform | None) -> Found:
    """Facts from the documents at PATHS; an answer is None where there is no such object."""
    groups = answers["groups"]
    names = {g["name"] for g in groups["groups"]} if isinstance(groups, dict) else None
    nodes = answers["nodes"]
    pools: dict[str, Nodes] = {}
    if isinstance(nodes, dict) and platform is not None:
        for pool in platform.pools:
            spec = pool.nodes
            mine = [n for n in nodes["items"] if (n["metadata"].get("labels") or {}).get(spec.node_label) == spec.name]
            resource = spec.gpu_resource
            offering = [n for n in mine if resource is None or int((n.get("status", {}).get("allocatable") or {}).get(resource, 0)) >= spec.gpus]
            pools[spec.name] = Nodes(total=len(mine), offering=len(offering))
    return Found(
        external=_server(answers["external"]),
        custom=_server(answers["custom"]),
        resource=_server(answers["resource"]),
        kinds={addon: group in names for addon, group in GROUPS.items()} if names is not None else {},
        pools=pools,
    )


def _server(answer: Answer) -> Server | Literal["unknown"] | None:
    if answer is None or answer == "unknown":
        return answer
    assert isinstance(answer, dict)
    service = answer["spec"].get("service") or {}
    condition: dict[str, Any] = next((c for c in answer.get("status", {}).get("conditions", []) if c["type"] == "Available"), {})
    name = f"{service.get('namespace')}/{service.get('name')}" if service else "the API server itself"
    return Server(name=name, available=condition.get("status") == "True", reason=str(condition.get("message", "")))


def findings(what: Found, cluster: ClusterSpec | None = None) -> list[Finding]:
    """What a person should know, most important first.

    Args:
        what: the cluster's facts.
        cluster: what a service wants of it: the autoscaler that is judged; None judges nothing.
    """
    rows = [_external(what, cluster)]
    if cluster is not None and cluster.autoscaler == "keda":
        rows.append(_keda(what))
    rows += [_pool(name, nodes) for name, nodes in what.pools.items()]
    present = [name for name, there in what.kinds.items() if there]
    if what.kinds:
        rows.append(Finding(name="add-ons", severity="ok", message=f"kinds served: {', '.join(present) or 'none of ' + ', '.join(GROUPS)}"))
    return rows


def _external(what: Found, cluster: ClusterSpec | None) -> Finding:
    name = "external metrics"
    wants = cluster is not None and cluster.autoscaler == "hpa"
    server = what.external
    if server == "unknown":
        return Finding(
            name=name,
            severity="warn" if wants else "ok",
            message="unknown who answers external.metrics.k8s.io: you may not read apiservices",
            remedy="ask for get on apiservices of apiregistration.k8s.io" if wants else "",
        )
    if server is None:
        message = "nobody answers external.metrics.k8s.io"
        remedy = "install a metrics adapter that serves deployctl_*, or KEDA and set `autoscaler: {kind: keda, prometheus: URL}` in platform.yaml"
        return Finding(name=name, severity="warn" if wants else "ok", message=message, remedy=remedy if wants else "")
    message = f"external.metrics.k8s.io is answered by {server.name}"
    if not server.available:
        return Finding(name=name, severity="fail", message=f"{message}, which is not available: {server.reason}", remedy=f"mend {server.name} first")
    if wants and "keda" in server.name:
        remedy = "set `autoscaler: {kind: keda, prometheus: URL}` in platform.yaml: a plain HPA would ask KEDA for a metric that it does not know"
        return Finding(name=name, severity="warn", message=message, remedy=remedy)
    return Finding(name=name, severity="ok", message=message)


def _keda(what: Found) -> Finding:
    if not what.kinds:
        return Finding(name="keda", severity="warn", message="unknown whether KEDA is there", remedy="ask for the right to discover API groups")
    if not what.kinds["keda"]:
        return Finding(
            name="keda", severity="fail", message="KEDA is not installed", remedy="install it, or set `addons: {keda: install}` in platform.yaml"
        )
    return Finding(name="keda", severity="ok", message="KEDA is installed")


def _pool(name: str, nodes: Nodes) -> Finding:
    label = f"pool {name}"
    if nodes.total and not nodes.offering:
        remedy = "install NVIDIA's device plugin or GPU operator, or wait for the driver on new nodes"
        return Finding(name=label, severity="warn", message=f"{nodes.total} nodes, and none offers its devices", remedy=remedy)
    if not nodes.total:
        remedy = "label the nodes (kubectl label node NAME deployctl/pool=…), or let an autoscaler add some"
        return Finding(name=label, severity="warn", message="no node carries the pool's label now", remedy=remedy)
    return Finding(name=label, severity="ok", message=f"{nodes.offering} of {nodes.total} nodes offer their devices")
