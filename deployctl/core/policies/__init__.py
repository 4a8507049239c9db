"""Scaling policies by name. What enters is a name, what leaves is the policy; each is a module of pure functions.

A policy module has `initial_state()` and `decide(observation, state, settings, now_s) -> (Decision, state)`. Adding one is
a file here and a line in POLICIES.
"""

from __future__ import annotations

import importlib
from typing import Any, Protocol

from deployctl.core.decision import Decision, Observation, ScalingPolicy
from deployctl.errors import ProjectError

POLICIES: dict[str, str] = {
    "hpa": "deployctl.core.policies.hpa",
    "keda": "deployctl.core.policies.keda",
    "kpa": "deployctl.core.policies.kpa",
    "llmd": "deployctl.core.policies.llmd",
    "slo": "deployctl.core.policies.slo",
}


class Policy(Protocol):
    """What every policy module offers; the state is the policy's own frozen type."""

    def initial_state(self) -> Any:
        """A policy that has seen nothing yet."""
        ...

    def decide(self, observation: Observation, state: Any, settings: ScalingPolicy, now_s: float) -> tuple[Decision, Any]:
        """One decision and the state for the next one."""
        ...


def policy(name: str) -> Policy:
    """The policy of that name.

    Raises:
        ProjectError: there is none (`policy-unknown`).
    """
    if name not in POLICIES:
        raise ProjectError(f"there is no scaling policy {name!r}", code="policy-unknown", hint=f"use one of {', '.join(POLICIES)}")
    module: Policy = importlib.import_module(POLICIES[name])
    return module
