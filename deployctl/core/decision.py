"""What a policy sees and what it says. Missing is explicit; unknown is an answer; every decision carries its evidence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One signal at one moment: `value` None means the source gave none; `age_s` is how old it is; `samples` behind it."""

    value: float | None
    age_s: float = 0.0
    samples: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """All that a scaling policy may look at.

    Attributes:
        at_s: time of the observation (the host's clock, passed in).
        readings: by signal name (`arrivals_rps`, `completions_rps`, `pending`, `busy_ratio`, `latency_p99_s` …).
        replicas_ready, replicas_starting, replicas_wanted: what runs, what is on its way, what was last asked for.
    """

    at_s: float
    readings: dict[str, Reading]
    replicas_ready: int
    replicas_starting: int = 0
    replicas_wanted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleTo:
    """Change the number of replicas."""

    KIND: ClassVar[str] = "scale_to"
    replicas: int
    reason: str
    evidence: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Keep what runs; the reason says what is being waited for."""

    KIND: ClassVar[str] = "hold"
    reason: str
    evidence: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RollBack:
    """Return to revision `to`."""

    KIND: ClassVar[str] = "roll_back"
    to: int
    reason: str
    evidence: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """The facts do not suffice: never a reason to scale down, promote or roll back."""

    KIND: ClassVar[str] = "unknown"
    reason: str
    evidence: dict[str, float]


Decision = ScaleTo | Hold | RollBack | Unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """One HPA scaling policy: at most `value` replicas (`pods`) or per cent (`percent`) of change within `period_s`."""

    kind: Literal["pods", "percent"]
    value: int
    period_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricTarget:
    """A further metric of an HPA: reading and target, in the signal's own unit."""

    signal: str
    target: float


Select = Literal["max", "min", "disabled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingPolicy:
    """Bounds and settings of the autoscaler; the same values drive the simulator, the local supervisor and the HPA.

    Attributes:
        policy: key of `core.policies.POLICIES`.
        min_replicas, max_replicas: bounds; equal means fixed.
        target: the policy's target value in its signal's own unit (for `hpa`: wanted mean of the signal per replica).
        signal: which reading is scaled on.
        sync_s: how often the policy decides.
        tolerance_ratio: no change while |ratio - 1| is within it.
        scale_up_window_s, scale_down_window_s: stabilisation windows.
        up_limits, down_limits: how fast the number may change; `up_select`, `down_select` say which limit wins.
        also: further metrics; the largest proposal wins.
        capacity_rps: largest rate at which one replica keeps the SLO (policy `slo`); 0 means not known.
        start_up_s: measured cold start, from the decision to the first right answer.
        options: values that only this policy knows; its module lists them.
    """

    policy: str = "hpa"
    min_replicas: int = 1
    max_replicas: int = 1
    target: float = 0.0
    signal: str = "busy_ratio"
    sync_s: float = 15.0
    tolerance_ratio: float = 0.1
    scale_up_window_s: float = 0.0
    scale_down_window_s: float = 300.0
    up_limits: tuple[RateLimit, ...] = (RateLimit(kind="pods", value=4, period_s=15.0), RateLimit(kind="percent", value=100, period_s=15.0))
    down_limits: tuple[RateLimit, ...] = (RateLimit(kind="percent", value=100, period_s=15.0),)
    up_select: Select = "max"
    down_select: Select = "max"
    also: tuple[MetricTarget, ...] = ()
    capacity_rps: float = 0.0
    start_up_s: float = 0.0
    options: dict[str, float] = field(default_factory=dict)
