"""deploy.yaml as it is written: the raw file model, used only while parsing, and the source of the JSON Schema.

Every scalar arrives as the text that was written; the type of a field (`config/fields.py`) turns it into a value. What leaves is
checked field by field; whether fields fit together is `config/loader.py`'s question. Refuses to know files, defaults of the core
types and where anything stood.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from deployctl.config.fields import (
    AnnotationKey,
    AnnotationValue,
    Bool,
    Branch,
    Column,
    Context,
    Delay,
    Duration,
    Image,
    Latencies,
    Mix,
    Money,
    Name,
    OtlpUrl,
    Path,
    Port,
    Positive,
    PositiveRate,
    Rate,
    Ratio,
    Recipe,
    Section,
    Seed,
    Source,
    Span,
    Steps,
    Version,
    Word,
    matching,
    one_of,
)


class RawModel(Section):
    """Where the model comes from."""

    source: Source
    """python:MODULE:FUNCTION (returns a Model), onnx:FILE, triton:DIR (a repository, kept as it is), opaque:FILE or DIR (an engine and a JSON)."""
    sample: Path | None = None
    """JSON-lines file of example requests, one a line; text sources use {"text": "..."}."""
    tokenizer: Path | None = None
    """tokenizer.json for an onnx source that takes text."""
    pooling: Annotated[Literal["mean", "cls"], one_of("mean", "cls")] | None = None
    """How token vectors become one vector, for an onnx source."""
    environment: Path | None = None
    """Folder of packages for Python models, as `pip install --target FOLDER` makes it for the server's Python version."""


class RawSlo(Section):
    """The promise."""

    latency: Latencies
    """Upper limits by percentile, such as {p99: 100ms}."""
    ttft: Latencies = Field(default_factory=dict)
    """Time to first token, by percentile."""
    itl: Latencies = Field(default_factory=dict)
    """Inter-token latency, by percentile."""
    errors: Ratio | None = None
    """Largest share of requests that may fail; where nothing is written what the largest percentile implies (p99: 1%), at most 1%."""
    at: Annotated[Literal["client", "gateway", "server"], one_of("client", "gateway", "server")] = "client"
    """Where latency is measured; client includes the network and the front door."""
    window: Duration = 300.0
    """Length of the window that the promise is judged over; 5min where nothing is written."""


class RawStep(Section):
    """From `at` on, requests arrive at `rate`."""

    at: Delay
    """Start of the step since the beginning."""
    rate: Rate
    """Mean rate of the step."""


class RawTraffic(Section):
    """The offered traffic: exactly one of rate, steps and trace."""

    rate: PositiveRate | None = None
    """One mean rate, such as 40/s."""
    steps: list[RawStep] | None = None
    """Piecewise constant rates: [{at: 0s, rate: 10/s}, {at: 1min, rate: 40/s}]."""
    trace: Path | None = None
    """CSV file with a header line: counts per interval (with `per`), or one send time a row (without)."""
    column: Column | None = None
    """Column of the trace; may be left out where there is only one."""
    per: Duration | None = None
    """Length of the interval that each row of the trace counts."""
    arrivals: Annotated[Literal["poisson", "constant", "gamma", "weibull"], one_of("poisson", "constant", "gamma", "weibull")] | None = None
    """Law of the gaps between requests; poisson where nothing is written."""
    cv: Positive | None = None
    """Coefficient of variation of the gaps for gamma and weibull; 1 is Poisson-like."""
    mix: Mix = Field(default_factory=dict)
    """Shares of input sizes, such as {16: 70%, 128: 30%}; taken from the sample where nothing is written."""
    repeat: Ratio = 0.0
    """Share of requests whose content was sent before: what a response cache could answer."""


class RawFidelity(Section):
    """How close a compressed variant must stay to the original."""

    metric: Word | None = None
    """What is compared; cosine where nothing is written."""
    min: Ratio | None = None
    """The gate on the lower bound of the mean; 0.98 where nothing is written."""


class RawDistill(Section):
    """How the method distill makes and trains its student."""

    keep: Ratio | None = None
    """Share of the model's repeated blocks that the student keeps; 50% where nothing is written."""
    steps: Steps | None = None
    """Batches of 16 requests to train on; 300 where nothing is written."""
    learning_rate: Positive | None = None
    """Size of a step after the warm-up; 0.0003 where nothing is written."""
    seed: Seed | None = None
    """Of the order of the requests; 0 where nothing is written."""
    time: Duration | None = None
    """The training ends after that time, whatever is left of the steps; 15min where nothing is written."""


class RawCompress(Section):
    """Which variants are tried and how close they must stay."""

    fidelity: RawFidelity = RawFidelity()
    """The gate."""
    distill: RawDistill = RawDistill()
    """The training of the method distill."""
    methods: list[Recipe] | None = Field(default=None, alias="try")
    """Variants to make, such as [fp32, int8-dynamic, int8-weights]."""


class RawLimits(Section):
    """Hard bounds."""

    replicas: Span | None = None
    """Bounds on replicas: ..12, 2..12 or 3; the least number is derived from the SLO."""
    cost: Money | None = None
    """Highest daily cost, such as 40 USD/day."""


class RawPorts(Section):
    """Loopback ports of the local front door; 0 lets deployctl choose."""

    http: Port | None = None
    """Port for HTTP; 8000 where nothing is written."""
    grpc: Port | None = None
    """Port for gRPC; 8001 where nothing is written."""


class RawScaling(Section):
    """Settings of the autoscaler."""

    policy: Word | None = None
    """Name of the policy; hpa where nothing is written."""
    target: Positive | None = None
    """Target value of the policy's signal; tune chooses where nothing is written."""
    sync: Duration | None = None
    """How often the policy decides; 15s where nothing is written."""
    tolerance: Ratio | None = None
    """No change while the ratio to the target is within it; 10% where nothing is written."""
    scale_up_window: Delay | None = None
    """Stabilisation before more replicas; 0s where nothing is written."""
    scale_down_window: Delay | None = None
    """Stabilisation before fewer replicas; 5min where nothing is written."""


class RawTelemetry(Section):
    """What is watched on a cluster; each is opt-in, because it needs somebody who runs it."""

    operator: Bool = False
    """Write a ServiceMonitor and alert rules; needs the Prometheus operator's kinds in the cluster."""
    dashboard: Bool = False
    """Write the Grafana dashboard as a ConfigMap that Grafana's sidecar picks up."""
    collector: Image | None = None
    """Image of the OpenTelemetry Collector (contrib) as NAME@sha256:…: turns Triton's spans into SLO histograms."""
    forward: OtlpUrl | None = None
    """OTLP/HTTP address that the collector sends traces on to, such as http://tempo.monitoring:4318."""


class RawEnvironment(Section):
    """One place where the service runs."""

    on: Annotated[Literal["local", "kubernetes"], one_of("local", "kubernetes")] | None = None
    """local (this machine) or kubernetes."""
    context: Context | None = None
    """kubectl context, for kubernetes."""
    namespace: Name | None = None
    """Kubernetes namespace; default where nothing is written."""
    pool: Word | None = None
    """Node pool, for kubernetes; described by platform.yaml where there is one."""
    platform: Path | None = None
    """The platform.yaml that describes the cluster, for kubernetes; the one beside deploy.yaml where nothing is written."""
    image: Image | None = None
    """Triton image by digest (NAME@sha256:…), for kubernetes; the lock's where nothing is written."""
    secrets: list[Name] | None = None
    """Names of existing Secrets whose keys the server sees as environment variables, for kubernetes; never their content."""
    identity: dict[AnnotationKey, AnnotationValue] | None = None
    """Annotations of the service account that bind it to a cloud identity, for kubernetes; `platform up` prints them where a cloud needs one."""
    loadtest_image: Image | None = None
    """Image by digest that has deployctl installed, from which load tests run inside the cluster."""
    limits: RawLimits = RawLimits()
    """Hard bounds."""
    store: (
        Annotated[
            str,
            matching(re.compile(r"(s3|gs|az|file|https?)://[^\s]+"), "a store like s3://bucket/prefix"),
            WithJsonSchema({"type": "string", "pattern": "^(s3|gs|az|file|https?)://"}),
        ]
        | None
    ) = None
    """Object store for bundles and releases, such as s3://bucket/prefix; an https:// address serves pods and is only read."""
    store_region: Word | None = None
    """Region of the bucket; what your AWS configuration says where nothing is written."""
    store_endpoint: (
        Annotated[
            str,
            matching(re.compile(r"https?://[^\s@/]+(/[^\s@]*)?"), "an address like https://minio.example.org (without credentials)"),
            WithJsonSchema({"type": "string", "pattern": "^https?://"}),
        ]
        | None
    ) = None
    """Address of a store other than Amazon's that speaks its protocol."""
    ports: RawPorts = RawPorts()
    """Loopback ports of the local front door."""
    scaling: RawScaling = RawScaling()
    """Settings of the autoscaler."""
    image_prepull: Bool = False
    """Keep the Triton image on every node of the pool, for quicker starts on nodes that are there already; on kubernetes."""
    writer: Annotated[Literal["apply", "pulumi", "gitops"], one_of("apply", "pulumi", "gitops")] | None = None
    """Who writes the objects on kubernetes: apply (deployctl itself), pulumi, or gitops (commits only); apply where nothing is written."""
    path: Path | None = None
    """Folder of the rendered manifests, for writer gitops; rendered/NAME where nothing is written."""
    branch: Branch | None = None
    """Branch that Argo CD or Flux follows, for writer gitops; main where nothing is written."""
    telemetry: RawTelemetry = RawTelemetry()
    """What is watched on a cluster."""
    serves_people: Bool = False
    """Whether real users are served: load tests then need --isolated or --max-rate."""


class RawProject(Section):
    """deploy.yaml."""

    version: Version = 1
    """Version of this file's grammar."""
    name: Name | None = None
    """Name of the service; the folder's name where nothing is written."""
    model: RawModel
    """Where the model comes from."""
    slo: RawSlo
    """The promise."""
    traffic: RawTraffic
    """The offered traffic."""
    compress: RawCompress = RawCompress()
    """Which variants are tried."""
    environments: Annotated[dict[Name, RawEnvironment], BeforeValidator(lambda v: {} if v is None else v)] = Field(default_factory=dict)
    """Places where the service runs; only `local` where nothing is written."""


class RawUser(Section):
    """The user's own defaults."""

    env: Name | None = None
    """Environment that is meant where --env is not given."""
    output: Annotated[Literal["table", "json", "yaml"], one_of("table", "json", "yaml")] | None = None
    """Form of results where -o is not given."""
