"""Knative's pod autoscaler, as a peer to compare with: a stable and a panic window over concurrency or request rate.

What enters and leaves is as in `hpa`. Follows `pkg/autoscaler/scaling/autoscaler.go` of Knative Serving. It gives no credit
for replicas that are on their way, and concurrency counts what waits: both are part of the comparison. Refuses to know clocks.

Options: `stable_s` 60, `panic_s` 6, `panic_ratio` 2, `up_rate` 1000, `down_rate` 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from deployctl.core.decision import Decision, Hold, Observation, ScaleTo, ScalingPolicy, Unknown
from deployctl.core.signals import usable


@dataclass(frozen=True, slots=True, kw_only=True)
class KpaState:
    """Samples of the stable window, when panic began, and the most replicas asked for in it."""

    samples: tuple[tuple[float, float], ...] = ()
    panic_s: float | None = None
    panic_replicas: int = 0


def initial_state() -> KpaState:
    """An autoscaler that has just started."""
    return KpaState()


def decide(observation: Observation, state: KpaState, settings: ScalingPolicy, now_s: float) -> tuple[Decision, KpaState]:
    """One tick; arguments and result as in `hpa.decide`."""
    value = usable(observation, settings.signal)
    if value is None or settings.target <= 0:
        return Unknown(reason=f"{settings.signal} is missing, not a number or too old", evidence={}), state
    option = settings.options.get
    stable_s, panic_s = option("stable_s", 60.0), option("panic_s", 6.0)
    samples = (*(s for s in state.samples if s[0] > now_s - stable_s), (now_s, value))
    recent = [v for at_s, v in samples if at_s > now_s - panic_s]
    calm = math.ceil(sum(v for _, v in samples) / len(samples) / settings.target)
    alarm = math.ceil(sum(recent) / len(recent) / settings.target)
    ready = max(observation.replicas_ready, 1)
    ceiling, floor = math.ceil(option("up_rate", 1000.0) * ready), math.floor(ready / option("down_rate", 2.0))
    since, most = _panic(state, over=alarm / ready >= option("panic_ratio", 2.0), stable_s=stable_s, now_s=now_s)
    wanted = min(max(calm, floor), ceiling)
    if since is not None:
        most = max(most, min(max(alarm, floor), ceiling), wanted)
        wanted = most
    state = KpaState(samples=samples, panic_s=since, panic_replicas=most)
    wanted = min(max(wanted, settings.min_replicas), settings.max_replicas)
    evidence = {settings.signal: value, "stable": float(calm), "panic": float(alarm)}
    reason = f"{'panic' if since is not None else 'stable'} window asks for {wanted}"
    if wanted == observation.replicas_wanted:
        return Hold(reason=reason, evidence=evidence), state
    return ScaleTo(replicas=wanted, reason=reason, evidence=evidence), state


def _panic(state: KpaState, *, over: bool, stable_s: float, now_s: float) -> tuple[float | None, int]:
    """Panic begins and is prolonged above the threshold, and ends one stable window after the last time."""
    if over:
        return now_s, state.panic_replicas
    if state.panic_s is not None and state.panic_s + stable_s < now_s:
        return None, 0
    return state.panic_s, state.panic_replicas
