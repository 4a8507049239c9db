"""A cluster that is already there: reached through a kubeconfig context; its nodes are not touched."""

from __future__ import annotations

import pulumi

from deployctl.core.platform import Platform, Pool
from infra.components.cluster import Cluster, reached
from infra.components.identity import Identity
from infra.components.store import ModelStore

MADE = False
BRINGS_DEVICE_PLUGIN = False
STARTUP_TAINTS = False


def cluster(platform: Platform) -> Cluster:
    """The cluster behind the context."""
    found = Cluster("existing", platform.name)
    found.provider = reached(platform.context, opts=pulumi.ResourceOptions(parent=found))
    found.connect = f"kubectl config use-context {platform.context}" if platform.context else ""
    found.register_outputs({})
    return found


def pool(platform: Platform, cluster: Cluster, pool: Pool) -> None:
    """Nothing: the nodes are somebody else's, who gives them label and taint."""


def store(platform: Platform, cluster: Cluster, bucket: str) -> ModelStore:
    """Never asked for: platform.yaml refuses `store` on an existing cluster."""
    raise pulumi.RunError("an existing cluster brings its own store: name it as `store:` in deploy.yaml")


def identity(platform: Platform, cluster: Cluster, store: ModelStore, reader: str) -> Identity:
    """Never asked for: platform.yaml refuses `readers` on an existing cluster."""
    raise pulumi.RunError("an existing cluster brings its own identities")
