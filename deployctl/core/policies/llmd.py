"""The control law of llm-d's workload autoscaler, as a peer to compare with.

What enters and leaves is as in `hpa`. The signal over its target is capped, averaged, and turned into a step that is
proportional to how far it lies outside a dead band; a step up is credited with the replicas that are on their way. Refuses
to know clocks.

Options: `average_s` 45, `cap` 2, `up` 1 and `down` 0.6 (thresholds on signal over target).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from deployctl.core.decision import Decision, Hold, Observation, ScaleTo, ScalingPolicy, Unknown
from deployctl.core.signals import SIGNALS, usable


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmdState:
    """Capped ratios within the averaging window."""

    samples: tuple[tuple[float, float], ...] = ()


def initial_state() -> LlmdState:
    """A controller that has just started."""
    return LlmdState()


def decide(observation: Observation, state: LlmdState, settings: ScalingPolicy, now_s: float) -> tuple[Decision, LlmdState]:
    """One tick; arguments and result as in `hpa.decide`."""
    value = usable(observation, settings.signal)
    if value is None or settings.target <= 0:
        return Unknown(reason=f"{settings.signal} is missing, not a number or too old", evidence={}), state
    option = settings.options.get
    ready, current = max(observation.replicas_ready, 1), max(observation.replicas_wanted, 1)
    known = SIGNALS.get(settings.signal)
    each = value if known is not None and known.scope == "replica" else value / ready
    ratio = min(each / settings.target, option("cap", 2.0))
    samples = (*(s for s in state.samples if s[0] > now_s - option("average_s", 45.0)), (now_s, ratio))
    mean = sum(v for _, v in samples) / len(samples)
    wanted = _step(mean, current, ready, option("up", 1.0), option("down", 0.6))
    wanted = min(max(wanted, settings.min_replicas), settings.max_replicas)
    evidence = {settings.signal: value, "ratio": mean}
    state = LlmdState(samples=samples)
    if wanted == observation.replicas_wanted:
        return Hold(reason=f"load over target is {mean:.2f}", evidence=evidence), state
    return ScaleTo(replicas=wanted, reason=f"load over target is {mean:.2f}", evidence=evidence), state


def _step(mean: float, current: int, ready: int, up: float, down: float) -> int:
    if mean > up:
        credited = mean * min(ready / current, 1.0)
        return current + max(math.ceil(current * (credited / up - 1.0)), 0)
    if mean < down:
        return current - math.floor(current * (1.0 - mean / down))
    return current
