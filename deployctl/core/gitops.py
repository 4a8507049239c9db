"""Releases as commits: what enters are plans, locks and commits as values, what leaves are messages, locks and choices.

In an environment of the writer `gitops` a release is a commit that changes its folder of rendered manifests. The commit
carries the lock and the plan that it was rendered from, and in trailers the digests of what it serves and of what proves
it. Refuses to know git, files and clusters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from deployctl.core import codec, words
from deployctl.core.lock import Lock
from deployctl.core.plan import Plan
from deployctl.core.release import content_of
from deployctl.errors import NotFound, ProjectError, Refused

_LOOK_BACK = 50
RELEASE, BUNDLE, EVIDENCE, ENVIRONMENT, ACTION = (
    "Deployctl-Release",
    "Deployctl-Bundle",
    "Deployctl-Evidence",
    "Deployctl-Environment",
    "Deployctl-Action",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """One commit: its full id, committer's Unix time, author, first line and trailers."""

    id: str
    at_s: float
    by: str
    subject: str
    trailers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """A release as a commit: its number counts the commits that changed the folder; `plan` and `lock` as they stood in it."""

    revision: int
    commit: Commit
    plan: Plan | None
    lock: Lock | None

    @property
    def content(self) -> str | None:
        """Digest of what it serves, as `core.release.content_of`; None where the commit holds no plan."""
        return content_of(self.plan) if self.plan else None


def parse_log(text: str) -> list[Commit]:
    """Records of `%H 0x1f %ct 0x1f %an 0x1f %s 0x1f trailers 0x1e`, in the order given."""
    found = []
    for record in text.split("\x1e"):
        parts = record.strip("\n").split("\x1f")
        if len(parts) == 5:
            pairs = (line.partition(": ") for line in parts[4].splitlines())
            trailers = {key: value.strip() for key, mark, value in pairs if mark}
            found.append(Commit(id=parts[0], at_s=float(parts[1]), by=parts[2], subject=parts[3], trailers=trailers))
    return found


class Reader(Protocol):
    """What is asked of version control (`ports.Repository`)."""

    def log(self, path: str) -> list[Commit]:
        """Commits that changed `path`, newest first."""
        ...

    def files(self, revision: str, path: str) -> dict[str, bytes]:
        """Files at or below `path` as they were in a commit."""
        ...


def history(reader: Reader, folder: str, *, plan: str, lock: str, wanted: int | None = None) -> list[Committed]:
    """Every commit that changed a folder of manifests, oldest first; the newest 50 and the wanted one with plan and lock as they stood in it.

    Args:
        reader: version control.
        folder: path of the manifests.
        plan: path of the plan.
        lock: path of the lock.
        wanted: number of an older one that is to be read too.
    """
    numbered = list(enumerate(reversed(reader.log(folder)), 1))
    read = {n for n, _ in numbered[-_LOOK_BACK:]} | {wanted}
    bare = [Committed(revision=n, commit=entry, plan=None, lock=None) for n, entry in numbered]
    return [_committed(c.revision, c.commit, reader, plan, lock) if c.revision in read else c for c in bare]


def _committed(number: int, entry: Commit, reader: Reader, plan: str, lock: str) -> Committed:
    plan_text, lock_text = (next(iter(reader.files(entry.id, name).values()), None) for name in (plan, lock))
    found = codec.loads(Lock, lock_text.decode(), where=f"{entry.id[:12]}:{lock}") if lock_text else None
    return Committed(revision=number, commit=entry, plan=plan_from(plan_text), lock=found)


def plan_from(data: bytes | None) -> Plan | None:
    """A plan as it was committed; None where there is none, or where another version wrote fields that this one does not know."""
    if data is None:
        return None
    try:
        return codec.loads(Plan, data.decode("utf-8", "replace"), where="the committed plan")
    except ProjectError:
        return None


def message(plan: Plan, *, action: str, subject: str, reason: str = "", more: dict[str, str] | None = None) -> str:
    """The whole commit message: subject, what serves, why, and the evidence trailer.

    Args:
        plan: what the commit makes so.
        action: the verb.
        subject: first line.
        reason: what the person wrote; may be empty.
        more: further trailers.
    """
    policy = plan.scaling
    serves = (
        f"Serves {plan.variant or plan.entry}, bundle {words.short(plan.bundle)}, on {plan.device} with Triton {plan.triton_version},\n"
        f"{words.bounds(policy.min_replicas, policy.max_replicas)} replicas. Predicted p99: {predicted(plan)}; "
        f"{'proven' if plan.evidence else 'not proven'}."
    )
    trailers = {
        ENVIRONMENT: plan.env,
        ACTION: action,
        RELEASE: plan.digest,
        BUNDLE: plan.bundle or "unresolved",
        EVIDENCE: plan.evidence or "none",
        **(more or {}),
    }
    paragraphs = [subject, serves, " ".join(reason.split()), "\n".join(f"{k}: {v}" for k, v in trailers.items())]
    return "\n\n".join(p for p in paragraphs if p) + "\n"


def predicted(plan: Plan) -> str:
    """The predicted p99 at the plan's peak, or `unknown`."""
    forecast = plan.forecast
    if forecast is None or not forecast.valid:
        return "unknown"
    return f"{words.seconds(forecast.p99_s)} at {words.rate(plan.demand.peak_rps)}"


def promoted(source: Lock, target: Lock) -> Lock:
    """The target's lock with the source's content: bundle, variant, settings, proof, and the server they were proven on.

    Overrides and holds stay the target's own. The image of a source without one (this machine) does not replace the target's.

    Raises:
        Refused: the source has no bundle (`nothing-to-promote`).
    """
    if source.bundle is None:
        raise Refused(
            f"{source.env} has nothing to promote: its lock names no bundle",
            hint=f"deployctl tune --env {source.env}, then deployctl up --env {source.env}",
            code="nothing-to-promote",
        )
    return dataclasses.replace(
        target,
        bundle=source.bundle,
        variant=source.variant,
        tuned=source.tuned,
        image=source.image or target.image,
        triton_version=source.triton_version if source.image else target.triton_version or source.triton_version,
    )


def require_allowed(plan: Plan, lock: Lock) -> None:
    """Refuse to bring back by itself what a rollback left.

    Raises:
        Refused: the content is on hold (`release-on-hold`).
    """
    content = content_of(plan)
    if content in lock.held:
        raise Refused(
            "this release is on hold: it was left by a rollback",
            hint=f"deployctl release allow {words.short(content)} --env {plan.env}   (or change the model or its settings)",
            code="release-on-hold",
        )


def goal(history: Sequence[Committed], revision: int | None) -> Committed:
    """The release to return to: the one named, else the newest with other content that is not on hold.

    Args:
        history: oldest first.
        revision: what a person named.

    Raises:
        NotFound: nothing was released (`nothing-to-roll-back`), or no such revision (`revision-not-found`).
    """
    if not history:
        raise NotFound("no commit has released anything here", hint="deployctl up", code="nothing-to-roll-back")
    current = history[-1]
    if revision is not None:
        for entry in history:
            if entry.revision == revision and entry.plan is not None and entry.lock is not None:
                return entry
        known = ", ".join(str(e.revision) for e in history if e.plan and e.lock) or "none"
        raise NotFound(
            f"revision {revision} is no release commit", why=f"those that are: {known}", hint="deployctl history", code="revision-not-found"
        )
    held = current.lock.held if current.lock else ()
    for entry in reversed(history[:-1]):
        if entry.lock is not None and entry.content not in (None, current.content, *held):
            return entry
    raise NotFound("there is no earlier release with other content to return to", hint="deployctl history", code="nothing-to-roll-back")


def restored(entry: Committed, current: Committed, held: Sequence[str]) -> Lock:
    """The lock as it stood with the release that comes back, with today's holds and one on what is left."""
    assert entry.lock is not None  # `goal` gives none without
    left = (current.content,) if current.content not in (None, entry.content) else ()
    holds = tuple(h for h in dict.fromkeys((*held, *left)) if h is not None and h != entry.content)
    return dataclasses.replace(entry.lock, held=holds)
