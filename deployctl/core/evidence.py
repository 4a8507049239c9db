"""The proof that settings keep the SLO: inputs, forecast, measurement, error, versions, as one immutable record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deployctl.core import codec
from deployctl.core.demand import Demand
from deployctl.core.forecast import Forecast
from deployctl.core.profile import ServiceProfile
from deployctl.core.serving import ServingConfig
from deployctl.core.slo import Slo
from deployctl.core.verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceKey:
    """Evidence counts only for the same bundle, device, Triton version, traffic and promise."""

    bundle: str
    device: str
    triton_version: str
    demand: Demand
    slo: Slo


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One proof.

    Attributes:
        key: what it is proof for.
        settings, replicas: what was chosen.
        profile: the measured service times behind the forecast.
        forecast: what was predicted before the load test.
        verdict: what the independent load test found.
        error_ratio: forecast minus measurement over measurement, at the SLO's percentile; None if the forecast was invalid.
        probes: number of live measurements that tuning took.
        versions: package versions and machine facts.
    """

    schema_version: Literal[1] = 1
    key: EvidenceKey
    settings: dict[str, ServingConfig]
    replicas: int
    profile: ServiceProfile
    forecast: Forecast
    verdict: Verdict
    error_ratio: float | None = None
    probes: int
    versions: dict[str, str]

    @property
    def digest(self) -> str:
        """`sha256:…` of the canonical record."""
        return codec.digest(self)
