"""promote: what one environment's lock names (bundle, settings, proof) goes into another's, rendered and committed.

Nothing is packaged and no user code runs: what was proven is what goes on, by digest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deployctl.config import locks
from deployctl.core import gitops, words
from deployctl.core.lock import Lock
from deployctl.core.plan import Plan
from deployctl.core.project import Project
from deployctl.errors import ProjectError
from deployctl.flows._release_commit import Asked, CommitOutcome, place_of, require_clean, settle
from deployctl.flows._render_files import Rendered, released, require_whole
from deployctl.flows.render import render
from deployctl.ports import Progress, Repository, Toolbox


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """From where to where, and how."""

    source: str
    target: str
    unverified: bool = False
    push: bool = False
    reason: str = ""


Ask = Callable[[Rendered, Plan | None], None]


def promote(project: Project, tools: Toolbox, repository: Repository, progress: Progress, *, wish: Promotion, ask: Ask) -> CommitOutcome:
    """Commit the source's release to the target's environment.

    Args:
        project: deploy.yaml, completed.
        tools: ports.
        repository: version control of the project.
        progress: talk.
        wish: from where to where; the target's writer is `gitops`.
        ask: gets what would be committed and the plan of the target's last release; raises when the answer is no.

    Raises:
        ProjectError: both are one (`promote-usage`), or another writer's environment (`not-gitops`).
        Refused: the source has no bundle (`nothing-to-promote`), no proof for the target's device (`unproven`), and as
            `flows.up_commit.up`. Nothing was written then.
        NotFound, CloudError: the content is not in the target's store and cannot be put there from here.
    """
    if wish.source == wish.target:
        raise ProjectError("an environment cannot be promoted to itself", hint="deployctl promote dev prod", code="promote-usage")
    place = place_of(project, wish.target)
    require_clean(repository, tools.workspace, place)
    source, target = (locks.read(tools.workspace.lock(env), env) for env in (wish.source, wish.target))
    lock: Lock = gitops.promoted(source, target)
    rendered = render(project, wish.target, tools, lock=lock, unverified=wish.unverified)
    for notice in rendered.notices:
        progress.note(notice)
    require_whole(rendered, tools.workspace.root / place.folder)
    plan = rendered.inputs.plan
    gitops.require_allowed(plan, lock)
    ask(rendered, released(tools, wish.target))
    subject = f"Promote {plan.service} {words.short(plan.bundle)} from {wish.source} to {wish.target}"
    asked = Asked(action="promote", subject=subject, reason=wish.reason, push=wish.push, trailers={"Deployctl-From": wish.source})
    return settle(rendered, lock, place, tools, repository, progress, asked)
