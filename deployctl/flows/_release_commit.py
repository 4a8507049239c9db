"""A release as a commit: the files of a rendered environment, written whole, committed alone, pushed where that was asked for.

Every file is replaced atomically and the commit is made last, so a kill at any moment leaves either the old commit and files
that the same command writes again, or the new commit.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from deployctl.core import codec, gitops
from deployctl.core.lock import Lock
from deployctl.core.plan import Plan
from deployctl.core.project import Environment, Project
from deployctl.errors import ProjectError, Refused
from deployctl.flows._publish import keep
from deployctl.flows._render_files import Rendered, records, write, write_files
from deployctl.ports import Progress, Repository, Toolbox, Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a person asked for beside the release itself; `trailers` are put below the commit message."""

    action: str
    subject: str
    reason: str = ""
    push: bool = False
    trailers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitOutcome:
    """`commit` None means that the last commit already has exactly this; `pushed` is where to."""

    plan: Plan
    commit: str | None
    branch: str
    pushed: str | None = None


def place_of(project: Project, env: str) -> Environment:
    """The environment, if commits release it.

    Raises:
        ProjectError: another writer writes it (`not-gitops`).
    """
    place = project.environment(env)
    if place.writer != "gitops":
        raise ProjectError(
            f"{env} is not released by commits: its writer is {place.writer}",
            hint=f"deployctl up --env {env}; or add `writer: gitops` to environments.{env} in deploy.yaml",
            code="not-gitops",
        )
    return place


def paths(workspace: Workspace, place: Environment) -> list[str]:
    """What a release commit may touch, relative to the project: the manifests, the lock, its plan, file lists and proofs."""
    lock = workspace.root / "lock"
    beside = (workspace.lock(place.name), workspace.plan(place.name), lock / "bundles", lock / "evidence")
    return [place.folder, *(p.relative_to(workspace.root).as_posix() for p in beside)]


def require_clean(repository: Repository, workspace: Workspace, place: Environment) -> None:
    """Refuse where the commit would not follow from what is committed.

    Raises:
        Refused: deploy.yaml or another followed file has changes that are not committed (`git-dirty`).
        ProjectError: see `adapters.git.Git.require_ready`.
    """
    repository.require_ready()
    dirty = sorted({*repository.changed(besides=paths(workspace, place)), *repository.untracked(["deploy.yaml"])})
    if dirty:
        shown = ", ".join(dirty[:5]) + (f" and {len(dirty) - 5} more" if len(dirty) > 5 else "")
        raise Refused(
            f"not committed yet: {shown}",
            why="the manifests would say something that the commit before them does not",
            hint="git add and git commit them (or git stash), then repeat the command",
            code="git-dirty",
        )


def settle(
    rendered: Rendered, lock: Lock, place: Environment, tools: Toolbox, repository: Repository, progress: Progress, asked: Asked
) -> CommitOutcome:
    """Put the content where pods find it, write the files of a release and commit exactly them.

    Raises:
        NotFound, CloudError: the content is not in the environment's store and cannot be put there from here; nothing was written.
        MachineError: a file cannot be written (`file-not-written`); Refused, LockHeld: see `adapters.git.Git`.
    """
    workspace, inputs = tools.workspace, rendered.inputs
    keep(tools, inputs.bundle, inputs.plan.service, lock, progress)
    write_files({workspace.lock(place.name): codec.dumps(lock).encode(), **records(rendered, tools)})
    written, removed = write(rendered, workspace.root / place.folder)
    progress.note(f"{place.folder}: {len(written)} written, {len(removed)} removed, {len(rendered.files) - len(written)} unchanged")
    return commit(inputs.plan, place, workspace, repository, progress, asked)


def commit(plan: Plan, place: Environment, workspace: Workspace, repository: Repository, progress: Progress, asked: Asked) -> CommitOutcome:
    """Commit what stands in the release's files, and push it if that was asked for."""
    message = gitops.message(plan, action=asked.action, subject=asked.subject, reason=asked.reason, more=asked.trailers)
    made, branch = repository.commit(paths(workspace, place), message), repository.branch()
    if made is None:
        progress.note("the last commit already has exactly this")
    pushed = repository.push() if asked.push else None
    if branch != place.branch:
        progress.note(f"the controller follows {place.branch}: this is live once {branch} is merged there")
    elif pushed is None:
        progress.note("not pushed: the controller sees it after git push   (or repeat with --push)")
    return CommitOutcome(plan=plan, commit=made, branch=branch, pushed=pushed)
