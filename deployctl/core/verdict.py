"""What a load test may say: PASS, FAIL or INCONCLUSIVE, with an interval; and how much it has to send to be able to say it.

Types and counts only, so that verbs which read records load no arithmetic; `core/judging.py` judges samples.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Literal

from deployctl.core.slo import Objective, Slo

Result = Literal["PASS", "FAIL", "INCONCLUSIVE"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A two-sided confidence interval at `level`.

    `open_above` says that the data do not bound it from above; `high` is then the largest value that was seen.
    """

    low: float
    high: float
    level: float = 0.95
    open_above: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveVerdict:
    """One objective's outcome: estimate and interval in the objective's unit (seconds or ratio)."""

    metric: str
    percentile: float | None = None
    max: float
    estimate: float | None = None
    interval: Interval | None = None
    result: Literal["PASS", "FAIL", "INCONCLUSIVE"]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The worst of its objectives, and the facts that qualify it.

    Attributes:
        result: PASS if every objective passes, FAIL if any fails, else INCONCLUSIVE.
        requests, failed, late_sends: counts.
        offered_rps, reached_rps: planned and completed rate.
        cache_hit_ratio: of the response cache during the test; None if unknown.
        measured_at: client or gateway.
        generator_cpu_ratio: share of its core that the load generator used.
        others_ratio: share of the server's cores that others took, where that left a miss undecided.
    """

    result: Literal["PASS", "FAIL", "INCONCLUSIVE"]
    objectives: tuple[ObjectiveVerdict, ...]
    requests: int
    failed: int
    late_sends: int
    offered_rps: float
    reached_rps: float
    measured_at: Literal["client", "gateway", "server"] = "client"
    cache_hit_ratio: float | None = None
    generator_cpu_ratio: float | None = None
    others_ratio: float | None = None


def worst(results: list[Result]) -> Result:
    """FAIL if any fails, PASS if all pass, else INCONCLUSIVE."""
    if "FAIL" in results:
        return "FAIL"
    return "PASS" if results and all(r == "PASS" for r in results) else "INCONCLUSIVE"


LATE_FLOOR_S = 0.002
LATE_SHARE_OF_SLO = 0.05
TAIL = 0.025  # of each end of a two-sided 95 % interval
LONGEST_S = 900.0  # of a test that nobody gave a length


def late_limit_s(slo: Slo) -> float:
    """A send is late beyond this: max(2 ms, 5 % of the strictest limit that its lateness counts against)."""
    first = [o.max for o in slo.objectives if o.metric == "ttft"]
    return max(LATE_FLOOR_S, LATE_SHARE_OF_SLO * min([slo.latency.max, *first]))


def clean_requests(allowed_ratio: float) -> int:
    """How many requests without a single miss bound the share of misses below `allowed_ratio`: the least n with (1 - ratio)^n <= 0.025.

    That is the exact binomial interval (Clopper and Pearson, 1934) at no miss: 368 for 1 %, 3,688 for 0.1 %.
    """
    if allowed_ratio >= 1:
        return 1
    return math.ceil(math.log(TAIL) / math.log1p(-allowed_ratio)) if allowed_ratio > 0 else sys.maxsize


def least_requests(slo: Slo) -> int:
    """The fewest requests that can show every objective kept; a test with fewer is INCONCLUSIVE however good the service is."""
    return max(clean_requests(_allowed_ratio(o)) for o in slo.objectives)


def least_duration_s(slo: Slo, rate_rps: float) -> float:
    """How long `least_requests` take at this rate, with three standard deviations of a Poisson count to spare."""
    least = least_requests(slo)
    return math.ceil((least + 3 * math.sqrt(least)) / rate_rps)


def provable(slo: Slo, rate_rps: float) -> bool:
    """Whether a test of at most a quarter of an hour at this rate can show every objective kept."""
    return rate_rps > 0 and least_duration_s(slo, rate_rps) <= LONGEST_S


def too_little(slo: Slo, planned_requests: float) -> str | None:
    """Why a test of so many requests cannot pass, None where it can: `p99 takes 368 requests`."""
    needs = [(clean_requests(_allowed_ratio(o)), _promise(o)) for o in slo.objectives]
    need, what = max(needs)
    if planned_requests >= need:
        return None
    return f"no test can show {what}" if need == sys.maxsize else f"to show {what} takes {need:,} requests without a miss"


def _allowed_ratio(objective: Objective) -> float:
    return objective.max if objective.percentile is None else 1 - objective.percentile / 100


def _promise(objective: Objective) -> str:
    return f"errors of at most {objective.max * 100:.2g} %" if objective.percentile is None else f"a p{objective.percentile:g}"


def planned_duration_s(slo: Slo, rate_rps: float, *, least_s: float = 20.0, most_s: float = 300.0) -> float:
    """How long to send so that every objective can be decided.

    With q the percentile, n = 20 / (1 - q) requests hold 20 misses when the SLO is just kept (2,000 for p99): that long, within the
    bounds, and longer where the promise is provable only so.
    """
    share = 1 - (slo.latency.percentile or 50.0) / 100
    wanted_s = math.ceil(20 / share / rate_rps) if rate_rps > 0 and share > 0 else most_s
    planned_s = min(max(wanted_s, least_s), most_s)
    return max(planned_s, least_duration_s(slo, rate_rps)) if provable(slo, rate_rps) else planned_s
