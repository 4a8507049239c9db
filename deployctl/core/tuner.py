"""Tuning as ask and tell: what was measured enters, the next trial or the end leaves. Values only; nothing here waits or runs.

The model rules candidates out and few live tests confirm: cheapest first, each failed test is data (it corrects the forecasts of the
rest). When a test has seen enough is said by `core/sequential.py`; a grid without a model is searched by `core/grid.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from deployctl.core.serving import ServingConfig
from deployctl.core.sizing import Estimate, Infeasible
from deployctl.core.verdict import Verdict

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What to measure next, and why."""

    estimate: Estimate
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The search is over: `chosen` kept the SLO under load, or None did and the reason says so."""

    chosen: Tested | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """A trial with its live result; `verdict` None means that the probe itself failed (`error` says how)."""

    estimate: Estimate
    verdict: Verdict | None
    measured_s: float | None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """The settings that may be tried; what a model's own config.pbtxt names as preferred batch sizes stays, as far as a batch allows it."""

    max_batch: tuple[int, ...] = (1, 2, 4, 8, 16)
    queue_delay_s: tuple[float, ...] = (0.0, 0.002, 0.005)
    instances: tuple[int, ...] = (1, 2)
    preferred_batches: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def preferred(self, model: str, batch: int) -> tuple[int, ...] | None:
        """Those of the model's preferred sizes that a batch limit leaves; None where it never named any."""
        return tuple(size for size in self.preferred_batches[model] if size <= batch) if model in self.preferred_batches else None


def candidates(axes: Axes, models: Sequence[str]) -> list[dict[str, ServingConfig]]:
    """All settings of the axes, equal for each tunable model; a delay without batching makes no sense and is left out."""
    found = []
    for instances in axes.instances:
        for batch in axes.max_batch:
            for delay_s in axes.queue_delay_s if batch > 1 else (0.0,):
                warm = tuple(sorted({1, batch}))
                setting = ServingConfig(max_batch=batch, queue_delay_s=delay_s, instances=instances, warmup_batches=warm)
                found.append({model: replace(setting, preferred_batches=axes.preferred(model, batch)) for model in models})
    return found


def ranked(estimates: Sequence[Estimate]) -> list[Estimate]:
    """Those that keep the SLO by forecast: cheapest first, then the one with the most room under more traffic, then the simplest."""

    def order(e: Estimate) -> tuple[float, float, float, int]:
        seconds = e.stressed_s if e.stressed_s is not None else (e.percentile_s or 1.0) * 10
        # Forecasts that differ by less than 5 % are equal; then a shorter delay and a smaller batch win.
        room = round(math.log(max(seconds, 1e-6)) / 0.05)
        return e.cost, room, sum(s.queue_delay_s for s in e.settings.values()), sum(s.max_batch for s in e.settings.values())

    return sorted((e for e in estimates if e.keeps), key=order)


def nearest(estimates: Sequence[Estimate]) -> list[Estimate]:
    """By how near they come to the SLO: the shortest percentile first, then by the share of late requests; of equals the cheapest and simplest."""

    def order(e: Estimate) -> tuple[float, ...]:
        seconds = e.percentile_s if e.percentile_s is not None else math.inf  # it saturates
        late = e.forecast.miss_ratio if e.forecast.miss_ratio is not None else 1.0
        return seconds, late, e.cost, sum(s.queue_delay_s for s in e.settings.values()), sum(s.max_batch for s in e.settings.values())

    return sorted(estimates, key=order)


def variations(settings: Mapping[str, ServingConfig], model: str, axes: Axes) -> list[dict[str, ServingConfig]]:
    """The same settings with every other one of the axes for one model."""
    found = [{**settings, model: one[model]} for one in candidates(axes, [model])]
    return [other for other in found if other != settings]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Why these settings: in words, with the stage or cores that saturate first, and the next best and what it would cost."""

    why: str
    bottleneck: str
    second: Estimate | None
    against: str


def explained(estimates: Sequence[Estimate], chosen: Estimate, *, failed: int) -> Choice:
    """The choice beside the next best candidate.

    Args:
        estimates: every candidate.
        chosen: the one that kept the SLO under load.
        failed: how many that ranked before it were tested and did not.
    """
    kept = [e for e in ranked(estimates) if (e.settings, e.replicas) != (chosen.settings, chosen.replicas)]
    second = next((e for e in kept if e.cost >= chosen.cost), None)
    same = sum(e.cost == chosen.cost for e in kept)
    why = "the cheapest that keep the SLO" if failed == 0 else f"the cheapest left after {failed} that missed it under load"
    if same:
        why += f", and of {same + 1} that cost the same those with the most room at 30 % more traffic"
    return Choice(why=why, bottleneck=chosen.forecast.bottleneck or "unknown", second=second, against=_against(chosen, second))


def _against(chosen: Estimate, second: Estimate | None) -> str:
    """What the second best would cost, or where it is worse."""
    if second is None:
        return "nothing else keeps the SLO by forecast"
    if second.cost > chosen.cost:
        return f"costs {second.cost - chosen.cost:g} more"
    if second.stressed_s is None and chosen.stressed_s is not None:
        return "costs the same, and saturates at 30 % more traffic"
    if chosen.stressed_s is not None and second.stressed_s is not None and second.stressed_s > 1.05 * chosen.stressed_s:
        return f"costs the same, but {second.stressed_s * 1e3:.0f} ms at 30 % more traffic instead of {chosen.stressed_s * 1e3:.0f} ms"
    return "costs the same and is as good by forecast; the simpler one was taken"


def propose(history: Sequence[Tested], estimates: Sequence[Estimate], *, limit_s: float, trials: int = 3) -> Trial | Done:
    """The next live test, or the end.

    Args:
        history: live tests so far, oldest first.
        estimates: every candidate with its forecast.
        limit_s: the SLO's latency.
        trials: at most this many live tests.
    """
    for tested in history:
        if tested.verdict is not None and tested.verdict.result == "PASS":
            return Done(chosen=tested, reason="kept the SLO under load")
    correction = _correction(history)
    tried = [(t.estimate.settings, t.estimate.replicas) for t in history]
    left = [e for e in ranked(estimates) if (e.settings, e.replicas) not in tried]
    fit = [e for e in left if (e.percentile_s or math.inf) * correction <= limit_s]
    if not fit or len(history) >= trials:
        return Done(chosen=None, reason=_end_reason(history, left, correction))
    best = fit[0]
    reason = "cheapest that keeps the SLO by forecast" if not history else f"next after {len(history)} missed (forecasts times {correction:.2f})"
    return Trial(estimate=best, reason=reason)


def too_dear(chosen: Tested, estimates: Sequence[Estimate]) -> bool:
    """Whether the forecast was a quarter too long while cheaper candidates were ruled out by it: the cheapest may be among those."""
    forecast_s, cheapest = chosen.estimate.percentile_s, min(e.cost for e in estimates)
    if chosen.measured_s is None or forecast_s is None or chosen.estimate.cost <= cheapest:
        return False
    return chosen.measured_s < 0.75 * forecast_s


def _correction(history: Sequence[Tested]) -> float:
    """Measured over forecast latency of the tests so far: the median, never below 1 (a lucky test does not loosen the rest).

    What was late because others took the cores says nothing about the forecast.
    """
    sound = [t for t in history if t.verdict is None or t.verdict.others_ratio is None]
    ratios = [t.measured_s / t.estimate.percentile_s for t in sound if t.measured_s and t.estimate.percentile_s]
    return max(1.0, float(np.median(ratios))) if ratios else 1.0


def _end_reason(history: Sequence[Tested], left: Sequence[Estimate], correction: float) -> str:
    if not history:
        return "no candidate keeps the SLO by forecast"
    if left and correction > 1.0:
        return f"the forecasts of this profile are {correction:.2f} times too good, and none of the rest keeps the SLO after that"
    return f"{len(history)} candidates missed the SLO under load"


def nearest_promise_s(best: Estimate | None, margin_ratio: float) -> float | None:
    """The smallest limit that the closest candidate keeps with room to spare, rounded up to two digits; None where all saturate."""
    if best is None or best.percentile_s is None:
        return None
    wanted = best.percentile_s * (1 + margin_ratio)
    step = 10.0 ** (math.floor(math.log10(wanted)) - 1)
    return math.ceil(wanted / step - 1e-9) * step


def infeasible(estimates: Sequence[Estimate], limit_replicas: int) -> Infeasible:
    """Why nothing fits: the candidate that came closest, and what stops it."""
    best = nearest(estimates)[0]
    if best.percentile_s is None:
        return Infeasible(reason=f"every setting saturates with {limit_replicas} replicas: {estimates[0].why}", best=None)
    return Infeasible(reason=f"the best of {len(estimates)} settings with at most {limit_replicas} replicas: {best.why}", best=best)


def settings_text(settings: Mapping[str, ServingConfig]) -> str:
    """Settings in one line for people."""
    parts = []
    for model, s in settings.items():
        named = f" (sends {', '.join(map(str, s.named_batches))} at once)" if s.named_batches else ""
        delay = f", wait {s.queue_delay_s * 1e3:g} ms" if s.queue_delay_s else ""
        parts.append(f"{model}: batch {s.max_batch}{named}{delay}, {s.instances} instance{'s' if s.instances > 1 else ''}")
    return "; ".join(parts)
