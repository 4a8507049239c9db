"""recover: rebuild an environment's records from the shared store, and say what was found and what is lost. Nothing that serves is touched."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from deployctl.config import locks
from deployctl.core import store
from deployctl.core.lock import Lock
from deployctl.core.project import Project
from deployctl.core.release import History, Release
from deployctl.errors import DeployctlError, ProjectError
from deployctl.flows._mirror import catch_up
from deployctl.flows._publish import remote_of
from deployctl.ports import RemoteStore, SharedRecordStore, Toolbox


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveredRelease:
    """One revision: where it came from, and whether its bundle is whole in the store."""

    revision: int
    action: str
    bundle: str | None
    source: Literal["both", "store", "here"]
    bundle_whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What recovery found and did.

    Attributes:
        releases: all that are known now, oldest first.
        lost: records of the store that are damaged or missing and that nobody has any more, in words.
        repaired: records that the store had lost and that came from here.
        lock_written: the lock file was missing and stands again as it was with the newest release.
    """

    env: str
    address: str
    releases: tuple[RecoveredRelease, ...]
    lost: tuple[str, ...]
    repaired: int
    lock_written: bool


def recover(project: Project, env: str, tools: Toolbox) -> Recovered:
    """Bring the environment's records and their durable copy to the longest history that either has.

    Args:
        project: deploy.yaml, completed.
        env: environment name.
        tools: ports.

    Raises:
        ProjectError: the environment names no store (`store-not-named`), its own records are damaged (`record-damaged`), or the
            two histories differ in a revision (`records-diverged`).
        CloudError: see `ports.ObjectStore`.
    """
    remote = remote_of(tools, env)
    copy = remote.records(project.name, env)
    here = tools.records.history()
    there, lost = copy.salvage()
    _one_history(here, there, env)
    newest = here.current.revision if here.current else 0
    with tools.records.exclusive():
        for release in there.releases:
            if release.revision > newest:
                tools.records.append(release, expected_parent=release.parent if here.current or release is not there.releases[0] else None)
        for content in there.held:
            tools.records.hold(content)
    whole = _merged(here, there)
    repaired = _repair(whole, there, lost, copy)
    if not lost or repaired:
        lost = ()
        catch_up(tools.records.history(), copy)
    return Recovered(
        env=env,
        address=remote.objects.address,
        releases=_rows(whole, here, there, remote),
        lost=lost,
        repaired=repaired,
        lock_written=_restore_lock(whole, env, tools),
    )


def _one_history(here: History, there: History, env: str) -> None:
    """The same revisions are the same records."""
    theirs = {r.revision: r for r in there.releases}
    for ours in here.releases:
        other = theirs.get(ours.revision, ours)
        if ours.digest != other.digest:
            raise ProjectError(
                f"revision {ours.revision} here is another one than revision {ours.revision} in the store; nothing was changed",
                why=f"here: {ours.action} by {ours.by or 'unknown'}; in the store: {other.action} by {other.by or 'unknown'}",
                hint=f"decide which history is right; to take the store's, move .deployctl/env/{env}/releases away and repeat the command",
                code="records-diverged",
            )


def _merged(here: History, there: History) -> tuple[Release, ...]:
    """Every release that either has, oldest first."""
    found = {r.revision: r for r in (*there.releases, *here.releases)}
    return tuple(found[revision] for revision in sorted(found))


def _repair(whole: tuple[Release, ...], there: History, lost: tuple[str, ...], copy: SharedRecordStore) -> int:
    """Write lost records anew where they are known here: all of them, or none."""
    sound = {r.revision for r in there.releases}
    known = [r for r in whole if r.revision not in sound]
    if not lost or len(known) < len(lost):
        return 0
    with copy.exclusive():
        for release in known:
            copy.rewrite(release)
    _, still = copy.salvage()
    return 0 if still else len(lost)


def _rows(whole: tuple[Release, ...], here: History, there: History, remote: RemoteStore) -> tuple[RecoveredRelease, ...]:
    bundles = {r.plan.bundle: _is_whole(remote, r.plan.bundle) for r in whole}
    ours, theirs = ({r.revision for r in h.releases} for h in (here, there))
    return tuple(
        RecoveredRelease(
            revision=r.revision,
            action=r.action,
            bundle=r.plan.bundle,
            source="both" if r.revision in ours & theirs else "here" if r.revision in ours else "store",
            bundle_whole=bundles[r.plan.bundle],
        )
        for r in whole
    )


def _is_whole(remote: RemoteStore, digest: str | None) -> bool:
    """Whether a bundle's manifest is sound in the store and every file that it names lies there."""
    if digest is None:
        return False
    try:
        bundle = remote.bundles.load(digest)
    except DeployctlError as error:
        if error.code not in ("bundle-not-found", "store-damaged"):
            raise
        return False
    return all(remote.objects.head(store.blob_key(d)) for d in {*(f.digest for f in bundle.files), bundle.sample})


def _restore_lock(whole: tuple[Release, ...], env: str, tools: Toolbox) -> bool:
    """The missing lock file as the newest release has it, with today's holds, as every change writes it."""
    path, newest = tools.workspace.lock(env), whole[-1] if whole else None
    if newest is None or newest.lock is None or locks.read(path, env) != Lock(env=env):
        return False
    locks.write(path, dataclasses.replace(newest.lock, held=tools.records.history().held))
    return True
