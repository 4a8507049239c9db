"""scale where the writer is gitops: a person's number or bounds go into the lock, and what follows from it is rendered and committed.

Only counts may change: what deploy.yaml says beyond the last release is for `up`, where it is shown and asked for as that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from deployctl.config import locks
from deployctl.core import words
from deployctl.core.lock import ScaleOverride
from deployctl.core.plan import Plan
from deployctl.core.project import Project
from deployctl.errors import NotFound, ProjectError, Refused
from deployctl.flows._release_commit import Asked, CommitOutcome, place_of, require_clean, settle
from deployctl.flows._render_files import Rendered, released, require_whole
from deployctl.flows.render import render
from deployctl.ports import Progress, Repository, Toolbox

Ask = Callable[[Rendered, Plan, int], None]


def scale(
    project: Project,
    env: str,
    tools: Toolbox,
    repository: Repository,
    progress: Progress,
    *,
    override: ScaleOverride | None,
    push: bool,
    ask: Ask,
) -> CommitOutcome:
    """Commit the wanted bounds.

    Args:
        project: deploy.yaml, completed.
        env: an environment with `writer: gitops`.
        tools: ports.
        repository: version control of the project.
        progress: talk.
        override: wanted bounds; None gives the replicas back to the policy.
        push: push the commit.
        ask: gets what would be committed, the plan of the last release and the replicas that the proof needs (0: unknown); raises
            when the answer is no.

    Raises:
        NotFound: no commit has released anything here yet (`nothing-released`).
        ProjectError: a time was given, which nothing would end (`scale-usage`), or another writer's environment (`not-gitops`).
        Refused: more than limits.replicas allows (`over-limit`), or other changes wait to be released (`scale-changes-more`), and as
            `flows.up_commit.up`. Nothing was written then.
    """
    place = place_of(project, env)
    if override is not None and override.until_s is not None:
        raise ProjectError(
            f"a commit does not end by itself, so {env} cannot be scaled for a time",
            hint=f"leave --for out, and afterwards: deployctl scale --reset --env {env}",
            code="scale-usage",
        )
    require_clean(repository, tools.workspace, place)
    before = released(tools, env)
    if before is None:
        raise NotFound("no commit has released anything here", hint=f"deployctl up --env {env}", code="nothing-released")
    lock = dataclasses.replace(locks.read(tools.workspace.lock(env), env), override=override)
    rendered = render(project, env, tools, lock=lock)  # what serves already was proven, or taken without proof, when it was released
    for notice in rendered.notices:
        progress.note(notice)
    _require_counts_only(before, rendered.inputs.plan)
    require_whole(rendered, tools.workspace.root / place.folder)
    ask(rendered, before, lock.tuned.replicas if lock.tuned else 0)
    asked = Asked(action="scale", subject=_subject(project.name, env, override), reason=override.reason if override else "", push=push)
    return settle(rendered, lock, place, tools, repository, progress, asked)


def _require_counts_only(before: Plan, after: Plan) -> None:
    """Refuse to release by the way what a person has not asked for."""
    scaling = dataclasses.replace(after.scaling, min_replicas=before.scaling.min_replicas, max_replicas=before.scaling.max_replicas)
    if dataclasses.replace(after, replicas=before.replicas, forecast=before.forecast, scaling=scaling) != before:
        raise Refused(
            "deploy.yaml or the lock says more than the last release does, and a scale would release that too",
            hint=f"deployctl diff --env {after.env}; then deployctl up --env {after.env}, or take the change back",
            code="scale-changes-more",
        )


def _subject(service: str, env: str, override: ScaleOverride | None) -> str:
    if override is None:
        return f"Give the replicas of {service} in {env} back to the policy"
    return f"Scale {service} in {env} to {words.bounds(override.min_replicas, override.max_replicas)}"
