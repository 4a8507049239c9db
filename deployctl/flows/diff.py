"""diff: two revisions, or a revision or the live objects with what `up` would do. Reads only and runs none of the user's code."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from deployctl.core.diff import Comparison, compare
from deployctl.core.kube_drift import Difference
from deployctl.core.project import Project
from deployctl.errors import NotFound
from deployctl.flows._gather import known_bundle
from deployctl.flows.plan import plan as compute_plan
from deployctl.ports import Toolbox


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffView:
    """What was compared, in words, and the outcome."""

    before: str
    after: str
    comparison: Comparison
    notices: tuple[str, ...]


def live(project: Project, env: str, tools: Toolbox) -> list[Difference]:
    """Compare the live objects with those that `up` would write.

    Args:
        project: deploy.yaml, completed.
        env: environment name.
        tools: ports.

    Raises:
        ProjectError: the environment has no objects of its own to compare (`no-live-objects`).
        NotFound: what `up` would package does not exist yet (`bundle-not-found`); Refused: a digest is unresolved (`unresolved`).
    """
    plan = dataclasses.replace(compute_plan(project, env, tools, unverified=True).planned.plan, base=None)
    if plan.bundle is not None and known_bundle(tools, plan.bundle) is None:
        why = "the model changed since then, and objects name it by its digest"
        raise NotFound("what up would release is not packaged yet", why=why, hint="deployctl package", code="bundle-not-found")
    return tools.target.pending(plan)


def diff(project: Project, env: str, tools: Toolbox, before: int | None, after: int | None) -> DiffView:
    """Compare.

    Args:
        project: deploy.yaml, completed.
        env: environment name.
        tools: ports.
        before: revision; None is the newest.
        after: revision; None is what `up` would do now.

    Raises:
        NotFound: no such revision (`revision-not-found`), or nothing was released yet (`nothing-released`).
    """
    history, platform = tools.records.history(), project.environment(env).platform
    if before is None and history.current is None:
        raise NotFound("nothing was released here yet", hint="deployctl plan   (shows what the first release would be)", code="nothing-released")
    old = history.revision(before) if before is not None else history.current
    name = f"revision {old.revision}" if old else "nothing"
    if after is not None:
        new = history.revision(after)
        comparison = compare(old.plan if old else None, new.plan, platform)
        return DiffView(before=name, after=f"revision {new.revision}", comparison=comparison, notices=())
    planned = compute_plan(project, env, tools, unverified=True).planned
    comparison = compare(old.plan if old else None, planned.plan, platform)
    return DiffView(before=name, after="what up would do", comparison=comparison, notices=planned.notices)
