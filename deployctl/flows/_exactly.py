"""up FILE: what a reviewed plan file says and nothing else, or a refusal because the world moved since."""

from __future__ import annotations

import dataclasses

from deployctl.core.plan import Plan
from deployctl.core.project import Project
from deployctl.errors import LockHeld
from deployctl.flows._gather import Situation, gather
from deployctl.flows.up import Ask, UpOptions, UpOutcome, carry_out
from deployctl.ports import Progress, Toolbox


def up_exactly(project: Project, env: str, tools: Toolbox, progress: Progress, plan: Plan, *, ask: Ask, options: UpOptions) -> UpOutcome:
    """Do exactly what a plan file says.

    Args:
        project: deploy.yaml, completed.
        env: environment name.
        tools: ports.
        progress: talk.
        plan: as `plan --out` wrote it.
        ask: shows the plan and asks.
        options: see UpOptions.

    Raises:
        LockHeld: the world moved since the plan was made (`plan-stale`, exit 7), with what moved.
    """
    situation = gather(project, env, tools)
    moved = _moved(situation, plan)
    if moved:
        raise LockHeld(
            "this plan is stale; nothing was changed",
            why=moved,
            hint="deployctl plan --out FILE   (and review it again)",
            code="plan-stale",
            exit_code=7,
        )
    planned = dataclasses.replace(situation.plan(unverified=True), plan=dataclasses.replace(plan, base=None), notices=())
    return carry_out(situation, planned, tools, progress, ask, options)


def _moved(situation: Situation, plan: Plan) -> str:
    current = situation.history.current
    facts = {
        "service": (plan.service, situation.project.name),
        "environment": (plan.env, situation.env),
        "newest release": (plan.base, current.digest if current else None),
        "bundle": (plan.bundle, situation.bundle.digest if situation.bundle else None),
        "Triton": (plan.triton_version, situation.destination.triton_version),
        "device": (plan.device, situation.destination.device),
    }
    return "; ".join(f"{name} was {(was or 'none')[:19]}, is {(now or 'none')[:19]}" for name, (was, now) in facts.items() if was != now)
