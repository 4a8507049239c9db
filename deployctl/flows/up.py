"""up: make the world as deploy.yaml and the lock say. Gather and plan, ask, then record, roll out, watch and verify."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from deployctl.core import manifests, words
from deployctl.core.bundle import Bundle
from deployctl.core.planner import Planned
from deployctl.core.project import Project
from deployctl.core.release import Release, next_release
from deployctl.errors import DeployctlError, RolledBack
from deployctl.flows import _change
from deployctl.flows._gather import Situation, gather
from deployctl.flows._mirror import mirror
from deployctl.flows._publish import bring
from deployctl.ports import Progress, TargetStatus, Toolbox


class Ask(Protocol):
    """Shows the plan and asks; raises when the answer is no."""

    def __call__(self, planned: Planned, current: Release | None) -> None:
        """Show and ask."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """What the person asked for beside the plan itself."""

    by: str
    variant: str | None = None
    unverified: bool = False
    timeout_s: float = 900.0
    wait: bool = True
    image: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOutcome:
    """What serves now; `changed` False means that it already did."""

    release: Release
    url: str | None
    grpc_url: str | None
    changed: bool
    verified: int


def up(project: Project, env: str, tools: Toolbox, progress: Progress, *, make: Callable[[], Bundle], ask: Ask, options: UpOptions) -> UpOutcome:
    """Bring the service to what deploy.yaml and the lock say.

    Args:
        project: deploy.yaml, completed.
        env: environment name.
        tools: ports.
        progress: talk.
        make: packages what is missing and returns the bundle (quick when nothing is).
        ask: shows the plan and asks.
        options: see UpOptions.

    Raises:
        Refused, SloUnreachable: see `core.planner.plan` and `core.release.next_release`.
        DeployctlError: see `_change.wait` and `_change.verify`.
    """
    bundle = make()
    situation = _without_foreign_tuning(gather(project, env, tools, bundle=bundle, image=options.image), options)
    planned = situation.plan(unverified=options.unverified)
    return carry_out(situation, planned, tools, progress, ask, options)


def _without_foreign_tuning(situation: Situation, options: UpOptions) -> Situation:
    """A variant that was named by hand does not inherit settings that were tuned for another bundle."""
    tuned, proof = situation.lock.tuned, situation.evidence
    if options.variant is None or tuned is None or proof is None or situation.bundle is None or proof.key.bundle == situation.bundle.digest:
        return situation
    return dataclasses.replace(situation, lock=dataclasses.replace(situation.lock, tuned=None), evidence=None)


def carry_out(situation: Situation, planned: Planned, tools: Toolbox, progress: Progress, ask: Ask, options: UpOptions) -> UpOutcome:
    """Ask, record, roll out, watch and verify one plan; a plan that already serves makes no release."""
    if planned.plan.cluster is not None:
        manifests.require_resolved(planned.plan)
    history, current = situation.history, situation.history.current
    if current is not None and current.plan == planned.plan and not _gave_up(current, tools, progress):
        return _keep(situation, current, tools, progress, options)
    release = next_release(
        history, planned.plan, action="up", now_s=situation.now_s, by=options.by, lock=dataclasses.replace(situation.lock, held=history.held)
    )
    ask(planned, current)
    bring(situation.bundle, planned.plan, tools, progress)
    progress.step(f"releasing revision {release.revision}")
    _change.commit(tools, progress, history, release, release.lock or situation.lock)
    return _see_through(release, tools, progress, options, changed=True)


def _gave_up(current: Release, tools: Toolbox, progress: Progress) -> bool:
    """Whether the host has given this release up: a new revision of the same plan makes it try again."""
    status = tools.target.status()
    if not (status.alive and status.phase == "failed" and status.revision_wanted == current.revision):
        return False
    progress.note(f"revision {current.revision} failed ({status.message}); trying again")
    return True


def _keep(situation: Situation, current: Release, tools: Toolbox, progress: Progress, options: UpOptions) -> UpOutcome:
    """Nothing to release; start it where it does not run, finish it where a killed command left it."""
    _change.write_lock(tools, dataclasses.replace(situation.lock, held=situation.history.held))
    status = tools.target.status()
    whole = _change.serves(status, current)
    gone, changed = _by_hand(tools) if whole else ((), 0)
    if whole and not gone:
        progress.note(f"revision {current.revision} already serves exactly this")
        if changed:
            fields = words.count(changed, "field")
            progress.warn(f"not as released: {fields} of the live objects; deployctl drift --env {current.plan.env}   says which, and who did it")
        mirror(tools, progress, current.plan.service, current.plan.env)
        return _outcome(current, status, changed=False, verified=_change.verify(tools, progress, current))
    bring(situation.bundle, current.plan, tools, progress)
    progress.step(f"putting back what is gone: {', '.join(gone)}" if gone else f"starting revision {current.revision} again")
    _change.apply_again(tools, current)
    return _see_through(current, tools, progress, options, changed=True)


def _by_hand(tools: Toolbox) -> tuple[tuple[str, ...], int]:
    """Whole objects that somebody removed from a release that serves all the same, and how many fields differ; local replicas come and go."""
    found = tools.target.drift()
    gone = tuple(f"{d.kind} {d.name}" for d in found if not d.path and d.live is None)
    return gone, sum(bool(d.path and d.manager) for d in found)


def _see_through(release: Release, tools: Toolbox, progress: Progress, options: UpOptions, *, changed: bool) -> UpOutcome:
    if not options.wait:
        return _outcome(release, tools.target.status(), changed=changed, verified=0)
    before = tools.target.status().revision_serving
    try:
        status = _change.wait(tools, progress, release, timeout_s=options.timeout_s)
        verified = _change.verify(tools, progress, release)
    except RolledBack as error:
        _change.retreat(tools, progress, release, tools.target.status().revision_serving or release.revision - 1, error.why or "", by=options.by)
        raise
    except DeployctlError as error:
        if error.code not in ("verify-failed", "inference-failed") or before in (None, release.revision):
            raise
        _change.retreat(tools, progress, release, before or 0, error.message, by=options.by)
        raise RolledBack(
            f"revision {release.revision} started and then answered wrongly; revision {before} is being restored",
            why=error.message,
            hint="deployctl logs",
            code="verify-failed",
        ) from error
    return _outcome(release, status, changed=changed, verified=verified)


def _outcome(release: Release, status: TargetStatus, *, changed: bool, verified: int) -> UpOutcome:
    return UpOutcome(release=release, url=status.url, grpc_url=status.grpc_url, changed=changed, verified=verified)
