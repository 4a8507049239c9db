"""rollback where the writer is gitops: the files of an older release come back as a new commit, byte for byte.

The break-glass way writes the old objects to the cluster first, because the controller may take minutes or be the trouble
itself; the controller undoes that unless the commit follows, so the commit is prepared in the same command.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from deployctl.config import locks
from deployctl.config.objects import read_objects
from deployctl.core import codec, gitops, words
from deployctl.core.gitops import Committed
from deployctl.core.lock import Lock
from deployctl.core.plan import Plan
from deployctl.core.project import Environment, Project
from deployctl.errors import CloudError, LockHeld, ProjectError
from deployctl.flows._gather import known_bundle
from deployctl.flows._publish import keep
from deployctl.flows._release_commit import Asked, CommitOutcome, commit, place_of, require_clean
from deployctl.flows._render_files import HEADER, committed_bundle, write_files
from deployctl.ports import Progress, Repository, Toolbox, Workspace


class Live(Protocol):
    """Writes objects to the cluster as the controller would; see `hosts.kubernetes.breakglass`."""

    def __call__(self, plan: Plan, found: Sequence[dict[str, Any]], progress: Progress) -> None:
        """Make the objects so, and wait until they serve."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a person asked for: a revision or None, why, and whether to push."""

    revision: int | None
    reason: str = ""
    push: bool = False


Ask = Callable[[Committed, Committed], None]


def history(repository: Repository, workspace: Workspace, place: Environment, *, wanted: int | None = None) -> list[Committed]:
    """Every commit that changed the environment's folder; see `core.gitops.history`."""
    plan, lock = (p.relative_to(workspace.root).as_posix() for p in (workspace.plan(place.name), workspace.lock(place.name)))
    return gitops.history(repository, place.folder, plan=plan, lock=lock, wanted=wanted)


def rollback(
    project: Project, env: str, tools: Toolbox, repository: Repository, progress: Progress, *, wish: Wish, ask: Ask, live: Live | None = None
) -> CommitOutcome:
    """Commit the files of an older release.

    Args:
        project: deploy.yaml, completed.
        env: an environment with `writer: gitops`.
        tools: ports.
        repository: version control of the project.
        progress: talk.
        wish: which revision; None is the newest with other content that is not on hold.
        ask: gets the present release and the one that comes back; raises when the answer is no.
        live: break-glass: writes the old objects to the cluster before the commit is made; None leaves the cluster to its controller.

    Raises:
        NotFound: nothing to return to (`nothing-to-roll-back`, `revision-not-found`).
            Its content may be gone too, from here and from the store (`bundle-not-found`, `blob-not-found`); nothing was changed then.
        Refused: see `flows._release_commit.require_clean`.
    """
    place, workspace = place_of(project, env), tools.workspace
    require_clean(repository, workspace, place)
    releases = history(repository, workspace, place, wanted=wish.revision)
    entry = gitops.goal(releases, wish.revision)
    current = releases[-1]
    ask(current, entry)
    plan = entry.plan
    assert plan is not None  # `goal` gives none without
    manifests = repository.files(entry.commit.id, place.folder)
    lock = gitops.restored(entry, current, locks.read(workspace.lock(env), env).held)
    _keep_content(plan, lock, tools, progress)
    if live is not None:
        live(plan, [item for name, data in sorted(manifests.items()) for item in read_objects(data.decode(), where=name)], progress)
        progress.warn(f"the cluster runs revision {entry.revision} now; its controller undoes that until the commit below is on {place.branch}")
    _put_back(manifests, place, workspace)
    beside = repository.files(entry.commit.id, f"lock/{env}.plan.json")
    write_files({workspace.lock(env): codec.dumps(lock).encode(), **{workspace.root / n: d for n, d in beside.items()}})
    _tell(repository, entry, lock, progress)
    subject = f"Roll {plan.service} in {env} back to revision {entry.revision}"
    asked = Asked(action="rollback", subject=subject, reason=wish.reason, push=wish.push, trailers={"Deployctl-Restores": entry.commit.id})
    return commit(plan, place, workspace, repository, progress, asked)


def _keep_content(plan: Plan, lock: Lock, tools: Toolbox, progress: Progress) -> None:
    """What comes back must still lie where pods find it. A store that cannot be asked stops no rollback: its release put the content there.

    Raises:
        NotFound: it is neither here nor in the store.
    """
    try:
        if tools.remote is None or plan.bundle is None:
            return
        bundle = known_bundle(tools, plan.bundle) or committed_bundle(tools, plan.bundle) or tools.remote.bundles.load(plan.bundle)
        keep(tools, bundle, plan.service, lock, progress)
    except (CloudError, ProjectError, LockHeld) as error:
        progress.warn(f"nobody looked whether the store still has {words.short(plan.bundle)}: {error.message}")


def _put_back(manifests: dict[str, bytes], place: Environment, workspace: Workspace) -> None:
    """The folder's files as they were; files of ours that the old release did not have go, other people's stay."""
    write_files({workspace.root / name: data for name, data in manifests.items()})
    folder = workspace.root / place.folder
    for path in folder.glob("*.yaml"):
        if path.relative_to(workspace.root).as_posix() not in manifests and path.read_text("utf-8").startswith(HEADER):
            path.unlink()


def _tell(repository: Repository, entry: Committed, lock: Lock, progress: Progress) -> None:
    if lock.held:
        progress.note(f"on hold: {', '.join(words.short(h) for h in lock.held)}")
    before = repository.files(entry.commit.id, "deploy.yaml")
    if before != repository.files("HEAD", "deploy.yaml"):
        progress.warn(
            "deploy.yaml changed since that release: `render --check` will say that the files differ from it; "
            f"git checkout {entry.commit.id[:12]} -- deploy.yaml brings it back too"
        )
