"""Runs the compiled policy on this machine's readings: what enters are meters, what leaves is a number and its reason.

A supervisor that has just started remembers no recommendations, so it does not scale down before one scale-down window is over.
What arrived before it started is read back, so that a policy that learns does not begin anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from deployctl.core.decision import Decision, Hold, Observation, Reading, RollBack, ScaleTo, ScalingPolicy
from deployctl.core.policies import policy
from deployctl.errors import DeployctlError
from deployctl.hosts.local.meter import DoorMeter, ReplicaMeter, signals


class Scaler:
    """Policy, its state, and what it said last.

    Args:
        now_s: monotonic time.
        past: readings of the ticks before a moment, oldest first, from the tick's length and Unix time.
    """

    def __init__(self, now_s: float, past: Callable[[float, float], Iterable[dict[str, Reading]]] = lambda _sync_s, _now_s: ()) -> None:
        self.says = "no decision yet"
        self._began_s = now_s
        self._next_s = now_s
        self._settings: ScalingPolicy | None = None
        self._state: Any = None
        self._past = past

    def reset(self, now_s: float) -> None:
        """Forget: the content changed under the policy."""
        self._settings = None
        self._began_s = now_s

    def decide(
        self, settings: ScalingPolicy, replicas: list[ReplicaMeter], door: DoorMeter, *, ready: int, starting: int, wanted: int, now_s: float
    ) -> int:
        """The number of replicas from now on.

        Args:
            settings: bounds and policy in force.
            replicas: meters of the ready replicas.
            door: meter of the front door.
            ready: replicas that answer.
            starting: replicas on their way.
            wanted: the number that was decided last.
            now_s: monotonic time.
        """
        if settings != self._settings:
            try:
                self._state = self._remembered(settings, ready, wanted, now_s)
            except DeployctlError as error:
                self.says = error.message
                return wanted
            self._settings, self._next_s = settings, now_s
        if now_s < self._next_s:
            return wanted
        self._next_s = now_s + settings.sync_s
        observation = Observation(
            at_s=now_s,
            readings=signals(replicas, door, settings.sync_s),
            replicas_ready=ready,
            replicas_starting=starting,
            replicas_wanted=wanted,
        )
        decision, self._state = policy(settings.policy).decide(observation, self._state, settings, now_s)
        return self._carry_out(decision, settings, wanted, now_s)

    def _remembered(self, settings: ScalingPolicy, ready: int, wanted: int, now_s: float) -> Any:
        """The state of a policy that has seen what arrived before; what it would have decided then is not carried out."""
        rule = policy(settings.policy)
        state = rule.initial_state()
        past = list(self._past(settings.sync_s, time.time()))
        for back, readings in zip(range(len(past), 0, -1), past, strict=True):
            at_s = now_s - back * settings.sync_s
            seen = Observation(at_s=at_s, readings=readings, replicas_ready=ready, replicas_wanted=wanted)
            _, state = rule.decide(seen, state, settings, at_s)
        return state

    def _carry_out(self, decision: Decision, settings: ScalingPolicy, wanted: int, now_s: float) -> int:
        if not isinstance(decision, ScaleTo):
            kind = (
                "hold"
                if isinstance(decision, Hold)
                else "roll back is left to people"
                if isinstance(decision, RollBack)
                else "unknown, so nothing changes"
            )
            self.says = f"{kind}: {decision.reason}"
            return wanted
        number = min(max(decision.replicas, max(1, settings.min_replicas)), max(1, settings.max_replicas))
        if number < wanted <= settings.max_replicas and now_s - self._began_s < settings.scale_down_window_s:
            self.says = f"hold: {decision.reason}; no scale-down before {settings.scale_down_window_s:g} s of memory"
            return wanted
        self.says = f"scale to {number}: {decision.reason}"
        return number
