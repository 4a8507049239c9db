"""Clouds by name. Each is a module with the functions of `Cloud`; adding one is a folder here, a line in CLOUDS and its contract test."""

from __future__ import annotations

import importlib
from typing import Protocol

import pulumi

from deployctl.core.platform import Platform, Pool
from infra.components.cluster import Cluster
from infra.components.identity import Identity
from infra.components.pool import GpuNodePool
from infra.components.store import ModelStore

CLOUDS: dict[str, str] = {
    "existing": "infra.clouds.existing",
    "eks": "infra.clouds.eks",
    "gke": "infra.clouds.gke",
    "aks": "infra.clouds.aks",
}


class Cloud(Protocol):
    """What a cloud's module offers.

    MADE says whether it makes the cluster; BRINGS_DEVICE_PLUGIN whether its GPU nodes offer `nvidia.com/gpu` without an add-on;
    STARTUP_TAINTS whether a node's taint can be removed again from inside the cluster.
    """

    MADE: bool
    BRINGS_DEVICE_PLUGIN: bool
    STARTUP_TAINTS: bool

    def cluster(self, platform: Platform) -> Cluster:
        """Make or find the cluster."""
        ...

    def pool(self, platform: Platform, cluster: Cluster, pool: Pool) -> GpuNodePool | None:
        """Make one pool; None where the nodes are somebody else's."""
        ...

    def store(self, platform: Platform, cluster: Cluster, bucket: str) -> ModelStore:
        """Make the bucket."""
        ...

    def identity(self, platform: Platform, cluster: Cluster, store: ModelStore, reader: str) -> Identity:
        """Let the pods of `namespace/service` read the bucket."""
        ...


def cloud(name: str) -> Cloud:
    """The cloud of that name.

    Raises:
        KeyError: there is none; the known names are in the message. RunError: its Python SDK is not installed.
    """
    if name not in CLOUDS:
        raise KeyError(f"there is no cloud {name!r}; known: {', '.join(CLOUDS)}")
    try:
        module: Cloud = importlib.import_module(CLOUDS[name])
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("pulumi_"):
            raise
        raise pulumi.RunError(f"the Python SDK of {name} is not installed ({error.name}). Run `pip install 'deployctl[{name}]'`.") from error
    return module
