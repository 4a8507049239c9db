"""From an environment of deploy.yaml to the facts that manifests need: what enters are values, what leaves is a ClusterSpec.

Nothing is guessed: what nobody said stays None and is rendered as unresolved. Refuses to know files and clusters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from deployctl.core.platform import ClusterSpec, NodePool
from deployctl.core.project import Environment
from deployctl.errors import ProjectError

_PINNED = re.compile(r"[a-z0-9][a-z0-9._:/-]*@sha256:[0-9a-f]{64}", re.ASCII)


def cluster_spec(place: Environment, *, image: str | None = None) -> ClusterSpec:
    """What the environment says about its cluster.

    Args:
        place: an environment with `on: kubernetes`.
        image: the Triton image that the lock names; what deploy.yaml says stands above it.

    Raises:
        ProjectError: not on Kubernetes (`not-kubernetes`), no pool (`pool-missing`), an image without digest
            (`image-not-pinned`), or a store that a pod cannot read (`store-not-on-cluster`).
    """
    where = f"environments.{place.name}"
    if place.on != "kubernetes":
        raise ProjectError(
            f"the environment {place.name} runs on {place.on}: it has no manifests",
            hint="name an environment with `on: kubernetes`",
            code="not-kubernetes",
            where=where,
        )
    if place.pool is None:
        raise ProjectError(
            f"{place.name} does not say which nodes to run on",
            hint=f"add `pool: gpu-l4` (your pool's name) to {where} in deploy.yaml",
            code="pool-missing",
            where=where,
        )
    image = place.image or image
    if image is not None:
        check_image(image)
    if place.store is not None and not place.store.startswith(("s3://", "https://", "http://")):
        raise ProjectError(
            f"a pod cannot read blobs from {place.store}",
            why="the fetcher in the pod knows s3:// and http(s)://",
            hint="use s3://bucket/prefix, or an https:// address that serves the same tree",
            code="store-not-on-cluster",
            where=where,
        )
    platform = place.platform
    store = shared_store(place)
    return ClusterSpec(
        context=place.context,
        namespace=place.namespace,
        pool=platform.pool(place.pool).nodes if platform else NodePool(name=place.pool),
        image=platform.mirrored(image) if platform and image else image,
        pull_secrets=platform.pull_secrets if platform else (),
        secrets=place.secrets,
        identity=place.identity,
        autoscaler=platform.autoscaler if platform else "hpa",
        prometheus=platform.prometheus if platform else None,
        store=store.address if store else None,
        store_region=store.region if store else None,
        store_endpoint=store.endpoint if store else None,
        image_prepull=True if place.image_prepull else None,
        telemetry=place.telemetry,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedStore:
    """Where an environment's blobs and records are shared; region and endpoint are None where the cloud's own rules decide."""

    address: str
    region: str | None = None
    endpoint: str | None = None


def shared_store(place: Environment) -> SharedStore | None:
    """The store that the environment names, else its platform's bucket, else None."""
    if place.store is not None:
        return SharedStore(address=place.store, region=place.store_region, endpoint=place.store_endpoint)
    platform = place.platform
    if platform and platform.bucket and platform.cloud == "eks":
        return SharedStore(address=f"s3://{platform.bucket}", region=platform.region)
    return None


def check_image(image: str) -> str:
    """The image if it is pinned by digest.

    Raises:
        ProjectError: a tag can be moved to other content at any time (`image-not-pinned`).
    """
    if not _PINNED.fullmatch(image):
        raise ProjectError(
            f"the image {image[:120]!r} is not pinned by digest",
            why="a tag may mean another server tomorrow, and a rollback could not bring this one back",
            hint="write it as NAME@sha256:… (docker buildx imagetools inspect NAME shows the digest)",
            code="image-not-pinned",
        )
    return image


def device_of(pool: NodePool) -> str:
    """Key that evidence is bound to; without a stated device the pool's own name, which no evidence carries by accident."""
    return pool.device or f"pool-{pool.name}"
