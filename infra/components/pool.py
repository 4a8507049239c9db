"""Nodes of one kind: what every cloud must give them, and how a spot pool keeps its floor."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from deployctl.core.platform import NodePool, Pool

# On a new node until its GPUs are allocatable; `Addons` removes it. Autoscalers know the prefix and do not count it against a pod.
STARTUP_TAINT = "startup-taint.cluster-autoscaler.kubernetes.io/gpu-not-ready"


class GpuNodePool(pulumi.ComponentResource):
    """One pool of platform.yaml as a cloud's own node pools (one, or two where a spot pool has a floor)."""

    def __init__(self, kind: str, pool: Pool, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(f"deployctl:{kind}:GpuNodePool", pool.nodes.name, None, opts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Nodes of a pool that are bought in one way. `name` is the pool's, with `-floor` for the part that is never spot."""

    name: str
    spot: bool
    min_nodes: int
    max_nodes: int


def parts(pool: Pool) -> list[Part]:
    """The pool as it is bought: a floor on demand first, which always runs, then spot up to the pool's bound."""
    nodes = pool.nodes
    low, high = nodes.min_nodes or 0, nodes.max_nodes or 0
    if not nodes.spot:
        return [Part(name=nodes.name, spot=False, min_nodes=low, max_nodes=high)]
    floor = min(pool.on_demand_nodes, high)
    firm = [Part(name=f"{nodes.name}-floor", spot=False, min_nodes=floor, max_nodes=floor)] if floor else []
    rest = Part(name=nodes.name, spot=True, min_nodes=max(0, low - floor), max_nodes=high - floor)
    return [*firm, rest] if rest.max_nodes else firm


def labels(nodes: NodePool) -> dict[str, str]:
    """The label by which a service finds the pool."""
    return {nodes.node_label: nodes.name}


def taints(nodes: NodePool) -> list[str]:
    """Keys of the NoSchedule taints that stay."""
    return [nodes.taint] if nodes.taint else []


def startup_taints(nodes: NodePool) -> list[str]:
    """Keys of the NoSchedule taints that a new node carries until its GPUs are allocatable."""
    return [STARTUP_TAINT] if nodes.gpu_resource else []
