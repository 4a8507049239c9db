"""Immutable records of what was asked to run, and their history.

A release is weights, config, policy and settings as one: the whole plan stands in the record. A rollback goes forward as
a new revision that carries the old plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deployctl.core import codec
from deployctl.core.lock import Lock
from deployctl.core.plan import Plan
from deployctl.errors import LockHeld, NotFound, ProjectError, Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One revision.

    Attributes:
        revision: 1, 2, 3 … without gaps.
        created_at_s: Unix time, for people; no decision reads it.
        action: the verb that made it.
        plan: everything that is to run.
        parent: digest of the release before it; None for the first. The chain makes tampering visible.
        rolled_back_to: the revision whose plan this one repeats, for a rollback.
        reason: what the person wrote or the rule said.
        by: who made it, such as `ada@host (pid 41)`; told to whoever loses a race.
        lock: the lock file as it stood with this release; a rollback puts it back.
    """

    schema_version: Literal[1] = 1
    revision: int
    created_at_s: float
    action: Literal["up", "scale", "rollback", "tune"]
    plan: Plan
    parent: str | None = None
    rolled_back_to: int | None = None
    reason: str = ""
    by: str = ""
    lock: Lock | None = None

    @property
    def digest(self) -> str:
        """`sha256:…` of the canonical record."""
        return codec.digest(self)

    @property
    def content(self) -> str:
        """Digest of what serves (bundle and settings), without replica counts: what a hold is put on."""
        return content_of(self.plan)


def content_of(plan: Plan) -> str:
    """Digest of what a plan serves, without replica counts."""
    return codec.digest({"bundle": plan.bundle, "settings": plan.settings, "entry": plan.entry})


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """All releases of one service in one environment, oldest first, and the contents on hold."""

    releases: tuple[Release, ...] = ()
    held: tuple[str, ...] = ()

    @property
    def current(self) -> Release | None:
        """The newest release, None before the first."""
        return self.releases[-1] if self.releases else None

    def revision(self, number: int) -> Release:
        """The release with that number.

        Raises:
            NotFound: no such revision (`revision-not-found`).
        """
        for release in self.releases:
            if release.revision == number:
                return release
        known = ", ".join(str(r.revision) for r in self.releases) or "none"
        raise NotFound(f"revision {number} does not exist", why=f"known revisions: {known}", hint="deployctl history", code="revision-not-found")


def next_release(
    history: History,
    plan: Plan,
    *,
    action: Literal["up", "scale", "rollback", "tune"],
    now_s: float,
    reason: str = "",
    by: str = "",
    lock: Lock | None = None,
) -> Release:
    """The record that follows the history's newest.

    Raises:
        Refused: the content is on hold after a rollback (`release-on-hold`).
    """
    current = history.current
    release = Release(
        revision=current.revision + 1 if current else 1,
        created_at_s=now_s,
        action=action,
        plan=plan,
        parent=current.digest if current else None,
        reason=reason,
        by=by,
        lock=lock,
    )
    if release.content in history.held and action != "rollback":
        raise Refused(
            "this release is on hold: it was left by a rollback",
            hint=f"deployctl release allow {release.content[:19]}   (or change the model or its settings)",
            code="release-on-hold",
        )
    return release


def rollback(history: History, to: int | None, *, now_s: float, reason: str = "", by: str = "") -> tuple[Release, str | None]:
    """The forward-going record that restores an older plan, and the content digest to put on hold.

    The digest is None where both revisions serve the same content (only counts or policy differ): holding it would hold
    what is about to serve.

    Args:
        history: all releases.
        to: revision to restore; None is the newest one whose content differs from what runs.
        now_s: Unix time for the record.
        reason: free text.
        by: who asks.

    Raises:
        NotFound: nothing to return to (`nothing-to-roll-back`), or no such revision.
    """
    current = history.current
    if current is None:
        raise NotFound("nothing was ever released here", hint="deployctl up", code="nothing-to-roll-back")
    if to is None:
        older = [r for r in reversed(history.releases) if r.content != current.content and r.content not in history.held]
        if not older:
            raise NotFound("there is no earlier release with other content to return to", hint="deployctl history", code="nothing-to-roll-back")
        target = older[0]
    else:
        target = history.revision(to)
    release = Release(
        revision=current.revision + 1,
        created_at_s=now_s,
        action="rollback",
        plan=target.plan,
        parent=current.digest,
        rolled_back_to=target.revision,
        reason=reason,
        by=by,
        lock=target.lock,
    )
    return release, current.content if current.content != release.content else None


class ParentChanged(ProjectError):
    """The record before is not the one that this record was made after."""


def check_link(release: Release, before: Release | None, *, number: int, where: str, first: int = 1) -> None:
    """A record must carry its own number and the digest of the one before: the chain makes tampering visible.

    Args:
        release: as it was read.
        before: the record before it, None for the first.
        number: the one that its name says.
        where: told to the person.
        first: revision of the oldest record that is kept; the one before it is not known.

    Raises:
        ParentChanged: the record before is not the one that was recorded; ProjectError: a gap, or another number (`record-damaged`).
    """
    due = before.revision + 1 if before else first
    parent = before.digest if before else release.parent if first > 1 else None
    if release.revision == number == due and release.parent == parent:
        return
    kind = ProjectError
    if number != due or release.revision != due:
        message = f"the history has a gap: revision {due} is missing or has another number"
    elif before is None:
        message = "revision 1 names a parent"
    else:
        kind, message = ParentChanged, f"revision {due - 1} was changed after revision {due} was recorded"
    raise kind(
        message,
        why="releases are chained by digest, so that a change is seen",
        where=where,
        hint="restore the records from a copy (deployctl recover, where a store is named); a running service is not touched",
        code="record-damaged",
    )


def overtaken(winner: Release | None, now_s: float) -> LockHeld:
    """Somebody else appended first: who, with which verb, how long ago (`plan-stale`, exit 7)."""
    who = "the history is empty"
    if winner is not None:
        age_s = max(0.0, now_s - winner.created_at_s)
        who = f"revision {winner.revision} was made {age_s:.0f} s ago by `deployctl {winner.action}`" + (f" of {winner.by}" if winner.by else "")
    return LockHeld(
        "somebody else changed this environment meanwhile; nothing was changed by this command",
        why=who,
        hint="look at it with deployctl history, then repeat your command",
        code="plan-stale",
        exit_code=7,
    )


def without_hold(held: tuple[str, ...], content: str) -> tuple[str, ...]:
    """The holds but the one that `content` names: a digest or a unique prefix of it, with or without `sha256:`.

    Raises:
        NotFound: nothing on hold matches, or several do (`hold-not-found`).
    """
    matches = [h for h in held if h.startswith(content) or h.removeprefix("sha256:").startswith(content)] if content else []
    if len(matches) != 1:
        raise NotFound(
            f"{len(matches) or 'no'} release{'s' if len(matches) > 1 else ''} on hold match{'' if len(matches) > 1 else 'es'} {content!r}",
            why="on hold: " + (", ".join(h[:19] for h in held) or "nothing"),
            hint="deployctl history",
            code="hold-not-found",
        )
    return tuple(h for h in held if h != matches[0])
