"""The traffic: one definition drives the simulator, the load generator and the forecast.

What enters is a rate curve, an arrival law and a size mix; what leaves are planned arrivals as arrays. Refuses to know
clocks and sockets; randomness is passed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ArrivalLaw = Literal["poisson", "constant", "gamma", "weibull", "trace"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeShare:
    """A share of requests whose input falls into one bucket.

    Attributes:
        size: the bucket's upper bound in the model's own unit (tokens for text, 1 where inputs have one size).
        share_ratio: fraction of requests, all shares of a mix add to 1.
    """

    size: int
    share_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RateStep:
    """From `start_s` on (until the next step) requests arrive at `rate_rps` on average."""

    start_s: float
    rate_rps: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Offered traffic.

    Attributes:
        steps: piecewise-constant rate curve, first step at 0, strictly rising starts.
        arrivals: law of the gaps between arrivals within a step; `trace` means `times_s` are exact.
        cv: coefficient of variation of the gaps for gamma and weibull; 1 is Poisson-like.
        mix: size mix; one share of size 1 where the model has one input size.
        repeat_ratio: fraction of requests whose content was sent before (what a response cache can answer).
        times_s: exact send times for `trace`, else None.
    """

    steps: tuple[RateStep, ...]
    arrivals: ArrivalLaw = "poisson"
    cv: float = 1.0
    mix: tuple[SizeShare, ...] = (SizeShare(size=1, share_ratio=1.0),)
    repeat_ratio: float = 0.0
    times_s: tuple[float, ...] | None = None

    def rate_rps(self, t_s: float) -> float:
        """Mean offered rate at time `t_s` (the last step holds for ever)."""
        rate = 0.0
        for step in self.steps:
            if step.start_s > t_s:
                break
            rate = step.rate_rps
        return rate

    @property
    def peak_rps(self) -> float:
        """The highest step: what a fixed number of replicas is sized for."""
        return max(step.rate_rps for step in self.steps)


def constant(rate_rps: float, *, mix: tuple[SizeShare, ...] = (SizeShare(size=1, share_ratio=1.0),)) -> Demand:
    """Poisson traffic at one rate."""
    return Demand(steps=(RateStep(start_s=0.0, rate_rps=rate_rps),), mix=mix)
