"""status: the live service beside its records and its promise. Reads only."""

from __future__ import annotations

from deployctl.config import locks
from deployctl.core import words
from deployctl.core.plan import Plan
from deployctl.core.planner import live_override
from deployctl.core.project import Project
from deployctl.core.release import History
from deployctl.core.status_view import Live, ReplicaView, StatusView, view
from deployctl.flows import _gather
from deployctl.ports import TargetStatus, Toolbox


def status(project: Project, env: str, tools: Toolbox) -> StatusView:
    """Look once.

    Args:
        project: deploy.yaml, completed.
        env: environment name.
        tools: ports.

    Raises:
        ProjectError: the lock or a record is damaged (`record-damaged`).
    """
    lock = locks.read(tools.workspace.lock(env), env)
    history = _gather.history(tools, lock)
    state = tools.target.status()
    now_s = tools.clock.now_s()
    notices: list[str] = []
    live_override(lock, now_s, notices)
    plan = history.current.plan if history.current else None
    if plan is not None and plan.cluster is not None and plan.scaling_until_s is not None and plan.scaling_until_s <= now_s:
        notices = [f"the manual scale to {_span(plan)} has run out and holds in the cluster until the next `deployctl up`"]
    if history.held:
        held = ", ".join(words.short(h) for h in history.held)
        notices.append(f"on hold after a rollback: {held}   (deployctl release allow lifts it)")
    numbers = {r.revision: r for r in history.releases}
    serving = numbers.get(state.revision_serving or -1, history.current)
    return view(project, env, _live(state, history, now_s), serving, notices=notices, now_s=now_s)


def _span(plan: Plan) -> str:
    return words.bounds(plan.scaling.min_replicas, plan.scaling.max_replicas)


def _live(state: TargetStatus, history: History, now_s: float) -> Live:
    message = state.message
    if not state.alive and history.current is None:
        message = "nothing was released here yet"
    return Live(
        alive=state.alive,
        url=state.url,
        grpc_url=state.grpc_url,
        revision_serving=state.revision_serving,
        revision_wanted=state.revision_wanted,
        phase=state.phase,
        message=message,
        replicas=tuple(
            ReplicaView(
                name=r.name,
                state=r.state,
                reason=r.reason,
                revision=r.revision,
                pid=r.pid,
                port=r.http_port,
                age_s=max(0.0, now_s - r.since_s),
                restarts=r.restarts,
            )
            for r in state.replicas
        ),
        replicas_wanted=state.replicas_wanted,
        policy_says=state.policy_says,
        recent=state.recent,
    )
