"""The durable copy of the release records: after each change, whatever the shared store lacks is copied there.

The environment's own records (files here, objects in the cluster) stay the truth. A copy that fails is told and never undoes
a change that serves: the next command of any kind copies what is missing.
"""

from __future__ import annotations

from deployctl.core.release import History, Release
from deployctl.errors import DeployctlError
from deployctl.ports import Progress, SharedRecordStore, Toolbox


def mirror(tools: Toolbox, progress: Progress, service: str, env: str) -> None:
    """Copy the records and holds that the shared store lacks; nothing is written where it has them all."""
    try:
        if tools.remote is None:
            return
        copy = tools.remote.records(service, env)
        trouble = catch_up(tools.records.history(), copy)
    except DeployctlError as error:
        trouble = error.message + (f" ({error.why})" if error.why else "")
    if trouble:
        progress.warn(f"the durable copy of the release records is behind: {trouble}. What serves is not touched; see deployctl recover --env {env}")


def catch_up(truth: History, copy: SharedRecordStore) -> str:
    """Append what the copy lacks and keep its holds the same; what stands against it, in words."""
    newest = copy.newest()
    behind = _behind(truth, newest)
    if behind is None:
        assert newest is not None
        ours = truth.current.revision if truth.current else 0
        if newest.revision > ours:
            return f"it has {newest.revision} revisions, {ours} are here"
        return f"its revision {newest.revision} is another one, or what followed it is not kept here any more"
    if behind:
        with copy.exclusive():
            for release in behind:
                copy.append(release, expected_parent=release.parent)
    copy.keep_holds(truth.held)
    return ""


def _behind(truth: History, newest: Release | None) -> tuple[Release, ...] | None:
    """What follows `newest` in `truth`; None where the two are no longer one history. Equal digests mean equal chains.

    A cluster keeps only its latest releases, so `truth` may begin right after `newest`.
    """
    if newest is None:
        return truth.releases
    later = tuple(r for r in truth.releases if r.revision > newest.revision)
    meets = any(r.digest == newest.digest for r in truth.releases) or (later and later[0].parent == newest.digest)
    return later if meets else None
