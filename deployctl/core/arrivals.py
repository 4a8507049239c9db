"""Planned arrivals: a Demand enters, arrays of send times and sizes leave; simulator and load generator share them.

One definition of traffic drives both, so a forecast and a measurement with the same seed see the same requests at the same
moments. Refuses to know clocks: every time is relative to the start. Randomness is the generator that is passed in.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from deployctl.core.demand import Demand
from deployctl.errors import ProjectError

MAX_ARRIVALS = 50_000_000


def arrival_times_s(demand: Demand, duration_s: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Send times in [0, duration_s), rising.

    A renewal process of unit rate is drawn and warped through the inverse of the cumulative rate
    Lambda(t) = integral of rate(x) dx from 0 to t ("time rescaling", exact for an inhomogeneous Poisson process: Cinlar,
    Introduction to Stochastic Processes, 1975, 4.7). A gap that spans two steps is stretched by both rates.

    Args:
        demand: rate curve and law of the gaps; `trace` takes `times_s` as they are.
        duration_s: length in seconds; zero or less gives no arrivals.
        rng: the only source of randomness.

    Raises:
        ProjectError: `demand-too-large`, more than 50 million arrivals; `demand-invalid`, a trace without times, or a
            negative rate or variation.
    """
    if duration_s <= 0:
        return np.empty(0)
    if demand.arrivals == "trace":
        return _trace(demand, duration_s)
    starts, rates = _segments(demand, duration_s)
    ends = np.append(starts[1:], duration_s)
    mass = np.concatenate(([0.0], np.cumsum((ends - starts) * rates)))
    total = float(mass[-1])
    if total > MAX_ARRIVALS:
        raise ProjectError(
            f"the planned traffic has {total:.0f} requests, more than {MAX_ARRIVALS}",
            hint="shorten the test (--duration) or lower the rate (--rate)",
            code="demand-too-large",
        )
    units = _renewal(demand, total, rng)
    live = rates > 0
    starts, ends, rates, mass_before = starts[live], ends[live], rates[live], mass[:-1][live]
    if units.size == 0 or starts.size == 0:
        return np.empty(0)
    if starts.size == 1:  # one mean rate: the same values without a search per arrival
        return np.asarray(np.minimum(starts[0] + units / rates[0], np.nextafter(ends[0], 0.0)), dtype=np.float64)
    # A step of rate zero has no mass, so no unit falls into it: search only steps that have some.
    at = np.searchsorted(mass_before, units, side="right") - 1
    times: npt.NDArray[np.float64] = starts[at] + (units - mass_before[at]) / rates[at]
    # Rounding must not carry an arrival over the end of its step, where the rate may be zero.
    return np.minimum(times, np.nextafter(ends[at], 0.0))


def sizes(demand: Demand, n: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """The input size bucket of each of `n` requests, drawn independently from the mix."""
    values = np.array([share.size for share in demand.mix], dtype=np.int64)
    weights = np.array([share.share_ratio for share in demand.mix], dtype=np.float64)
    if values.size == 1:
        return np.full(n, values[0], dtype=np.int64)
    return rng.choice(values, size=n, p=weights / weights.sum())


def _trace(demand: Demand, duration_s: float) -> npt.NDArray[np.float64]:
    if demand.times_s is None:
        raise ProjectError("arrivals are `trace` and no times are given", hint="give traffic.trace a file of times", code="demand-invalid")
    times = np.sort(np.asarray(demand.times_s, dtype=np.float64))
    return times[(times >= 0) & (times < duration_s)]


def _segments(demand: Demand, duration_s: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    starts = np.array([step.start_s for step in demand.steps], dtype=np.float64)
    rates = np.array([step.rate_rps for step in demand.steps], dtype=np.float64)
    if starts.size == 0 or starts[0] != 0 or np.any(np.diff(starts) <= 0) or np.any(rates < 0) or not np.all(np.isfinite(rates)):
        raise ProjectError(
            "the rate curve must begin at 0 s, rise in time, and have no negative rate", hint="correct traffic.rate", code="demand-invalid"
        )
    keep = starts < duration_s
    return starts[keep], rates[keep]


def _renewal(demand: Demand, total: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Points of a unit-rate renewal process in [0, total)."""
    if demand.cv < 0 or not math.isfinite(demand.cv):
        raise ProjectError(f"the variation of the gaps is {demand.cv}", hint="give a cv of zero or more", code="demand-invalid")
    if demand.arrivals == "constant" or (demand.arrivals in ("gamma", "weibull") and demand.cv == 0):
        return np.arange(math.ceil(total), dtype=np.float64)
    parts: list[npt.NDArray[np.float64]] = []
    reached = 0.0
    while reached < total:
        missing = total - reached
        count = int(missing + 4 * max(demand.cv, 1.0) * math.sqrt(missing) + 16)
        points = reached + np.cumsum(_gaps(demand, count, rng))
        parts.append(points)
        reached = float(points[-1])
    units = np.concatenate(parts) if parts else np.empty(0)
    return units[units < total]


def _gaps(demand: Demand, count: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Unit-mean gaps with the demand's coefficient of variation."""
    if demand.arrivals == "gamma":
        return rng.gamma(shape=demand.cv**-2, scale=demand.cv**2, size=count)
    if demand.arrivals == "weibull":
        shape = weibull_shape(demand.cv)
        return rng.weibull(shape, size=count) / math.exp(float(gammaln(1 + 1 / shape)))
    return rng.exponential(size=count)


def weibull_shape(cv: float) -> float:
    """The shape k whose Weibull distribution has this coefficient of variation.

    Solves Gamma(1 + 2/k) / Gamma(1 + 1/k)^2 - 1 = cv^2, which falls in k; 0.05 <= cv <= 20 is covered.
    """

    def excess(log_k: float) -> float:
        k = math.exp(log_k)
        return float(gammaln(1 + 2 / k) - 2 * gammaln(1 + 1 / k)) - math.log1p(cv * cv)

    low, high = math.log(0.12), math.log(200.0)
    if excess(low) < 0 or excess(high) > 0:
        raise ProjectError(f"no Weibull law has a variation of {cv}", hint="use a cv between 0.05 and 20, or gamma", code="demand-invalid")
    for _ in range(80):  # bisection: scipy.optimize takes longer to import than this takes in a thousand runs
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return math.exp((low + high) / 2)
