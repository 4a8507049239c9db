"""Kubernetes' HorizontalPodAutoscaler (autoscaling/v2 with a `behavior` block) as a pure function.

What enters are readings, the replicas and the settings; what leaves is a decision and the controller's memory. Follows
`pkg/controller/podautoscaler` of Kubernetes 1.36 (`replica_calculator.go`, `horizontal.go`) step by step, quantities in
thousandths included, so that a replay says what the real controller would do. Refuses to know clocks: `now_s` is passed in.

Signals of scope `replica` are `Pods` metrics, signals of scope `service` are `External` metrics with `AverageValue`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from deployctl.core.decision import Decision, Hold, Observation, RateLimit, ScaleTo, ScalingPolicy, Select, Unknown
from deployctl.core.signals import SIGNALS, usable

_NEVER = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class HpaState:
    """What the controller remembers.

    Attributes:
        recommendations: (time, replicas) before stabilisation, as far back as the longer window.
        events: (time, change of replicas) that were carried out, as far back as the longest period.
    """

    recommendations: tuple[tuple[float, int], ...] = ()
    events: tuple[tuple[float, int], ...] = ()


def initial_state() -> HpaState:
    """A controller that has just started."""
    return HpaState()


def decide(observation: Observation, state: HpaState, settings: ScalingPolicy, now_s: float) -> tuple[Decision, HpaState]:
    """One sync of the controller.

    Args:
        observation: readings and replicas at this moment.
        state: what the last call returned.
        settings: bounds, target, tolerance, windows and rate limits.
        now_s: time of the sync, never before that of the last one.

    Returns:
        The decision and the state for the next sync. `Unknown` leaves the number as it is.
    """
    current = observation.replicas_wanted
    if current == 0 and settings.min_replicas > 0:
        return Hold(reason="scaled to zero by hand: the autoscaler is off until somebody sets a number", evidence={}), state
    if current > settings.max_replicas:
        return _change(current, settings.max_replicas, "above the upper bound", {}, state, settings, now_s)
    if current < settings.min_replicas:
        return _change(current, settings.min_replicas, "below the lower bound", {}, state, settings, now_s)
    proposal, reason, evidence = _proposal(observation, settings)
    if proposal is None:
        return Unknown(reason=reason, evidence=evidence), state
    return apply_behaviour(current, proposal, reason, evidence, state, settings, now_s)


def apply_behaviour(
    current: int, proposal: int, reason: str, evidence: dict[str, float], state: HpaState, settings: ScalingPolicy, now_s: float
) -> tuple[Decision, HpaState]:
    """Stabilise a proposal over the windows, limit its speed, keep it in bounds (`normalizeDesiredReplicasWithBehaviors`)."""
    stabilised, state = _stabilise(current, proposal, state, settings, now_s)
    wanted = _limit(current, stabilised, state, settings, now_s)
    evidence = {**evidence, "proposed": float(proposal), "stabilised": float(stabilised)}
    if wanted != current:
        return _change(current, wanted, reason, evidence, state, settings, now_s)
    if proposal < current:
        reason = f"{reason}; {proposal} would do, waiting for the scale-down window of {settings.scale_down_window_s:g} s"
    elif proposal > current:
        reason = f"{reason}; held back by {'a bound or a rate limit' if stabilised > current else 'the scale-up window'}"
    return Hold(reason=reason, evidence=evidence), state


def _change(
    current: int, wanted: int, reason: str, evidence: dict[str, float], state: HpaState, settings: ScalingPolicy, now_s: float
) -> tuple[Decision, HpaState]:
    oldest = now_s - max((rule.period_s for rule in (*settings.up_limits, *settings.down_limits)), default=0.0)
    events = (*(event for event in state.events if event[0] > oldest), (now_s, wanted - current))
    return ScaleTo(replicas=wanted, reason=reason, evidence=evidence), HpaState(recommendations=state.recommendations, events=events)


def _proposal(observation: Observation, settings: ScalingPolicy) -> tuple[int | None, str, dict[str, float]]:
    """The largest proposal of all metrics; a failed metric forbids going down (`computeReplicasForMetrics`)."""
    best: int | None = None
    reason, failed = "", ""
    evidence: dict[str, float] = {}
    for signal, target in ((settings.signal, settings.target), *((m.signal, m.target) for m in settings.also)):
        value = usable(observation, signal)
        if value is None or target <= 0:
            failed = failed or (f"{signal} is missing, not a number or too old" if target > 0 else f"{signal} has no target")
            continue
        evidence[signal] = value
        proposal = _for_metric(observation, signal, value, target, settings.tolerance_ratio)
        if proposal is None:
            failed = failed or f"no replica reports {signal}"
            continue
        if best is None or proposal > best:
            best, reason = proposal, f"{signal} {value:.4g} against a target of {target:g} asks for {proposal}"
    if best is None or (failed and best < observation.replicas_wanted):
        return None, failed, evidence
    return best, reason, evidence


def _for_metric(observation: Observation, signal: str, value: float, target: float, tolerance: float) -> int | None:
    known = SIGNALS.get(signal)
    if known is not None and known.scope == "replica":
        return _pods_metric(observation, observation.readings[signal].samples, value, target, tolerance)
    return _external_metric(observation, value, target, tolerance)


def _within(ratio: float, tolerance: float) -> bool:
    return 1.0 - tolerance <= ratio <= 1.0 + tolerance


def _milli(value: float) -> int:
    """A quantity in thousandths, rounded up as `Quantity.MilliValue` does."""
    return math.ceil(round(value * 1000.0, 6))


def _external_metric(observation: Observation, value: float, target: float, tolerance: float) -> int:
    """`GetExternalPerPodMetricReplicas`: a total, divided by the target for one replica."""
    replicas = observation.replicas_ready + observation.replicas_starting  # status.replicas counts pods, ready or not
    usage, per_pod = _milli(value), _milli(target)
    if replicas > 0 and _within(usage / (per_pod * replicas), tolerance):
        return replicas
    return math.ceil(usage / per_pod)


def _pods_metric(observation: Observation, reported: int, mean: float, target: float, tolerance: float) -> int | None:
    """`calcPlainMetricReplicas`: ready pods without a metric count as on target for going down, as idle for going up.

    Starting pods count as pending: idle for going up, left out for going down. None where no pod reported.
    """
    current, ready, starting = observation.replicas_wanted, observation.replicas_ready, observation.replicas_starting
    reported = min(reported or ready, ready)
    if reported == 0:
        return None
    per_pod, missing = _milli(target), ready - reported
    total = _milli(mean * reported)
    ratio = (total // reported) / per_pod
    up_beside_starting = starting > 0 and ratio > 1.0
    if missing == 0 and not up_beside_starting:
        return current if _within(ratio, tolerance) else math.ceil(ratio * reported)
    if ratio < 1.0:
        total += per_pod * missing
    counted = ready + (starting if up_beside_starting else 0)
    refilled = (total // counted) / per_pod
    if (ratio < 1.0 < refilled) or (refilled < 1.0 < ratio) or _within(refilled, tolerance):
        return current
    wanted = math.ceil(refilled * counted)
    turned = (refilled < 1.0 and wanted > current) or (refilled > 1.0 and wanted < current)
    return current if turned else wanted


def _stabilise(current: int, proposal: int, state: HpaState, settings: ScalingPolicy, now_s: float) -> tuple[int, HpaState]:
    """`stabilizeRecommendationWithBehaviors`: the least change that every recommendation of the window agrees to."""
    up_after, down_after = now_s - settings.scale_up_window_s, now_s - settings.scale_down_window_s
    up = down = proposal
    for at_s, replicas in state.recommendations:
        if at_s > up_after:
            up = min(up, replicas)
        if at_s > down_after:
            down = max(down, replicas)
    kept = tuple(r for r in state.recommendations if r[0] > min(up_after, down_after))
    return min(max(current, up), down), HpaState(recommendations=(*kept, (now_s, proposal)), events=state.events)


def _limit(current: int, wanted: int, state: HpaState, settings: ScalingPolicy, now_s: float) -> int:
    """`convertDesiredReplicasWithBehaviorRate`: bounds, and no faster than the rate limits allow."""
    if wanted > current:
        ceiling = max(_furthest(current, settings.up_limits, settings.up_select, state, now_s, sign=1), current)
        return min(wanted, settings.max_replicas, ceiling)
    if wanted < current:
        floor = min(_furthest(current, settings.down_limits, settings.down_select, state, now_s, sign=-1), current)
        return max(wanted, settings.min_replicas, floor)
    return wanted


def _furthest(current: int, rules: tuple[RateLimit, ...], select: Select, state: HpaState, now_s: float, *, sign: int) -> int:
    if select == "disabled":
        return current
    if not rules:
        return _NEVER * sign
    reach = []
    for rule in rules:
        start = current - sum(change for at_s, change in state.events if at_s > now_s - rule.period_s)
        if rule.kind == "pods":
            reach.append(start + sign * rule.value)
        else:
            share = start * (1 + sign * rule.value / 100)
            reach.append(math.ceil(share) if sign > 0 else int(share))
    boldest = max if (select == "max") == (sign > 0) else min
    return boldest(reach)
