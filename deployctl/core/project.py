"""deploy.yaml, completed: every value has a default, and `origins` says where each came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from deployctl.core.demand import ArrivalLaw, RateStep, SizeShare
from deployctl.core.plan import Ports
from deployctl.core.platform import Platform, Telemetry, Writer
from deployctl.core.slo import Slo


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """Where the model comes from.

    Attributes:
        kind: `python` (mod:fn that returns a Model), `onnx` (a file), `triton` (an existing repository, kept as it is),
            `opaque` (an engine and a JSON).
        value: what follows the colon; paths are relative to deploy.yaml.
        sample: JSON-lines file of example requests; None means zeros of the declared shapes.
        tokenizer: tokenizer.json for an onnx source that takes text; None else.
        environment: folder of packages that Python models need beside those of the server; None without any.
        pooling: how token vectors become one (`mean`, `cls`); None leaves the graph's output alone.
    """

    kind: Literal["python", "onnx", "triton", "opaque"]
    value: str
    sample: str | None = None
    tokenizer: str | None = None
    pooling: Literal["mean", "cls"] | None = None
    environment: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What the person said about traffic; the mix is taken from the sample where it is empty.

    `trace_times_s` are send times read from a trace file (seconds since its start), None without one.
    """

    steps: tuple[RateStep, ...]
    arrivals: ArrivalLaw = "poisson"
    cv: float = 1.0
    mix: tuple[SizeShare, ...] = ()
    repeat_ratio: float = 0.0
    trace_times_s: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillSpec:
    """How the method `distill` makes and trains its student.

    Attributes:
        keep_ratio: share of the repeated blocks that stay, above 0 and below 1.
        steps: batches to train on, at least 1.
        learning_rate: at the end of the warm-up.
        seed: of the order of the rows.
        limit_s: the training ends then, whatever is left.
    """

    keep_ratio: float = 0.5
    steps: int = 300
    learning_rate: float = 3e-4
    seed: int = 0
    limit_s: float = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressSpec:
    """Which variants to try and how close they must stay."""

    methods: tuple[str, ...] = ("fp32", "int8-dynamic", "int8-weights")
    metric: str = "cosine"
    gate: float = 0.98
    distill: DistillSpec = DistillSpec()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Hard bounds. A limit is a limit: when the SLO needs more, the answer is infeasible, never a quiet excess."""

    min_replicas: int | None = None
    max_replicas: int | None = None
    cost_per_day: float | None = None
    currency: str = "USD"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingSpec:
    """The autoscaler's settings that a person may change; None means the product decides."""

    policy: str = "hpa"
    target: float | None = None
    sync_s: float = 15.0
    tolerance_ratio: float = 0.1
    scale_up_window_s: float = 0.0
    scale_down_window_s: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """One place where the service runs.

    `platform` describes the cluster where a platform.yaml was found; `path` and `branch` are the writer gitops' folder and the
    branch that its controller follows.
    """

    name: str
    on: Literal["local", "kubernetes"] = "local"
    context: str | None = None
    namespace: str = "default"
    pool: str | None = None
    platform: Platform | None = None
    image: str | None = None
    secrets: tuple[str, ...] = ()
    identity: dict[str, str] = field(default_factory=dict)
    loadtest_image: str | None = None
    limits: Limits = Limits()
    store: str | None = None
    store_region: str | None = None
    store_endpoint: str | None = None
    ports: Ports = Ports()
    scaling: ScalingSpec = ScalingSpec()
    image_prepull: bool = False
    writer: Writer = "apply"
    path: str | None = None
    branch: str = "main"
    telemetry: Telemetry = Telemetry()
    serves_people: bool = False

    @property
    def folder(self) -> str:
        """Where the rendered manifests lie, relative to deploy.yaml."""
        return (self.path or f"rendered/{self.name}").rstrip("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """Everything that deploy.yaml says, completed with defaults."""

    version: Literal[1] = 1
    name: str
    model: ModelSource
    slo: Slo
    traffic: Traffic
    compress: CompressSpec = CompressSpec()
    environments: tuple[Environment, ...]
    origins: dict[str, str] = field(default_factory=dict)

    def environment(self, name: str) -> Environment:
        """The environment of that name; KeyError if deploy.yaml has none."""
        return {e.name: e for e in self.environments}[name]
