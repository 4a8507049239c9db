"""Cumulative latency histograms that add over processes: what enters are counts by upper bound, what leaves are quantiles.

Refuses to know who measured. A counter that went down was restarted, so what it shows now is what was added.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

Histogram = Mapping[float, float]
"""Upper bound in seconds (`inf` for the last) -> requests that took at most that long, since the process started."""


def added(histograms: list[Histogram]) -> dict[float, float]:
    """The sum of histograms with the same bounds."""
    total: dict[float, float] = {}
    for histogram in histograms:
        for bound, count in histogram.items():
            total[bound] = total.get(bound, 0.0) + count
    return total


def since(before: Histogram, now: Histogram) -> dict[float, float]:
    """What was counted between two readings of one process; after a restart, all that is counted now."""
    if count(now) < count(before):
        return dict(now)
    return {bound: max(0.0, value - before.get(bound, 0.0)) for bound, value in now.items()}


def count(histogram: Histogram) -> float:
    """Requests in all."""
    return max(histogram.values(), default=0.0)


def quantile(histogram: Histogram, q: float) -> float | None:
    """The q-quantile in seconds, linear within its bucket (as Prometheus' `histogram_quantile`).

    Args:
        histogram: cumulative counts by upper bound.
        q: between 0 and 1.

    Returns:
        None where nothing was counted. In the last, open bucket the greatest finite bound, which is then a lower limit.
    """
    total = count(histogram)
    if total <= 0:
        return None
    rank = q * total
    lower, below = 0.0, 0.0
    for bound in sorted(histogram):
        reached = histogram[bound]
        if reached >= rank and reached > below:
            if math.isinf(bound):
                return lower
            return lower + (bound - lower) * (rank - below) / (reached - below)
        lower, below = (bound if math.isfinite(bound) else lower), reached
    return lower
