"""rollback: an older release as a whole (weights, settings, policy, lock) goes forward as a new revision."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from deployctl.config import locks
from deployctl.core import release as releases
from deployctl.core.lock import Lock
from deployctl.core.project import Project
from deployctl.core.release import History, Release
from deployctl.errors import NotFound, RolledBack
from deployctl.flows import _change, _gather
from deployctl.flows._publish import fetch
from deployctl.ports import Progress, Toolbox


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackOutcome:
    """What serves now, and what is on hold since."""

    release: Release
    url: str | None
    held: str | None
    verified: int


Ask = Callable[[Release, Release], None]


def rollback(
    project: Project, env: str, tools: Toolbox, progress: Progress, *, to: int | None, reason: str, by: str, ask: Ask, timeout_s: float
) -> RollbackOutcome:
    """Return to revision `to`, or to the newest one that served other content.

    Args:
        project: deploy.yaml, completed.
        env: environment name.
        tools: ports.
        progress: talk.
        to: revision; None lets the history choose.
        reason: free text for the record.
        by: who asks.
        ask: gets what runs and what is to come; raises when the answer is no.
        timeout_s: longest wait for the roll-out.

    Raises:
        NotFound: nothing to return to, or its bundle is gone (`bundle-not-found`).
        DeployctlError: see `_change.wait` and `_change.verify`.
    """
    before = locks.read(tools.workspace.lock(env), env)
    history = _gather.history(tools, before)
    unfinished = _unfinished(history, tools, to)
    if unfinished is not None:
        progress.note(f"finishing the rollback that revision {unfinished.revision} recorded")
        _change.write_lock(tools, _lock(before, unfinished, history, None))
        _change.apply_again(tools, unfinished)
        return _see_through(unfinished, None, tools, progress, timeout_s, by)
    release, leave = releases.rollback(history, to, now_s=tools.clock.now_s(), reason=reason, by=by)
    _require_bundle(tools, release, progress, env)
    assert history.current is not None  # releases.rollback has refused an empty history
    ask(history.current, release)
    progress.step(f"rolling back to revision {release.rolled_back_to} (recorded as revision {release.revision})")
    allow = release.content if release.content in history.held else None
    _change.commit(tools, progress, history, release, _lock(before, release, history, leave), hold=leave, allow=allow)
    return _see_through(release, leave, tools, progress, timeout_s, by)


def _unfinished(history: History, tools: Toolbox, to: int | None) -> Release | None:
    """A rollback that was recorded by a command that died before it served; doing it again must not go one further back."""
    current = history.current
    if current is None or current.action != "rollback" or to not in (None, current.rolled_back_to):
        return None
    status = tools.target.status()
    gave_up = status.phase == "failed" and status.revision_wanted == current.revision
    return None if status.revision_serving == current.revision or gave_up else current


def _require_bundle(tools: Toolbox, release: Release, progress: Progress, env: str) -> None:
    """The bundle of the release is here, or comes from the shared store."""
    if release.plan.bundle is None or _gather.known_bundle(tools, release.plan.bundle) is not None:
        return
    if tools.remote is None:
        raise NotFound(
            f"the bundle of revision {release.rolled_back_to} is not on this machine any more",
            why=f"{release.plan.bundle[:19]} is missing under .deployctl/, and {env} names no store to fetch it from",
            hint="choose another revision: deployctl history",
            code="bundle-not-found",
        )
    fetch(tools, release.plan.bundle, progress, env=env)


def _lock(now: Lock, release: Release, history: History, leave: str | None) -> Lock:
    """The lock as it stood with the restored release, with the holds of today."""
    held = tuple(h for h in dict.fromkeys((*history.held, *((leave,) if leave else ()))) if h != release.content)
    return dataclasses.replace(release.lock or now, held=held)


def _see_through(release: Release, held: str | None, tools: Toolbox, progress: Progress, timeout_s: float, by: str) -> RollbackOutcome:
    """Watch and verify; where the old release does not start any more, what kept serving is wanted again and not on hold."""
    try:
        status = _change.wait(tools, progress, release, timeout_s=timeout_s)
    except RolledBack as error:
        serving = tools.target.status().revision_serving
        if serving is not None:
            _change.retreat(tools, progress, release, serving, error.why or "", by=by)
        raise
    verified = _change.verify(tools, progress, release)
    return RollbackOutcome(release=release, url=status.url, held=held, verified=verified)
