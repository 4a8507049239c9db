"""The supervisor's state in words: what enters is a HostState, what leaves is the TargetStatus that people and flows read."""

from __future__ import annotations

import time

from deployctl.core.release import Release
from deployctl.hosts.local.layout import HostState, ReplicaRecord
from deployctl.ports import ReplicaStatus, TargetStatus

_CRASH_LOOP = 3


def status_of(state: HostState, wanted: Release | None, *, trouble: str, says: str, recent: tuple[dict[str, float], ...]) -> TargetStatus:
    """The live status as the acting supervisor sees it."""
    phase, message = _phase(state, wanted, trouble)
    door = state.door
    routed = any(r.in_rotation for r in state.replicas)
    return TargetStatus(
        alive=True,
        url=f"http://127.0.0.1:{door.http_port}" if door else None,
        grpc_url=f"127.0.0.1:{door.grpc_port}" if door else None,
        revision_serving=state.serving if routed else None,
        revision_wanted=wanted.revision if wanted else None,
        phase=phase,
        message=message,
        replicas=tuple(_replica(r) for r in state.replicas),
        replicas_wanted=state.replicas_wanted,
        policy_says=says,
        recent=recent,
    )


def _replica(record: ReplicaRecord) -> ReplicaStatus:
    return ReplicaStatus(
        name=record.name,
        state=record.state,
        reason=record.reason,
        revision=record.revision,
        pid=record.process.pid if record.process else None,
        http_port=record.http_port or None,
        since_s=record.since_s,
        restarts=record.restarts,
    )


def _phase(state: HostState, wanted: Release | None, trouble: str) -> tuple[str, str]:
    if wanted is None:
        return "stopped", trouble or "nothing was released yet"
    if state.failed == wanted.revision:
        return "failed", f"revision {wanted.revision} was given up: {state.failed_reason}"
    if trouble and state.door is None:
        return "failed", trouble
    routed = [r for r in state.replicas if r.in_rotation]
    failure = state.failure if state.failure and state.failure.content == wanted.content else None
    if failure and not routed and (failure.hopeless or failure.count >= _CRASH_LOOP):
        wait_s = max(0.0, failure.next_start_s - time.time())
        return "failed", f"{failure.reason} ({failure.count} failures in a row; next start in {wait_s:.0f} s)"
    if state.serving == wanted.revision and routed:
        return _steady(state, routed, trouble, failure.reason if failure else "")
    ready = sum(r.state == "ready" and r.content == wanted.content for r in state.replicas)
    progress = f"{ready} of {state.replicas_wanted} replicas of revision {wanted.revision} ready" + (
        f"; last failure: {failure.reason}" if failure else ""
    )
    return ("rolling" if routed else "starting"), progress


def _steady(state: HostState, routed: list[ReplicaRecord], trouble: str, failure: str) -> tuple[str, str]:
    sick = [r for r in state.replicas if r.state in ("hung", "dead")]
    answering = sum(r.state == "ready" for r in routed)
    if trouble:
        return "degraded", trouble
    if sick or (answering < state.replicas_wanted and failure):
        why = f"{sick[0].name}: {sick[0].reason}" if sick else f"waiting to start another: {failure}"
        return "degraded", f"{answering} of {state.replicas_wanted} replicas answer; {why}"
    leaving = sum(r.state in ("draining", "stopping") for r in state.replicas)
    return "serving", f"{answering} of {state.replicas_wanted} replicas answer" + (f"; {leaving} more finish and leave" if leaving else "")
