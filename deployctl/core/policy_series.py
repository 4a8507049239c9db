"""The policy `slo` on all ticks of a recorded load at once, for replays: it is a function of arrivals, and those are known beforehand.

What enters are mean and peak arrivals of each tick; what leaves is a policy with the face of `policies/slo.py` that wants, tick by
tick, what that one wants (a test runs both). It is that module with its loops compiled: two weeks take a second and not a minute.
Refuses to know replicas: what follows the number wanted is the same code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deployctl.core import _policy_kernels as kernels
from deployctl.core import envelopes
from deployctl.core.decision import Decision, Observation, ScalingPolicy
from deployctl.core.envelopes import EXPERTS, FORECASTS, Ticks
from deployctl.core.policies import hpa, slo

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Foreseen:
    """A policy that has been told all arrivals, and still decides each tick by those before it.

    Attributes:
        mean: arrivals in requests a second, one a tick; NaN where not known.
        wanted: replicas, one a tick; NaN where the load is not known.
        chosen: index of the envelope that says so, -1 where none does.
    """

    mean: FloatArray
    wanted: FloatArray
    chosen: IntArray

    def initial_state(self) -> hpa.HpaState:
        """An HPA that has just started."""
        return hpa.initial_state()

    def decide(self, observation: Observation, state: hpa.HpaState, settings: ScalingPolicy, now_s: float) -> tuple[Decision, hpa.HpaState]:
        """What `slo.decide` says at the tick that began at `now_s`."""
        tick = round(now_s / settings.sync_s)
        if math.isnan(self.wanted[tick]):
            return slo.SILENT, state
        wanted, chosen, mean = int(self.wanted[tick]), int(self.chosen[tick]), float(self.mean[tick])
        return slo.follow(observation, wanted, chosen, mean, state, settings, now_s)


def foreseen(mean: FloatArray, peak: FloatArray, settings: ScalingPolicy) -> Foreseen:
    """The policy on this load.

    Args:
        mean: requests a second at each tick, from time 0 on, (ticks,); NaN where not known.
        peak: the largest short-term rate since the tick before, alike.
        settings: capacity, start-up and tick of the policy.
    """
    step = slo.ticks(settings)
    told = forecasts(mean, step)
    tops = kernels.rolling_max(peak, step.day)
    asked = envelopes_asked(mean, peak, told, settings.capacity_rps, step)
    line = np.fmin(np.fmax(told[:, slo.LINE], peak) * slo.ALARM_HEADROOM, envelopes.CEILING * tops)
    urgent = np.maximum(np.ceil(line / settings.capacity_rps - envelopes.SLACK), 1.0)
    wanted, chosen = kernels.choose(mean, (mean + peak) / 2, asked, urgent, _rules(settings, step))
    return Foreseen(mean=mean, wanted=wanted, chosen=chosen)


def forecasts(mean: FloatArray, step: Ticks) -> FloatArray:
    """The load one lead ahead as each forecast tells it at each tick, (ticks, forecasts); NaN where the load is not known."""
    plan = envelopes.layout(step)
    mixed = np.stack([plan.now_ratio, plan.trend_ratio, plan.mean_ratio])
    told: FloatArray = kernels.told(mean, step.lead, step.of(envelopes.TREND_S), plan.means[: len(FORECASTS)] + 1, mixed)
    return told


def envelopes_asked(mean: FloatArray, peak: FloatArray, told: FloatArray, capacity_rps: float, step: Ticks) -> FloatArray:
    """Replicas that each envelope asks for at each tick, (ticks, experts); NaN where the load is not known."""
    plan = envelopes.layout(step)
    levels = np.array(envelopes.LEVELS)
    errors = [kernels.rolling_quantiles(error, step.day, levels) for error in _errors(peak, told, step)]
    tops = np.stack([kernels.rolling_max(peak, count) for count in plan.counts], axis=1)
    loads = plan.headroom * tops[:, plan.top]
    loads[:, plan.growth] += errors[0][:, plan.growth_level]
    before = [_shifted(tops[:, column], back) for column, back in zip(plan.season_top, plan.season_back, strict=True)]
    loads[:, plan.season] = np.fmax(loads[:, plan.season], plan.season_headroom * np.stack(before, axis=1))
    for column, (which, level) in enumerate(zip(plan.forecast_of, plan.forecast_level, strict=True), start=plan.forecast.start):
        loads[:, column] = np.maximum(told[:, which] + errors[1 + which][:, level], peak)
    ceiling = envelopes.CEILING * tops[:, plan.day_top]
    asked: FloatArray = np.maximum(np.ceil(np.minimum(loads, ceiling[:, None]) / capacity_rps - envelopes.SLACK), 1.0)
    asked[np.isnan(mean)] = np.nan
    return asked


def _errors(peak: FloatArray, told: FloatArray, step: Ticks) -> list[FloatArray]:
    """How much the load grew within a start-up and two ticks, then what each forecast of one lead ago was short of."""
    grown = np.maximum(peak - _shifted(peak, step.lead + 1), 0.0)
    return [grown, *(peak - _shifted(told[:, f], step.lead) for f in range(told.shape[1]))]


def _shifted(values: FloatArray, back: int) -> FloatArray:
    """The value so many ticks earlier; NaN before the first."""
    out = np.full(values.shape[0], np.nan)
    if back < values.shape[0]:
        out[back:] = values[: values.shape[0] - back]
    return out


def _rules(settings: ScalingPolicy, step: Ticks) -> FloatArray:
    """Numbers that `kernels.choose` needs, in its order."""
    return np.array(
        [
            settings.capacity_rps,
            step.start_up,
            step.judged,
            step.day,
            slo.learned(step),
            slo.WINDOW_MISS,
            slo.MISS_BUDGET,
            slo.WINDOW_BUDGET,
            slo.PER_SCORE,
            slo.ALARM_MISS,
            sum(e.held for e in EXPERTS),
            slo.DEFAULT,
        ]
    )
