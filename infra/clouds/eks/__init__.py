"""Amazon EKS with Auto Mode: AWS runs the node autoscaler (Karpenter), GPU device plugin, pod identity and storage; one file a component."""

from infra.clouds.eks.cluster import cluster
from infra.clouds.eks.identity import identity
from infra.clouds.eks.pool import pool
from infra.clouds.eks.store import store

MADE = True
BRINGS_DEVICE_PLUGIN = True
STARTUP_TAINTS = True

__all__ = ["BRINGS_DEVICE_PLUGIN", "MADE", "STARTUP_TAINTS", "cluster", "identity", "pool", "store"]
