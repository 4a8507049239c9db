"""plan: what `up` would do now, changing nothing and running none of the user's code."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from deployctl.core import words
from deployctl.core.plan import Plan
from deployctl.core.planner import Planned
from deployctl.core.project import Project
from deployctl.core.release import Release, content_of
from deployctl.flows._addons import notices
from deployctl.flows._gather import gather
from deployctl.ports import Toolbox


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanView:
    """The plan (with the release it was computed against in `base`) and what runs now."""

    planned: Planned
    current: Release | None


def plan(project: Project, env: str, tools: Toolbox, *, unverified: bool = False) -> PlanView:
    """Compute the plan from deploy.yaml, the lock and the proofs.

    Args:
        project: deploy.yaml, completed.
        env: environment name.
        tools: ports.
        unverified: take tuned settings without proof.

    Raises:
        Refused, SloUnreachable: see `core.planner.plan`.
    """
    situation = gather(project, env, tools)
    current = situation.history.current
    planned = situation.plan(unverified=unverified)
    content = content_of(planned.plan)
    if content in situation.history.held and not (current and current.content == content):
        hold = f"on hold after a rollback: up refuses this until deployctl release allow {words.short(content)}"
        planned = dataclasses.replace(planned, notices=(hold, *planned.notices))
    planned = dataclasses.replace(planned, notices=(*planned.notices, *_cluster_notices(project, env, planned.plan, tools)))
    based = dataclasses.replace(planned.plan, base=current.digest if current else None)
    return PlanView(planned=dataclasses.replace(planned, plan=based), current=current)


def _cluster_notices(project: Project, env: str, plan: Plan, tools: Toolbox) -> tuple[str, ...]:
    """What the cluster lacks for this plan: who answers the autoscaler's metric, and nodes that offer their devices."""
    if plan.cluster is None or tools.cluster is None:
        return ()
    scaled = plan.scaling.min_replicas != plan.scaling.max_replicas
    return notices(tools.cluster, project.environment(env).platform, plan.cluster if scaled else None)
