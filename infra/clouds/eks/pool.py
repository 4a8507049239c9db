"""GPU nodes as Karpenter NodePools, which Auto Mode acts on: nodes come when a pod waits for one, and go when nobody needs them.

Karpenter knows an upper bound and no lower one; a lower bound above zero is therefore a NodePool with a fixed number of nodes (`replicas`).
"""

from __future__ import annotations

from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from deployctl.core.platform import Platform, Pool
from infra.components.cluster import Cluster
from infra.components.pool import GpuNodePool, Part, labels, parts, startup_taints, taints


def pool(platform: Platform, cluster: Cluster, pool: Pool) -> GpuNodePool:
    """Make the NodePools of one pool."""
    made = GpuNodePool("eks", pool, pulumi.ResourceOptions(parent=cluster))
    for part in parts(pool):
        for name, spec in _specs(pool, part):
            k8s.apiextensions.CustomResource(
                name,
                api_version="karpenter.sh/v1",
                kind="NodePool",
                metadata={"name": name},
                spec=spec,
                opts=pulumi.ResourceOptions(parent=made, provider=cluster.provider),
            )
    made.register_outputs({})
    return made


def _specs(pool: Pool, part: Part) -> list[tuple[str, dict[str, Any]]]:
    """One NodePool for the nodes that always run, one for those that come and go."""
    template = _template(pool, part)
    found: list[tuple[str, dict[str, Any]]] = []
    moving = part.max_nodes - part.min_nodes
    if part.min_nodes:
        name = f"{part.name}-fixed" if moving else part.name
        found.append((name, {"replicas": part.min_nodes, "limits": {"nodes": str(part.min_nodes)}, "template": template}))
    if moving:
        # Empty nodes only: a node with a replica that serves is never taken away to save money.
        disruption = {"consolidationPolicy": "WhenEmpty", "consolidateAfter": "5m"}
        found.append((part.name, {"limits": _limits(pool, moving), "disruption": disruption, "template": template}))
    return found


def _limits(pool: Pool, nodes: int) -> dict[str, str]:
    """So many nodes, in the resource that Karpenter counts."""
    machine = pool.instance
    if machine is None:
        raise pulumi.RunError(f"the pool {pool.nodes.name} names no instance")
    if machine.gpus:
        return {"nvidia.com/gpu": str(nodes * machine.gpus)}
    return {"cpu": format(nodes * machine.cpu, "g")}


def _template(pool: Pool, part: Part) -> dict[str, Any]:
    nodes = pool.nodes
    instance = pool.instance.name if pool.instance else ""
    requirements = [
        {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": [instance]},
        {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot" if part.spot else "on-demand"]},
        {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]},
    ]
    spec: dict[str, Any] = {
        "nodeClassRef": {"group": "eks.amazonaws.com", "kind": "NodeClass", "name": "default"},
        "requirements": requirements,
    }
    for key, found in (("taints", taints(nodes)), ("startupTaints", startup_taints(nodes))):
        if found:
            spec[key] = [{"key": name, "effect": "NoSchedule"} for name in found]
    return {"metadata": {"labels": labels(nodes)}, "spec": spec}
