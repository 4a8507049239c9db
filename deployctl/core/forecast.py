"""What is expected before anything runs: percentiles with the method that gave them and whether to believe them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Latency and load of one configuration under one demand, as the client sees it.

    Attributes:
        p50_s, p95_s, p99_s: response times; None where the queue grows without bound.
        percentile_s: the SLO's own percentile, where an SLO was given.
        utilisation_ratio: busy share of the bottleneck stage's instances.
        throughput_rps: what gets answered (below the offered rate when saturated).
        miss_ratio: share of requests expected beyond the SLO's limit, when one was given.
        method: queueing, simulation or measured.
        error_ratio: last measured relative error of this method on this device at the SLO's percentile; None if never measured.
        valid: False means do not use the numbers; `why_not` says why.
        bottleneck: the stage that saturates first.
    """

    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    utilisation_ratio: float
    throughput_rps: float
    method: Literal["queueing", "simulation", "measured"]
    miss_ratio: float | None = None
    error_ratio: float | None = None
    valid: bool = True
    why_not: str | None = None
    bottleneck: str | None = None
    percentile_s: float | None = None
