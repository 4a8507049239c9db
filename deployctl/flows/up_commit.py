"""up where the writer is gitops: package what is missing, render, refuse what is open or unproven, commit. No cluster is asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from deployctl.config import locks
from deployctl.core import gitops
from deployctl.core.bundle import Bundle
from deployctl.core.lock import Lock
from deployctl.core.plan import Plan
from deployctl.core.project import Project
from deployctl.errors import MachineError
from deployctl.flows._release_commit import Asked, CommitOutcome, place_of, require_clean, settle
from deployctl.flows._render_files import Rendered, released, require_whole
from deployctl.flows.render import render
from deployctl.ports import Progress, Repository, Toolbox

Ask = Callable[[Rendered, Plan | None], None]


def up(
    project: Project,
    env: str,
    tools: Toolbox,
    repository: Repository,
    progress: Progress,
    *,
    make: Callable[[], Bundle],
    ask: Ask,
    unverified: bool,
    push: bool,
) -> CommitOutcome:
    """Commit what deploy.yaml, the lock and the model say.

    Args:
        project: deploy.yaml, completed.
        env: an environment with `writer: gitops`.
        tools: ports.
        repository: version control of the project.
        progress: talk.
        make: packages what is missing and returns the bundle.
        ask: gets what would be committed and the plan of the last release; raises when the answer is no.
        unverified: take settings without proof for this device.
        push: push the commit.

    Raises:
        Refused: uncommitted input (`git-dirty`), open digests (`unresolved`), a trap (`manifest-trap`), no proof (`unproven`), on
            hold (`release-on-hold`). Nothing was written then.
    """
    place = place_of(project, env)
    require_clean(repository, tools.workspace, place)
    lock = _with_bundle(locks.read(tools.workspace.lock(env), env), make, progress)
    rendered = render(project, env, tools, lock=lock, unverified=unverified)
    for notice in rendered.notices:
        progress.note(notice)
    require_whole(rendered, tools.workspace.root / place.folder)
    plan = rendered.inputs.plan
    gitops.require_allowed(plan, lock)
    ask(rendered, released(tools, env))
    asked = Asked(action="up", subject=f"Release {plan.service} to {env}", push=push)
    return settle(rendered, lock, place, tools, repository, progress, asked)


def _with_bundle(lock: Lock, make: Callable[[], Bundle], progress: Progress) -> Lock:
    """The lock with what is packaged now; on a machine that cannot package, with what it names already."""
    try:
        bundle = make()
    except MachineError as error:
        if lock.bundle is None:
            raise
        progress.warn(f"nothing is packaged here ({error.message}): the release takes the bundle that the lock names")
        return lock
    return dataclasses.replace(lock, bundle=bundle.digest, variant=bundle.variant)
