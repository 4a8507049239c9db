"""The promise: what enters is a number a person wrote, what leaves is a list of objectives that samples are judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Metric = Literal["latency", "ttft", "itl", "errors"]
Point = Literal["client", "gateway", "server"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """One line of an SLO.

    Attributes:
        metric: latency, ttft (time to first token), itl (inter-token latency), or errors.
        max: upper limit: seconds for times, a ratio in [0, 1] for errors.
        percentile: 0 < percentile < 100 for times (99.0 = p99), None for errors.
        window_s: length of the window the objective is judged over.
        at: where it is measured; client includes queueing in the network and the front door.
    """

    metric: Metric
    max: float
    percentile: float | None = None
    window_s: float = 300.0
    at: Point = "client"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """All objectives of one service; at least one is on latency."""

    objectives: tuple[Objective, ...]

    @property
    def latency(self) -> Objective:
        """The strictest latency objective (largest percentile, then smallest limit): the one that sizing works on."""
        rows = [o for o in self.objectives if o.metric == "latency"]
        return max(rows, key=lambda o: (o.percentile or 0.0, -o.max))

    @property
    def error_max_ratio(self) -> float:
        """Largest allowed share of requests without a right answer; what the latency objectives imply where nothing was written."""
        rows = [o.max for o in self.objectives if o.metric == "errors"]
        return min(rows) if rows else implied_error_ratio([o.percentile or 0.0 for o in self.objectives if o.metric == "latency"])


def implied_error_ratio(percentiles: Sequence[float]) -> float:
    """The error budget that latency objectives imply: a failed request is a miss of each, so at most 1 - percentile may fail; never above 1 %."""
    return round(min(0.01, 1 - max(percentiles, default=0.0) / 100), 9)
