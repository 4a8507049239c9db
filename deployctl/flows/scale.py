"""scale: a person's number or bounds, kept in the lock until `--reset` or its time runs out. The content stays the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from deployctl.config import locks
from deployctl.core.lock import ScaleOverride
from deployctl.core.planner import Planned, rescaled
from deployctl.core.project import Project
from deployctl.core.release import Release, next_release
from deployctl.errors import NotFound, RolledBack
from deployctl.flows import _change, _gather
from deployctl.ports import Progress, Toolbox


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleOutcome:
    """What was asked for and what runs."""

    release: Release
    changed: bool
    replicas_before: int
    replicas_ready: int
    notices: tuple[str, ...]


_NOBODY_ENDS_IT = "nothing of ours runs in the cluster: when that time is over, the next `deployctl up` gives the replicas back to the policy"

Ask = Callable[[Planned, Release, int], None]


def scale(
    project: Project, env: str, tools: Toolbox, progress: Progress, *, override: ScaleOverride | None, by: str, ask: Ask, timeout_s: float
) -> ScaleOutcome:
    """Set or lift the manual override and see it carried out.

    Args:
        project: deploy.yaml, completed.
        env: environment name.
        tools: ports.
        progress: talk.
        override: wanted bounds; None gives the replicas back to the policy.
        by: who asks.
        ask: gets the plan, the present release and the replicas that the proof needs (0: unknown); raises when the answer is no.
        timeout_s: longest wait.

    Raises:
        NotFound: nothing was released yet (`nothing-released`), or it does not run (`not-running`).
        Refused: more than limits.replicas allows (`over-limit`).
        DeployctlError: see `_change.wait`.
    """
    lock = locks.read(tools.workspace.lock(env), env)
    history = _gather.history(tools, lock)
    current = history.current
    if current is None:
        raise NotFound("nothing was released here yet", hint="deployctl up", code="nothing-released")
    status = tools.target.status()
    if not status.alive:
        raise NotFound(f"{project.name} does not run in {env}", hint="deployctl up   (starts the newest release)", code="not-running")
    base = current.lock or lock
    wanted_lock = dataclasses.replace(base, override=override, held=history.held)
    proof = tools.evidence.get(current.plan.evidence) if current.plan.evidence else None
    now_s = tools.clock.now_s()
    planned = rescaled(current.plan, project, lock=wanted_lock, evidence=proof, now_s=now_s, running=status.replicas_wanted)
    if planned.plan.cluster is not None and planned.plan.scaling_until_s is not None:
        planned = dataclasses.replace(planned, notices=(*planned.notices, _NOBODY_ENDS_IT))
    if planned.plan == current.plan and base.override == override:
        if not _change.serves(status, current):  # a killed command recorded it and did not tell the host, or not everything
            _change.apply_again(tools, current)
            _change.wait(tools, progress, current, timeout_s=timeout_s)
        return _outcome(current, tools, planned, status.replicas_wanted, changed=False)
    ask(planned, current, base.tuned.replicas if base.tuned else 0)
    reason = override.reason if override else "reset"
    release = next_release(history, planned.plan, action="scale", now_s=now_s, reason=reason, by=by, lock=wanted_lock)
    progress.step(f"scaling (recorded as revision {release.revision})")
    _change.commit(tools, progress, history, release, dataclasses.replace(lock, override=override))
    try:
        _change.wait(tools, progress, release, timeout_s=timeout_s)
    except RolledBack as error:  # the replicas that were to come do not start: those that serve go on, and are what is wanted again
        _change.retreat(tools, progress, release, tools.target.status().revision_serving or current.revision, error.why or "", by=by)
        raise
    return _outcome(release, tools, planned, status.replicas_wanted, changed=True)


def _outcome(release: Release, tools: Toolbox, planned: Planned, before: int, *, changed: bool) -> ScaleOutcome:
    ready = sum(r.state == "ready" for r in tools.target.status().replicas)
    return ScaleOutcome(release=release, changed=changed, replicas_before=before, replicas_ready=ready, notices=planned.notices)
