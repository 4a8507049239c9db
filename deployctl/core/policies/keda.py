"""KEDA on top of the HPA: it wakes a service from zero, puts it to sleep, and steps in when the metric fails.

What enters and leaves is as in `hpa`. Between one and the upper bound the HPA decides alone; KEDA's own loop (every
`polling_s`) only switches between zero and one, after `cooldown_s` without activity, and replaces a metric that failed
`failure_threshold` times in a row by `fallback_replicas`. Refuses to know clocks.

Options: `polling_s` 30, `cooldown_s` 300, `activation` 0 (active above it), `failure_threshold` 3, `fallback_replicas` 0 (off).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from deployctl.core.decision import Decision, Hold, Observation, Reading, ScaleTo, ScalingPolicy, Unknown
from deployctl.core.policies import hpa
from deployctl.core.signals import SIGNALS, usable


@dataclass(frozen=True, slots=True, kw_only=True)
class KedaState:
    """The HPA's memory and KEDA's: last poll, last activity, failures in a row."""

    hpa: hpa.HpaState = hpa.HpaState()
    polled_s: float | None = None
    active_s: float | None = None
    failures: int = 0


def initial_state() -> KedaState:
    """An operator that has just started."""
    return KedaState()


def decide(observation: Observation, state: KedaState, settings: ScalingPolicy, now_s: float) -> tuple[Decision, KedaState]:
    """One sync; arguments and result as in `hpa.decide`."""
    value = usable(observation, settings.signal)
    state = replace(state, failures=0 if value is not None else state.failures + 1)
    if value is None:
        return _without_metric(observation, state, settings, now_s)
    active = value > settings.options.get("activation", 0.0)
    if active or state.active_s is None:  # an operator that has just started waits a whole cooldown before it puts anything to sleep
        state = replace(state, active_s=now_s)
    if state.polled_s is None or now_s - state.polled_s >= settings.options.get("polling_s", 30.0):
        state = replace(state, polled_s=now_s)
        switched = _switch(observation, state, settings, now_s, active=active)
        if switched is not None:
            return switched, state
    if observation.replicas_wanted == 0:
        return Hold(reason="asleep: nothing arrives", evidence={settings.signal: value}), state
    return _hpa(observation, state, settings, now_s)


def _switch(observation: Observation, state: KedaState, settings: ScalingPolicy, now_s: float, *, active: bool) -> Decision | None:
    """Between zero and one, KEDA's own part."""
    if observation.replicas_wanted == 0 and active:
        return ScaleTo(replicas=max(settings.min_replicas, 1), reason="awake: requests arrive", evidence={})
    idle_s = now_s - (now_s if state.active_s is None else state.active_s)
    asleep = settings.min_replicas == 0 and observation.replicas_wanted > 0 and not active and idle_s >= settings.options.get("cooldown_s", 300.0)
    return ScaleTo(replicas=0, reason=f"asleep: nothing arrived for {idle_s:g} s", evidence={}) if asleep else None


def _without_metric(observation: Observation, state: KedaState, settings: ScalingPolicy, now_s: float) -> tuple[Decision, KedaState]:
    fallback = int(settings.options.get("fallback_replicas", 0))
    if not fallback or state.failures < settings.options.get("failure_threshold", 3) or observation.replicas_wanted == 0:
        return Unknown(reason=f"{settings.signal} is missing, not a number or too old", evidence={}), state
    known = SIGNALS.get(settings.signal)
    stand_in = settings.target * (1 if known is not None and known.scope == "replica" else fallback)
    readings = {**observation.readings, settings.signal: Reading(value=stand_in, samples=fallback)}
    return _hpa(replace(observation, readings=readings), state, settings, now_s)


def _hpa(observation: Observation, state: KedaState, settings: ScalingPolicy, now_s: float) -> tuple[Decision, KedaState]:
    decision, memory = hpa.decide(observation, state.hpa, replace(settings, min_replicas=max(settings.min_replicas, 1)), now_s)
    return decision, replace(state, hpa=memory)
