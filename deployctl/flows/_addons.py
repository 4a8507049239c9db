"""Looks at what a cluster has: reads only, one call for each fact; what one may not read stays unknown."""

from __future__ import annotations

from deployctl.core import addons
from deployctl.core.addons import Answer, Found
from deployctl.core.finding import Finding
from deployctl.core.platform import ClusterSpec, Platform
from deployctl.errors import ClusterError, DeployctlError
from deployctl.ports import ClusterReader


def look(cluster: ClusterReader, platform: Platform | None) -> Found:
    """What the cluster has.

    Raises:
        ClusterError: it does not answer, or does not know us.
    """
    return addons.found({name: _read(cluster, path) for name, path in addons.PATHS.items()}, platform)


def examine(cluster: ClusterReader, platform: Platform | None, spec: ClusterSpec | None = None) -> list[Finding]:
    """Findings about the cluster; one failure where it does not answer."""
    try:
        return addons.findings(look(cluster, platform), spec)
    except DeployctlError as error:
        return [Finding(name="cluster", severity="fail", message=f"what the cluster has is unknown: {error.message}", remedy=error.hint)]


def notices(cluster: ClusterReader, platform: Platform | None, spec: ClusterSpec | None) -> tuple[str, ...]:
    """One sentence for each thing that `spec` misses in the cluster."""
    return tuple(f"{row.message}; {row.remedy}" for row in examine(cluster, platform, spec) if row.severity != "ok")


def _read(cluster: ClusterReader, path: str) -> Answer:
    try:
        return cluster.read(path)
    except ClusterError as error:
        if error.code == "cluster-forbidden":
            return "unknown"
        raise
