"""When to stop measuring: what was seen so far enters, `keeps`, `misses` or `more` leaves. Refuses to know clocks and load.

Judging an interval again after each further stretch would find a lucky moment sooner or later. A sequential test may be looked at
as often as one likes; it says when to stop, and `verdict.assess` then says what it means.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from deployctl.core.load_samples import Samples
from deployctl.core.slo import Objective

Decision = Literal["keeps", "misses", "more"]


def decide_percentile(late: float, total: float, percentile: float, *, error: float = 0.01) -> Decision:
    """Wald's sequential test on the share of late requests (A. Wald, Sequential Analysis, 1947).

    H0: the share is half of what the percentile allows; H1: twice of it. With q = 1 - percentile / 100, p0 = q / 2, p1 = 2 q:
    stop when log LR leaves (log(error / (1 - error)), log((1 - error) / error)). It takes requests as independent: where latencies
    are autocorrelated, counts are divided by the design effect first (`decide`).
    """
    q = 1 - percentile / 100
    p0, p1 = q / 2, min(2 * q, 0.5)
    ratio = late * math.log(p1 / p0) + (total - late) * math.log((1 - p1) / (1 - p0))
    bound = math.log((1 - error) / error)
    if ratio >= bound:
        return "misses"
    return "keeps" if ratio <= -bound else "more"


def decide(samples: Samples, objective: Objective, duration_s: float) -> Decision:
    """The test on the effective number of requests: n over the design effect of blocks of time (Kish, Survey Sampling, 1965).

    Args:
        samples: all so far, times in [0, duration_s).
        objective: a latency objective with a percentile.
        duration_s: length so far.
    """
    from deployctl.core import bootstrap  # scipy stands behind it

    n = samples.ok.size
    if n == 0 or objective.percentile is None:
        return "more"
    late = ~samples.ok | (np.where(samples.ok, samples.latency_s, np.inf) > objective.max)
    bins = bootstrap.cut(samples.intended_s, late.astype(np.float64), duration_s)
    effect = bootstrap.design_effect(late, bins) if bins is not None else 1.0
    return decide_percentile(float(late.sum()) / effect, n / effect, objective.percentile)


def precise(values: Sequence[float], ratio: float) -> bool:
    """Whether the mean of these repeats is known to `ratio` of itself (its standard error); three are needed to say so."""
    if len(values) < 3:
        return False
    mean = float(np.mean(values))
    return mean > 0 and float(np.std(values, ddof=1)) / math.sqrt(len(values)) <= ratio * mean
