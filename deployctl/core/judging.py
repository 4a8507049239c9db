"""Judging samples against a promise: exact samples enter (never bucketed), a Verdict leaves.

A miss is late, rejected or failed.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from deployctl.core import bootstrap
from deployctl.core.load_samples import Samples
from deployctl.core.slo import Objective, Point, Slo
from deployctl.core.verdict import Interval, ObjectiveVerdict, Result, Verdict, clean_requests, late_limit_s, worst

FloatArray = npt.NDArray[np.float64]
SHORT_RATIO = 0.98


def assess(
    samples: Samples,
    slo: Slo,
    *,
    rng: np.random.Generator,
    offered_rps: float,
    duration_s: float,
    measured_at: Point = "client",
    cache_hit_ratio: float | None = None,
    generator_cpu_ratio: float | None = None,
    rounds: int = 1000,
) -> Verdict:
    """Judge every objective of `slo`.

    A miss is late, rejected or failed: a request without a right answer has infinite latency. PASS if the upper end of the
    interval keeps the limit, FAIL if the lower end breaks it, else INCONCLUSIVE. Late sends only add latency: they void a
    FAIL that would not stand without them, and a PASS only where less was sent than planned.

    Args:
        samples: exact samples, the judged part only.
        slo: the promise.
        rng: seeds the bootstrap.
        offered_rps: planned mean rate.
        duration_s: planned length; times in `samples` lie within it.
        measured_at: where `latency_s` was taken.
        cache_hit_ratio: of the response cache, if known.
        generator_cpu_ratio: share of a core that the generator used.
        rounds: bootstrap resamples.
    """
    late_s = np.nan_to_num(samples.sent_s - samples.intended_s, nan=0.0)
    late = late_s > late_limit_s(slo)
    short = _sent_short(samples, duration_s, late_limit_s(slo))
    judged = tuple(
        _errors(samples, o, duration_s, rng, rounds)
        if o.metric == "errors"
        else _latency(samples, o, np.where(late, late_s, 0.0), duration_s, rng, rounds, measured_at)
        for o in slo.objectives
    )
    if short is not None:
        judged = tuple(replace(o, result="INCONCLUSIVE", reason=short) if o.result == "PASS" else o for o in judged)
    n, ok = int(samples.ok.size), int(samples.ok.sum())
    return Verdict(
        result=worst([o.result for o in judged]),
        objectives=judged,
        requests=n,
        failed=n - ok,
        late_sends=int(late.sum()),
        offered_rps=offered_rps,
        reached_rps=ok / duration_s if duration_s > 0 else 0.0,
        measured_at=measured_at,
        cache_hit_ratio=cache_hit_ratio,
        generator_cpu_ratio=generator_cpu_ratio,
    )


def _sent_short(samples: Samples, duration_s: float, limit_s: float) -> str | None:
    """Why a PASS would not count: what was planned was not sent in its time."""
    n = samples.intended_s.size
    if n == 0:
        return "no request was sent"
    ratio = np.count_nonzero(samples.sent_s <= duration_s + limit_s) / n
    return f"the generator sent only {ratio:.1%} of the planned requests in time, so the service met less load" if ratio < SHORT_RATIO else None


def _latency(
    samples: Samples, objective: Objective, late_s: FloatArray, duration_s: float, rng: np.random.Generator, rounds: int, measured_at: Point
) -> ObjectiveVerdict:
    measured = _values(samples, objective)
    if measured is None or objective.percentile is None:
        return _outcome(objective, None, None, "INCONCLUSIVE", f"{objective.metric} is not measured by this test: send it with --protocol stream")
    values, counted = measured
    if values.size == 0:
        return _outcome(objective, None, None, "INCONCLUSIVE", "no answer had two pieces" if samples.ok.size else "no request was sent")
    at_s, late_s = samples.intended_s[counted], late_s[counted] * (objective.metric != "itl")  # a late send lengthens no gap
    q = objective.percentile / 100
    estimate = bootstrap.percentile(values, q)
    ends = bootstrap.percentile_interval(values, at_s, q, duration_s, rng, rounds=rounds)
    if ends is None:
        return _outcome(objective, _finite(estimate), None, "INCONCLUSIVE", f"{duration_s:g} s are too short for an interval; send for longer")
    largest = float(np.max(values[np.isfinite(values)], initial=0.0))
    interval = Interval(low=_within(ends[0], largest), high=_within(ends[1], largest), open_above=not math.isfinite(ends[1]))
    result, reason = _compare(objective, ends, values.size)
    if result == "FAIL" and np.any(late_s > 0):
        without = bootstrap.percentile_interval(np.maximum(values - late_s, 0.0), at_s, q, duration_s, rng, rounds=rounds)
        if without is None or without[0] <= objective.max:
            result = "INCONCLUSIVE"
            reason = f"{int(np.count_nonzero(late_s))} requests were sent late by the generator; without that lateness it would not be a miss"
    if result == "FAIL" and objective.at != measured_at:
        result, reason = "INCONCLUSIVE", f"it is promised at the {objective.at} and was measured at the {measured_at}, which adds time of its own"
    return _outcome(objective, _finite(estimate), interval, result, reason)


def _values(samples: Samples, objective: Objective) -> tuple[FloatArray, npt.NDArray[np.bool_]] | None:
    """What the objective is about, infinite for requests without a right answer, and which requests have it; None where it was not measured.

    An answer of one piece has no time between pieces and says nothing about `itl`.
    """
    kinds = {"latency": samples.latency_s, "ttft": samples.first_s, "itl": samples.gap_s}
    seconds = kinds.get(objective.metric)
    if seconds is None:
        return None
    counted = ~samples.ok | ~np.isnan(seconds)
    return np.where(samples.ok, seconds, np.inf)[counted], counted


def _compare(objective: Objective, ends: tuple[float, float], n: int) -> tuple[Result, str]:
    limit = _ms(objective.max)
    if ends[1] <= objective.max:
        return "PASS", f"the upper end of the interval, {_ms(ends[1])}, keeps {limit}"
    if ends[0] > objective.max:
        low = "more requests failed than the percentile allows" if math.isinf(ends[0]) else f"even the lower end of the interval is {_ms(ends[0])}"
        return "FAIL", f"{low}; {limit} was promised"
    if math.isinf(ends[1]):
        need = clean_requests(1 - (objective.percentile or 0) / 100)
        if n < need:
            return "INCONCLUSIVE", f"{n} requests are too few to bound p{objective.percentile:g}: send at least {need:,}"
        return "INCONCLUSIVE", f"the interval reaches from {_ms(ends[0])} to requests that were never answered; {limit} was promised"
    return "INCONCLUSIVE", f"{limit} lies inside the interval, {_ms(ends[0])} to {_ms(ends[1])}; send for longer to decide"


def _errors(samples: Samples, objective: Objective, duration_s: float, rng: np.random.Generator, rounds: int) -> ObjectiveVerdict:
    n = samples.ok.size
    if n == 0:
        return _outcome(objective, None, None, "INCONCLUSIVE", "no request was sent")
    bad = ~samples.ok
    failed = int(bad.sum())
    low, high = bootstrap.ratio_interval(bad, samples.intended_s, duration_s, rng, rounds=rounds)
    said = f"{failed} of {n} requests failed" if failed else f"none of {n} requests failed"
    result: Result = "FAIL" if low > objective.max else "PASS" if high <= objective.max else "INCONCLUSIVE"
    if result == "FAIL":
        reason = f"{said} ({_share(failed / n)}); {_share(objective.max)} was promised"
    elif failed:
        reason = f"{said}: {_share(failed / n)}, interval {_share(low)} to {_share(high)}; {_share(objective.max)} was promised"
    else:
        reason = f"{said}, which bounds the share below {_share(high)}"
    if result == "INCONCLUSIVE":
        reason += _more(failed, n, objective.max)
    return _outcome(objective, failed / n, Interval(low=low, high=high), result, reason)


def _more(failed: int, n: int, limit: float) -> str:
    """What it would take to show `limit`, as the end of a sentence."""
    if limit <= 0:
        return "; no test can show that none ever fails: promise a share, such as errors: 0.1%"
    need = bootstrap.requests_for(failed, limit) if failed else clean_requests(limit)
    return f"; to show {_share(limit)} send at least {need:,}" if n < need else "; send for longer to decide"


def _outcome(objective: Objective, estimate: float | None, interval: Interval | None, result: Result, reason: str) -> ObjectiveVerdict:
    return ObjectiveVerdict(
        metric=objective.metric,
        percentile=objective.percentile,
        max=objective.max,
        estimate=estimate,
        interval=interval,
        result=result,
        reason=reason,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _within(value: float, largest: float) -> float:
    return value if math.isfinite(value) else largest


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _share(ratio: float) -> str:
    return f"{ratio * 100:.2g} %"
