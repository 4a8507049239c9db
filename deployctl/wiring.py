"""Joins ports to adapters and hosts, by name as text; the only place that does. Nothing loads before it is asked for."""

from __future__ import annotations

import getpass
import importlib
import os
import socket
from functools import cached_property
from pathlib import Path
from typing import Any

from deployctl.core import store
from deployctl.core.kube_place import shared_store
from deployctl.core.plan import Plan
from deployctl.core.platform import ServiceAddress
from deployctl.core.project import Environment
from deployctl.errors import ProjectError
from deployctl.ports import (
    BlobStore,
    BundleStore,
    Clock,
    ClusterReader,
    Compressor,
    EvidenceStore,
    Fleet,
    InferenceClient,
    LoadGenerator,
    MetricSource,
    RecordStore,
    RemoteStore,
    RepositoryBuilder,
    ServerLauncher,
    Target,
    Toolbox,
    Workspace,
)

ADAPTERS: dict[str, str] = {
    "api": "deployctl.adapters.triton:TritonApi",
    "blobs": "deployctl.adapters.files:FileBlobStore",
    "bundles": "deployctl.adapters.files:FileBundleStore",
    "clock": "deployctl.adapters.clock:SystemClock",
    "cluster": "deployctl.adapters.kubernetes:Cluster",
    "compressor": "deployctl.adapters.compressor:ProcessCompressor",
    "evidence": "deployctl.adapters.records:FileEvidenceStore",
    "git": "deployctl.adapters.git:Git",
    "inspector": "deployctl.adapters.inspect:FileInspector",
    "loadgen": "deployctl.adapters.locust:LocustGenerator",
    "machine": "deployctl.adapters.machine:ThisMachine",
    "prometheus": "deployctl.adapters.prometheus:Prometheus",
    "pulumi": "deployctl.adapters.pulumi:PulumiEngine",
    "records": "deployctl.adapters.records:FileRecordStore",
    "remote": "deployctl.adapters.remote:Remote",
    "repository": "deployctl.adapters.repository:TritonRepository",
    "spans": "deployctl.adapters.otlp:OtlpReceiver",
    "triton": "deployctl.adapters.triton:TritonLauncher",
}
# What arrived at the service on this machine, as it keeps it.
STORED_LOAD = "deployctl.hosts.local.past:StoredLoad"
HOSTS: dict[str, str] = {
    "local": "deployctl.hosts.local.target:LocalTarget",
    "kubernetes": "deployctl.hosts.kubernetes.target:KubernetesTarget",
}
STORES: dict[str, str] = {
    "s3": "deployctl.adapters.s3:S3Objects",
}
# An environment that commits release.
COMMITTED: dict[str, str] = {
    "records": "deployctl.hosts.kubernetes.committed:CommittedRecords",
    "target": "deployctl.hosts.kubernetes.committed:CommittedTarget",
}
# Writes committed objects to a cluster past its GitOps controller (`rollback --live`).
BREAK_GLASS = "deployctl.hosts.kubernetes.breakglass:BreakGlass"
# What a host keeps beside its target: releases, and the bundles that they name.
CLUSTER_RECORDS = "deployctl.hosts.kubernetes.records:ClusterRecordStore"
CLUSTER_FLEET = "deployctl.hosts.kubernetes.fleet:ClusterFleet"
RECORDED_BUNDLES = "deployctl.hosts.kubernetes.records:RecordedBundles"
# Measuring on a cluster: replicas that nobody else's traffic reaches, and load from inside.
BENCH_REPOSITORY = "deployctl.hosts.kubernetes.bench:BenchRepository"
BENCH_LAUNCHER = "deployctl.hosts.kubernetes.bench:BenchLauncher"
BENCH_LOADGEN = "deployctl.hosts.kubernetes.loadgen:JobLoadGenerator"


def load(address: str) -> Any:
    """Import `module:attribute`."""
    module, attribute = address.split(":")
    return getattr(importlib.import_module(module), attribute)


def me() -> str:
    """Who asks, for records and leases: user, machine, process."""
    return f"{getpass.getuser()}@{socket.gethostname()} (pid {os.getpid()})"


def fleet(context: str | None) -> Fleet:
    """Every service of a cluster."""
    port: Fleet = load(CLUSTER_FLEET)(load(ADAPTERS["cluster"])(context))
    return port


def stored_load(root: Path, env: str, *, end_s: float, window_s: float) -> MetricSource:
    """What arrived at the service on this machine."""
    port: MetricSource = load(STORED_LOAD)(Workspace(root.resolve()), env, end_s=end_s, window_s=window_s)
    return port


class LazyToolbox:
    """The Toolbox of one environment on this machine: each port is imported and built on first use.

    Args:
        root: the project folder.
        env: environment name.
        place: the environment as deploy.yaml has it; without it there is no shared store.
    """

    def __init__(self, root: Path, env: str = "local", *, place: Environment | None = None) -> None:
        self.workspace = Workspace(root.resolve())
        self._env = env
        self._place = place

    @cached_property
    def blobs(self) -> BlobStore:
        """Content-addressed files of the project."""
        port: BlobStore = load(ADAPTERS["blobs"])(self.workspace.blobs)
        return port

    @cached_property
    def bundles(self) -> BundleStore:
        """Bundle manifests of the project."""
        port: BundleStore = load(ADAPTERS["bundles"])(self.blobs, self.workspace.state / "bundles")
        return port

    @cached_property
    def repository(self) -> RepositoryBuilder:
        """Bundle to Triton repository."""
        port: RepositoryBuilder = load(ADAPTERS["repository"])(self.blobs)
        return port

    @cached_property
    def compressor(self) -> Compressor:
        """The torch room in a process of its own."""
        port: Compressor = load(ADAPTERS["compressor"])(self.blobs, self.workspace.state / "compress")
        return port

    @cached_property
    def launcher(self) -> ServerLauncher:
        """Real Triton servers on this machine."""
        port: ServerLauncher = load(ADAPTERS["triton"])(self.workspace.state / "triton", receive=load(ADAPTERS["spans"]))
        return port

    @cached_property
    def loadgen(self) -> LoadGenerator:
        """Locust in a process of its own."""
        port: LoadGenerator = load(ADAPTERS["loadgen"])(self.workspace.state / "loadgen")
        return port

    def client(self, url: str) -> InferenceClient:
        """Single requests to the service at `http://host:port`."""
        port: InferenceClient = load(ADAPTERS["api"])(url.removeprefix("http://").rstrip("/"))
        return port

    @cached_property
    def evidence(self) -> EvidenceStore:
        """Proofs committed beside the lock."""
        port: EvidenceStore = load(ADAPTERS["evidence"])(self.workspace.root / "lock" / "evidence")
        return port

    @cached_property
    def records(self) -> RecordStore:
        """Releases of the environment."""
        port: RecordStore = load(ADAPTERS["records"])(self.workspace.env(self._env))
        return port

    @cached_property
    def remote(self) -> RemoteStore | None:
        """The shared store that the environment names.

        Raises:
            ProjectError: nothing here can write to a store of that kind (`store-kind-unknown`).
        """
        found = shared_store(self._place) if self._place else None
        if found is None or found.address.startswith(("http://", "https://")):  # such a store is filled by other means
            return None
        address = store.address(found.address)
        if address.kind not in STORES:
            raise ProjectError(
                f"deployctl cannot write to {found.address}",
                why=f"it writes to {', '.join(f'{kind}://' for kind in STORES)}",
                where=f"environments.{self._env}.store",
                hint="name a store of that kind, or copy .deployctl/blobs/ there by other means",
                code="store-kind-unknown",
            )
        objects = load(STORES[address.kind])(address, region=found.region, endpoint=found.endpoint)
        port: RemoteStore = load(ADAPTERS["remote"])(objects, self.blobs, self.workspace.state / "fetch", owner=me())
        return port

    @cached_property
    def target(self) -> Target:
        """The host of the environment."""
        port: Target = load(HOSTS["local"])(self.workspace, self._env)
        return port

    @property
    def cluster(self) -> ClusterReader | None:
        """There is none on this machine."""
        return None

    @cached_property
    def clock(self) -> Clock:
        """Real time."""
        port: Clock = load(ADAPTERS["clock"])()
        return port

    def measuring(self, plan: Plan) -> Toolbox:
        """These ports: what runs here is measured here."""
        return self


class ClusterToolbox(LazyToolbox):
    """The Toolbox of one environment on Kubernetes: records, and the bundles that they name, live in the cluster."""

    def __init__(self, root: Path, address: ServiceAddress, *, place: Environment | None = None) -> None:
        super().__init__(root, address.env, place=place)
        self._address = address

    @cached_property
    def _cluster(self) -> Any:
        return load(ADAPTERS["cluster"])(self._address.context)

    @property
    def cluster(self) -> ClusterReader:
        """The cluster, read only."""
        port: ClusterReader = self._cluster
        return port

    @cached_property
    def _stacks(self) -> Any:
        """Pulumi's engine where it is the environment's writer; its backend is the platform's."""
        if self._place is None or self._place.writer != "pulumi":
            return None
        settings = self._place.platform.pulumi if self._place.platform else None
        return load(ADAPTERS["pulumi"])(self.workspace.state / "pulumi", settings)

    @cached_property
    def _own_bundles(self) -> BundleStore:
        port: BundleStore = load(ADAPTERS["bundles"])(self.blobs, self.workspace.state / "bundles")
        return port

    @cached_property
    def bundles(self) -> BundleStore:
        """Bundle manifests of the project, and those that the cluster's records hold."""
        port: BundleStore = load(RECORDED_BUNDLES)(self._own_bundles, self.records)
        return port

    @cached_property
    def records(self) -> RecordStore:
        """Releases of the service, in its namespace."""
        port: RecordStore = load(CLUSTER_RECORDS)(self._cluster, self._address, self._own_bundles, self.repository, me())
        return port

    @cached_property
    def target(self) -> Target:
        """The service on its cluster."""
        port: Target = load(HOSTS["kubernetes"])(self._cluster, self.records, stacks=self._stacks)
        return port

    def measuring(self, plan: Plan) -> Toolbox:
        """These ports, with replicas and load generators on the cluster."""
        return BenchToolbox(self.workspace.root, self._address, plan, place=self._place)


class BenchToolbox(ClusterToolbox):
    """The Toolbox of measurements on a cluster: servers are replicas of a plan that only measure, load comes from inside."""

    def __init__(self, root: Path, address: ServiceAddress, plan: Plan, *, place: Environment | None = None) -> None:
        super().__init__(root, address, place=place)
        self._plan = plan

    @cached_property
    def repository(self) -> RepositoryBuilder:
        """What a measured replica is to serve."""
        port: RepositoryBuilder = load(BENCH_REPOSITORY)(load(ADAPTERS["repository"])(self.blobs))
        return port

    @cached_property
    def launcher(self) -> ServerLauncher:
        """Measured replicas on the service's pool."""
        port: ServerLauncher = load(BENCH_LAUNCHER)(self._cluster, self._plan, self.repository)
        return port

    @cached_property
    def loadgen(self) -> LoadGenerator:
        """Locust in a pod."""
        port: LoadGenerator = load(BENCH_LOADGEN)(self._cluster, self._plan, self._place.loadtest_image if self._place else None)
        return port


class CommittedToolbox(ClusterToolbox):
    """The Toolbox of an environment that commits release: records are commits, the cluster is only read."""

    def __init__(self, root: Path, address: ServiceAddress, place: Environment) -> None:
        super().__init__(root, address, place=place)
        self._released = place

    @cached_property
    def _git(self) -> Any:
        return load(ADAPTERS["git"])(self.workspace.root)

    @cached_property
    def records(self) -> RecordStore:
        """Release commits."""
        from deployctl.core import gitops

        root, place = self.workspace.root, self._released
        plan, lock = (p.relative_to(root).as_posix() for p in (self.workspace.plan(place.name), self.workspace.lock(place.name)))
        port: RecordStore = load(COMMITTED["records"])(lambda: gitops.history(self._git, place.folder, plan=plan, lock=lock))
        return port

    @cached_property
    def bundles(self) -> BundleStore:
        """Bundle manifests of the project."""
        return self._own_bundles

    @cached_property
    def target(self) -> Target:
        """The service as its controller has made it."""
        from deployctl.config.objects import read_objects

        def committed() -> list[dict[str, Any]]:
            files = self._git.files("HEAD", self._released.folder)
            return [item for name, data in sorted(files.items()) for item in read_objects(data.decode(), where=name)]

        port: Target = load(COMMITTED["target"])(self._cluster, self.records, objects=committed)
        return port
