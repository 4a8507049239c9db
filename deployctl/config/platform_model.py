"""platform.yaml as it is written: the raw file model, used only while parsing, and the source of its JSON Schema.

Field types are those of `config/model.py`. Whether fields fit together is `config/platform.py`'s question. No key takes a
secret: pull secrets and backends are names of what exists elsewhere.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, WithJsonSchema

from deployctl.config import units
from deployctl.config.fields import Bool, Context, Name, Positive, Section, Span, Version, Word, matching, one_of, parsed, positive

_COUNT = WithJsonSchema({"type": "integer", "minimum": 0})
Count = Annotated[int, parsed(units.count), _COUNT]
Size = Annotated[float, parsed(positive(units.size_bytes)), WithJsonSchema({"type": "string", "examples": ["12GiB"]})]
Cidr = Annotated[
    str,
    matching(re.compile(r"\d{1,3}(\.\d{1,3}){3}/\d{1,2}", re.ASCII), "an address range like 10.64.0.0/16"),
    WithJsonSchema({"type": "string", "examples": ["10.64.0.0/16"]}),
]
MinorVersion = Annotated[
    str,
    matching(re.compile(r"1\.\d{2}", re.ASCII), "a Kubernetes minor version like 1.34"),
    WithJsonSchema({"type": "string", "pattern": r"^1\.\d{2}$", "examples": ["1.34"]}),
]
Reader = Annotated[
    str,
    matching(re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/[a-z]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII), "a pair like namespace/service"),
    WithJsonSchema({"type": "string", "examples": ["search/sentence-search"]}),
]
Bucket = Annotated[
    str,
    matching(re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", re.ASCII), "a bucket name of 3 to 63 lower-case letters, digits and dashes"),
    WithJsonSchema({"type": "string", "examples": ["acme-models"]}),
]
ImagePrefix = Annotated[
    str, matching(re.compile(r"[a-z0-9][a-z0-9._:/-]{0,200}", re.ASCII), "an image name or prefix"), WithJsonSchema({"type": "string"})
]
LabelKey = Annotated[
    str,
    matching(re.compile(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", re.ASCII), "a label key like team/pool"),
    WithJsonSchema({"type": "string", "examples": ["deployctl/pool"]}),
]
Url = Annotated[str, matching(re.compile(r"[a-z][a-z0-9+.-]*://\S*", re.ASCII), "an address like s3://bucket"), WithJsonSchema({"type": "string"})]
Hourly = Annotated[tuple[float, str], parsed(units.money_per_hour), WithJsonSchema({"type": "string", "examples": ["1.006 USD/h"]})]
Daily = Annotated[tuple[float, str], parsed(units.money_per_day), WithJsonSchema({"type": "string", "examples": ["200 USD/day"]})]
Date = Annotated[
    str,
    matching(re.compile(r"20\d\d-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])", re.ASCII), "a date like 2026-11-24"),
    WithJsonSchema({"type": "string", "format": "date", "examples": ["2026-11-24"]}),
]
Choice = Annotated[Literal["detect", "install", "off"], one_of("detect", "install", "off")]
CLOUDS = ("existing", "eks", "gke", "aks")


class RawCluster(Section):
    """The cluster itself."""

    context: Context | None = None
    """kubectl context that reaches it; for a cluster that is made here, the name that it gets (the platform's name where nothing is written)."""
    version: MinorVersion | None = None
    """Kubernetes version of a cluster that is made here; the cloud's own default where nothing is written."""


class RawNetwork(Section):
    """The network of a cluster that is made here."""

    cidr: Cidr | None = None
    """Address range; 10.64.0.0/16 where nothing is written."""
    zones: list[Word] | None = None
    """Availability zones, at least two; needed for eks."""


class RawPool(Section):
    """Nodes of one kind."""

    instance: Word | None = None
    """Kind of machine, a key of the catalog such as g6.xlarge; device, gpus, cpu and memory follow from it."""
    device: Word | None = None
    """Key of the hardware that proofs are bound to, such as L4; needed where no instance says it."""
    gpus: Count | None = None
    """Whole GPUs that one replica gets; 1 where nothing is written, 0 for a pool without GPUs."""
    cpu: Positive | None = None
    """Cores that one replica requests; three quarters of its share of the machine where nothing is written."""
    memory: Size | None = None
    """Memory that one replica gets; three quarters of its share of the machine where nothing is written."""
    nodes: Span | None = None
    """Bounds on the number of nodes: 0..8, ..8 or 3."""
    spot: Bool = False
    """Whether the nodes may be taken away at short notice, for a lower price."""
    on_demand: Count | None = None
    """With spot: the first so many nodes are not spot."""
    taint: LabelKey | Literal[""] | None = None
    """Key of the NoSchedule taint that keeps other pods off; nvidia.com/gpu where nothing is written, "" for none."""
    label: LabelKey | None = None
    """Key of the node label whose value is the pool's name; deployctl/pool where nothing is written."""


class RawAddons(Section):
    """What runs in the cluster beside the services; nothing is installed that is not asked for."""

    gpu: Choice = "detect"
    """The device plugin that makes GPUs allocatable."""
    keda: Choice = "detect"
    """KEDA, which scales on what a Prometheus says."""
    prometheus: Choice = "detect"
    """Prometheus with its operator."""
    otel: Choice = "detect"
    """The OpenTelemetry collector."""


class RawAutoscaler(Section):
    """Who scales replicas, for all services on the cluster."""

    kind: Annotated[Literal["hpa", "keda"], one_of("hpa", "keda")] = "hpa"
    """hpa (plain Kubernetes; a metrics adapter answers external.metrics.k8s.io) or keda."""
    prometheus: Url | None = None
    """Address of the Prometheus that KEDA asks, as the cluster reaches it."""


class RawPrice(Section):
    """What one machine costs, and who says so."""

    on_demand: Hourly | None = None
    """Price of a machine that stays, such as 1.006 USD/h."""
    spot: Hourly | None = None
    """Price of a machine that may be taken away."""
    source: Annotated[str, matching(re.compile(r".{1,200}"), "a source"), WithJsonSchema({"type": "string"})] = "platform.yaml"
    """Who says so: a price list, a contract."""
    as_of: Date
    """The day for which it was said."""


class RawPulumi(Section):
    """Where Pulumi keeps its state."""

    backend: Url | None = None
    """Address of the state, such as s3://bucket/pulumi; this machine where nothing is written."""
    secrets: Url | None = None
    """What encrypts secrets in it, such as awskms://alias/deployctl; PULUMI_CONFIG_PASSPHRASE (or _FILE) where nothing is written."""


class RawPlatform(Section):
    """platform.yaml."""

    version: Version = 1
    """Version of this file's grammar."""
    name: Name | None = None
    """Prefix of everything that is made; the folder's name where nothing is written."""
    cloud: Annotated[Literal["existing", "eks", "gke", "aks"], one_of(*CLOUDS)] = "existing"
    """Who makes the cluster; existing makes none and changes none."""
    region: Word | None = None
    """Region; needed on a cloud, and for prices."""
    account: Word | None = None
    """Project (gke) or subscription (aks) that pays."""
    cluster: RawCluster = RawCluster()
    """The cluster itself."""
    network: RawNetwork = RawNetwork()
    """The network of a cluster that is made here."""
    pools: Annotated[dict[Name, RawPool], Field(min_length=1)]
    """Node pools by name; environments in deploy.yaml name them as `pool:`."""
    store: Bucket | None = None
    """Bucket for models, made on a cloud."""
    readers: list[Reader] | None = None
    """Whose pods may read the bucket: namespace/service."""
    addons: RawAddons = RawAddons()
    """What runs in the cluster beside the services."""
    autoscaler: RawAutoscaler = RawAutoscaler()
    """Who scales replicas."""
    images: dict[ImagePrefix, ImagePrefix] = Field(default_factory=dict)
    """Mirrors: image prefix -> prefix to pull from."""
    pull_secrets: list[Name] | None = None
    """Names of existing image pull secrets (kind Secret); never their content."""
    budget: Daily | None = None
    """Highest daily cost of all nodes at their upper bounds, such as 200 USD/day."""
    pricing: dict[Word, RawPrice] = Field(default_factory=dict)
    """Prices by instance; they stand above the catalog's."""
    pulumi: RawPulumi = RawPulumi()
    """Where Pulumi keeps its state."""
