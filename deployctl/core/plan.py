"""The waist of the hourglass: everything before computes a Plan, everything after is a function of it alone.

`plan.json -> Plan -> plan.json` is byte-identical (`core/codec.py`). A digest that is not resolved yet is None and is shown
as such; nothing is invented.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deployctl.core import codec
from deployctl.core.decision import ScalingPolicy
from deployctl.core.demand import Demand
from deployctl.core.forecast import Forecast
from deployctl.core.platform import ClusterSpec
from deployctl.core.serving import ServingConfig
from deployctl.core.slo import Slo


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Loopback ports of the local front door; 0 lets the supervisor choose and remember."""

    http: int = 8000
    grpc: int = 8001


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The desired world of one service in one environment.

    Attributes:
        service, env: who.
        target: `local` or `kubernetes`.
        bundle: digest of the bundle; None while unresolved.
        settings: model name -> the settings that override the packaged ones.
        scaling: bounds and policy. `replicas` is the fixed or starting number.
        triton_version: version of the server that serves it.
        device: what it runs on, key of the evidence.
        forecast: what is expected, None where nothing was measured for this device.
        evidence: digest of the evidence that proves the settings; None means unproven.
        trace_ratio: share of requests that Triton traces (0 below 25.04 unless the load is small).
        cluster: where it runs on Kubernetes; None for `local`.
        scaling_until_s: Unix time at which a manual scale runs out; None means never.
        scaling_after: the policy from then on.
        base: digest of the release that the plan was computed against; only in plan files, so that `up FILE` sees a moved world.
    """

    schema_version: Literal[1] = 1
    service: str
    env: str
    target: Literal["local", "kubernetes"]
    bundle: str | None = None
    entry: str
    variant: str | None = None
    settings: dict[str, ServingConfig]
    replicas: int
    scaling: ScalingPolicy
    slo: Slo
    demand: Demand
    triton_version: str
    device: str
    ports: Ports = Ports()
    forecast: Forecast | None = None
    evidence: str | None = None
    trace_ratio: float = 0.0
    cluster: ClusterSpec | None = None
    scaling_until_s: float | None = None
    scaling_after: ScalingPolicy | None = None
    base: str | None = None

    @property
    def digest(self) -> str:
        """`sha256:…` of the canonical plan."""
        return codec.digest(self)

    def scaling_at(self, now_s: float) -> ScalingPolicy:
        """The bounds and policy that hold at Unix time `now_s`: a manual scale with an end gives way by itself."""
        if self.scaling_after is not None and self.scaling_until_s is not None and now_s >= self.scaling_until_s:
            return self.scaling_after
        return self.scaling
