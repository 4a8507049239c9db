"""Where a service may run on Kubernetes: node pools, the facts about a cluster that manifests depend on, and the platform below.

What enters is what platform.yaml and deploy.yaml say; what leaves are values that `core/manifests` turns into objects and
`infra/` into a cluster. To a service a pool is a label, a taint and what one replica gets of a node; only `Pool` knows the cloud.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Writer = Literal["pulumi", "apply", "gitops"]
GIB = 1024**3

# The node label that names a pool where platform.yaml gives no other. Any cluster's nodes can be given it by hand.
POOL_LABEL = "deployctl/pool"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePool:
    """Nodes of one kind, and the share of a node that one replica gets.

    Attributes:
        name: the pool's name in platform.yaml and the value of its node label.
        device: key of the hardware that evidence is bound to, such as `L4`; None where nobody said.
        node_label: key of the label that the pool's nodes carry with `name` as value.
        gpu_resource: extended resource that a replica asks for; None for a CPU pool.
        gpus: how many of it a replica gets (whole devices: Kubernetes shares none of them).
        taint: key of the NoSchedule taint that keeps other pods off; None where the nodes have none.
        cpu: cores that a replica requests; no limit is set, since throttling looks like a slow model.
        memory_bytes: requested and limited, the shared memory included.
        min_nodes, max_nodes: bounds of the pool; None where the cloud or a person decides.
        spot: whether the nodes may be taken away at short notice.
    """

    name: str
    device: str | None = None
    node_label: str = POOL_LABEL
    gpu_resource: str | None = "nvidia.com/gpu"
    gpus: int = 1
    taint: str | None = "nvidia.com/gpu"
    cpu: float = 2.0
    memory_bytes: int = 8 * GIB
    min_nodes: int | None = None
    max_nodes: int | None = None
    spot: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAddress:
    """One service in one environment on one cluster: what finds its records there. `context` None is the current one."""

    context: str | None = None
    namespace: str = "default"
    service: str
    env: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """What is watched on a cluster; every part is opt-in, because it needs somebody who runs it.

    Attributes:
        operator: write a ServiceMonitor and alert rules, kinds of the Prometheus operator.
        dashboard: write the Grafana dashboard as a ConfigMap for Grafana's sidecar.
        collector: image of the OpenTelemetry Collector (contrib) as NAME@sha256:…; None for no collector and no tracing.
        forward: OTLP/HTTP base address that the collector sends traces on to.
    """

    operator: bool = False
    dashboard: bool = False
    collector: str | None = None
    forward: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSpec:
    """What the objects of one service need to know about their cluster.

    Attributes:
        context: kubeconfig context; None is the current one. Never part of an object.
        namespace: where all objects go; it must exist (it is not ours to make or delete).
        pool: the nodes that replicas run on.
        image: the Triton image as NAME@sha256:…; None while unresolved.
        pull_secrets: names of existing image pull secrets.
        secrets: names of existing Secrets that the server gets as environment variables; their content is never known here.
        store: `s3://bucket/prefix` or `https://host/path`: where blobs are fetched from; None while unresolved.
        store_region, store_endpoint: for S3; an endpoint other than the cloud's own is for tests and on-premises stores.
        identity: annotations of the service account that give the pod its cloud identity (no static keys anywhere).
        autoscaler: `hpa` (plain Kubernetes, the metric comes through external.metrics.k8s.io) or `keda`.
        prometheus: address of the Prometheus that KEDA asks; needed for `keda` only.
        metrics_namespace: the namespace whose pods may read Triton's metrics port.
        longest_request_s: time that the slowest accepted request may take; None derives it from the SLO.
        grpc_connection_age_s: gRPC connections are closed politely at this age, so that new replicas get traffic.
        address_age_s: how old the list of addresses that a gRPC client uses may be: by default it asks names at most every
            30 s (`grpc.dns_min_time_between_resolutions_ms`), and answers of a cluster's name server live 5 s.
        shm_bytes: size of /dev/shm; the python backend needs about 1 MiB an instance, at least.
        image_prepull: keep the Triton image on every node of the pool; None does not.
        telemetry: what is watched.
    """

    context: str | None = None
    namespace: str = "default"
    pool: NodePool
    image: str | None = None
    pull_secrets: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    store: str | None = None
    store_region: str | None = None
    store_endpoint: str | None = None
    identity: dict[str, str] = field(default_factory=dict)
    autoscaler: Literal["hpa", "keda"] = "hpa"
    prometheus: str | None = None
    metrics_namespace: str = "monitoring"
    longest_request_s: float | None = None
    grpc_connection_age_s: float = 10.0
    address_age_s: float = 35.0
    shm_bytes: int = GIB // 4
    image_prepull: Literal[True] | None = None
    telemetry: Telemetry = Telemetry()


CloudName = Literal["existing", "eks", "gke", "aks"]
AddonChoice = Literal["detect", "install", "off"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceType:
    """A kind of machine that a cloud rents: hardware facts of `catalog.toml` with where they were read and when."""

    name: str
    cloud: CloudName
    device: str | None
    gpus: int
    cpu: float
    memory_bytes: int
    source: str
    as_of: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What one machine costs an hour; None where that way of buying has no known price. `source` and `as_of` say who said so, when."""

    instance: str
    on_demand_per_hour: float | None = None
    spot_per_hour: float | None = None
    currency: str = "USD"
    source: str
    as_of: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """One node pool of a platform.

    Attributes:
        nodes: what a service needs to know of it.
        instance: the kind of machine; None on a cluster that somebody else made and did not describe.
        price: of one such machine; None is unknown, never zero.
        on_demand_nodes: with `spot`, the first so many nodes are not spot: what must survive when spot is taken away.
    """

    nodes: NodePool
    instance: InstanceType | None = None
    price: Price | None = None
    on_demand_nodes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Address range of a network to be made, and the zones that it spans; empty leaves the zones to the cloud."""

    cidr: str = "10.64.0.0/16"
    zones: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Addons:
    """What has to run in a cluster beside the services. `detect` looks and installs nothing."""

    gpu: AddonChoice = "detect"
    keda: AddonChoice = "detect"
    prometheus: AddonChoice = "detect"
    otel: AddonChoice = "detect"


@dataclass(frozen=True, slots=True, kw_only=True)
class PulumiSettings:
    """Where Pulumi keeps state (`s3://…`, `file://…`, None: its own login) and what encrypts secrets in it (None: a passphrase)."""

    backend: str | None = None
    secrets_provider: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """platform.yaml, completed: a cluster with its pools, and what all services on it share.

    Attributes:
        name: prefix of everything that is made, and the stack's name.
        cloud: who makes the cluster; `existing` makes none.
        account: project (gke) or subscription (aks) that pays; None is the tool's own default.
        context: kubeconfig context that reaches the cluster; for a new cluster the one that `platform up` names.
        version: Kubernetes minor version of a new cluster; None takes the cloud's default.
        bucket: bucket for models, made on a cloud; None means that the store is somebody else's.
        readers: `namespace/service` pairs whose pods may read the bucket.
        autoscaler: who scales replicas; `prometheus` is what KEDA asks.
        images: image prefix -> mirror prefix, for registries that nodes cannot reach.
        pull_secrets: names of existing image pull secrets; their content is never known here.
        budget_per_day: highest daily cost of all nodes at their upper bounds; None is no bound.
        file: where it was read.
    """

    schema_version: Literal[1] = 1
    name: str
    cloud: CloudName = "existing"
    region: str | None = None
    account: str | None = None
    context: str | None = None
    version: str | None = None
    network: Network = Network()
    pools: tuple[Pool, ...]
    bucket: str | None = None
    readers: tuple[str, ...] = ()
    addons: Addons = Addons()
    autoscaler: Literal["hpa", "keda"] = "hpa"
    prometheus: str | None = None
    images: dict[str, str] = field(default_factory=dict)
    pull_secrets: tuple[str, ...] = ()
    budget_per_day: float | None = None
    currency: str = "USD"
    pulumi: PulumiSettings = PulumiSettings()
    origins: dict[str, str] = field(default_factory=dict)
    file: str = "platform.yaml"

    def pool(self, name: str) -> Pool:
        """The pool of that name; KeyError if there is none."""
        return {p.nodes.name: p for p in self.pools}[name]

    def mirrored(self, image: str) -> str:
        """The image as nodes pull it: its longest known prefix replaced by the mirror's."""
        found = [prefix for prefix in self.images if image == prefix or image.startswith((f"{prefix}/", f"{prefix}@", f"{prefix}:"))]
        if not found:
            return image
        prefix = max(found, key=len)
        return self.images[prefix] + image[len(prefix) :]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A Helm chart of an add-on's own project, pinned by version, with where that was read; `values` are what it needs to start at all."""

    chart: str
    repository: str
    version: str
    namespace: str
    source: str
    as_of: str
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformInputs:
    """Everything that `infra/platform_stack.py` is a function of: the platform, and the charts by add-on."""

    schema_version: Literal[1] = 1
    platform: Platform
    charts: dict[str, Chart]
