"""Where an environment would run: device, Triton version and cluster, known before anything runs there. Reads only.

On this machine the installed Triton tells. On Kubernetes nothing here can: the pool names the device, and the lock (what was
tuned for), else the bundle's own floor, the Triton version. One source for every verb that plans.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from deployctl.core.bundle import Bundle
from deployctl.core.kube_place import check_image, cluster_spec, device_of
from deployctl.core.lock import Lock
from deployctl.core.platform import ClusterSpec
from deployctl.core.project import Environment
from deployctl.errors import ProjectError
from deployctl.ports import Toolbox

# What serves where neither a lock nor a bundle says: the release that local Triton has, and that all local proofs are for.
_TRITON = "2.51.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """The facts; `cluster` is None on this machine."""

    device: str
    triton_version: str
    cluster: ClusterSpec | None = None


def destination(place: Environment, lock: Lock, bundle: Bundle | None, tools: Toolbox) -> Destination:
    """Where `place` would run.

    Raises:
        ProjectError: see `on_cluster`. MachineError: this machine has no Triton and the environment needs one (`triton-missing`).
    """
    if place.on == "local":
        return Destination(device=tools.launcher.device(), triton_version=tools.launcher.version())
    cluster = on_cluster(place, lock)
    version = lock.triton_version or (bundle.triton_min if bundle else _TRITON)
    return Destination(device=device_of(cluster.pool), triton_version=version, cluster=cluster)


def on_cluster(place: Environment, lock: Lock) -> ClusterSpec:
    """What is known about the environment's cluster.

    Raises:
        ProjectError: it has none, or does not say enough (see `core.kube_place.cluster_spec`).
    """
    return cluster_spec(place, image=lock.image)


def with_image(place: Environment, lock: Lock, image: str | None) -> Lock:
    """The lock with the image that was named on the command line.

    Raises:
        ProjectError: it is not pinned (`image-not-pinned`), or deploy.yaml names another one (`image-named-twice`).
    """
    if image is None:
        return lock
    if place.image not in (None, image):
        raise ProjectError(
            f"deploy.yaml names another image for {place.name}",
            why=f"it says {place.image}",
            hint="change `image:` there, or leave --image out",
            code="image-named-twice",
        )
    return dataclasses.replace(lock, image=check_image(image))
