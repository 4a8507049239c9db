"""How every change becomes real: lock, record and wanted state together, then watching until it serves or has failed.

The order survives a kill at any moment. The lock file is written first: if the command dies after it, the same command (or
the next `up`) does what was asked. Then the record, by compare-and-set; then the host is told. Nobody else can change
this environment in between, and the kernel ends that exclusion when the process dies.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from deployctl.config import locks
from deployctl.core import words
from deployctl.core.bundle import Bundle
from deployctl.core.lock import Lock
from deployctl.core.release import History, Release, rollback
from deployctl.errors import ClusterError, LockHeld, NotConverged, RolledBack
from deployctl.flows._gather import history, known_bundle, sample_lines
from deployctl.flows._mirror import mirror
from deployctl.ports import Progress, TargetStatus, Toolbox

POLL_S = {"local": 0.25, "kubernetes": 1.0}  # a look at a cluster is four calls of its API
VERIFY_REQUESTS = 3


def commit(
    tools: Toolbox, progress: Progress, known: History, release: Release, lock: Lock, *, hold: str | None = None, allow: str | None = None
) -> None:
    """Make `release` the newest and wanted one, and copy its record to the shared store, if there is one.

    Raises:
        LockHeld: the history moved on since `known` was read (`plan-stale`, exit 7); nothing was changed.
        DeployctlError: it cannot start there (a taken port, a missing program); nothing was changed.
    """
    expected = known.current.digest if known.current else None
    with tools.records.exclusive():
        newest = tools.records.history().current
        if (newest.digest if newest else None) != expected:
            tools.records.append(release, expected_parent=expected)  # refuses, and knows who was faster
            raise LockHeld("the releases changed meanwhile", hint="repeat the command", code="plan-stale", exit_code=7)
        tools.target.check(release.plan)
        write_lock(tools, lock)
        if hold:
            tools.records.hold(hold)
        if allow and allow in tools.records.history().held:
            tools.records.allow(allow)
        tools.records.append(release, expected_parent=expected)
        tools.target.apply(release)
    mirror(tools, progress, release.plan.service, release.plan.env)


def write_lock(tools: Toolbox, lock: Lock) -> None:
    """Write the environment's lock if it says something new."""
    path = tools.workspace.lock(lock.env)
    if locks.read(path, lock.env) != lock:
        locks.write(path, lock)


def apply_again(tools: Toolbox, release: Release) -> None:
    """Tell the host once more what is wanted: finishes what a killed command began, or starts what was stopped."""
    with tools.records.exclusive():
        newest = tools.records.history().current
        if newest is None or newest.digest != release.digest:
            tools.records.append(release, expected_parent=release.parent)  # refuses, and knows who was faster
        tools.target.apply(release)


def wait(tools: Toolbox, progress: Progress, release: Release, *, timeout_s: float) -> TargetStatus:
    """Watch until the release serves with all its replicas.

    Raises:
        ClusterError: it failed and nothing serves (`rollout-failed`, exit 4).
        RolledBack: it failed and an older release keeps serving (`rollout-failed`, exit 10).
        LockHeld: somebody else made a newer release meanwhile (`superseded`, exit 7).
        NotConverged: not done in time; the host goes on (`rollout-timeout`, exit 9).
    """
    clock = tools.clock
    deadline_s = clock.monotonic_s() + timeout_s
    noted = ""
    while True:
        status = tools.target.status()
        if status.revision_wanted is not None and status.revision_wanted > release.revision:
            raise superseded(release, status)
        if serves(status, release):
            return status
        if status.phase == "failed" and status.revision_wanted == release.revision:
            raise failed(release, status)
        if clock.monotonic_s() > deadline_s:
            raise NotConverged(
                f"revision {release.revision} does not serve after {words.duration(timeout_s)}; its roll-out goes on",
                why=f"{status.phase}: {status.message}",
                hint="deployctl status --watch   (or deployctl logs)",
                code="rollout-timeout",
            )
        progress.update(progress_line(status))
        if "failure" in status.message and status.message != noted:  # a start that is repeated: say why while it still may succeed
            noted = status.message
            progress.warn(noted)
        clock.sleep_s(POLL_S[release.plan.target])


def serves(status: TargetStatus, release: Release) -> bool:
    """Whether this release answers and none of its roll-out is left to do."""
    return status.alive and status.revision_serving == release.revision and status.phase in ("serving", "degraded")


def progress_line(status: TargetStatus) -> str:
    """`rolling: 1 of 2 replicas of revision 4 ready; replica-3 loads`."""
    ready = sum(r.state == "ready" and r.revision == status.revision_wanted for r in status.replicas)
    return f"{status.phase}: {ready} of {words.count(status.replicas_wanted, 'replica')} ready; {status.message}"


def failed(release: Release, status: TargetStatus) -> RolledBack | ClusterError:
    """The cause of a failed roll-out, and what serves now."""
    hint = status.hint or "deployctl logs   (then mend the cause and repeat the command)"
    facts: dict[str, Any] = {"why": status.message, "hint": hint, "code": status.code or "rollout-failed"}
    if status.revision_serving is not None:
        return RolledBack(f"revision {release.revision} does not start; revision {status.revision_serving} keeps serving", **facts)
    return ClusterError(f"revision {release.revision} does not start; nothing serves", **facts)


def superseded(release: Release, status: TargetStatus) -> LockHeld:
    """Somebody else's release came later: theirs is served."""
    return LockHeld(
        f"revision {release.revision} was replaced by revision {status.revision_wanted} while it was rolled out",
        why="another command changed this environment",
        hint="deployctl history",
        code="superseded",
        exit_code=7,
    )


def retreat(tools: Toolbox, progress: Progress, release: Release, to: int, cause: str, *, by: str) -> None:
    """After a failed roll-out: record that revision `to` is wanted again, so that records, lock and service agree."""
    written = locks.read(tools.workspace.lock(release.plan.env), release.plan.env)
    now = history(tools, written)
    if now.current is None or now.current.digest != release.digest:
        return  # somebody else has already decided what comes next
    cause = cause.removeprefix(f"revision {release.revision} was given up: ")
    back, _ = rollback(now, to, now_s=tools.clock.now_s(), reason=f"revision {release.revision} failed: {cause}"[:500], by=by)
    progress.step(f"returning to revision {to} (recorded as revision {back.revision})")
    held = tuple(h for h in now.held if h != back.content)  # what serves again is not on hold
    commit(tools, progress, now, back, dataclasses.replace(back.lock or written, held=held), allow=back.content)


def verify(tools: Toolbox, progress: Progress, release: Release) -> int:
    """Real inference of sample lines as a client would send them; how many answered.

    On a cluster it goes through a port-forward. Where there is none, that is said and is no failure: a replica counts as ready
    there only after a real inference in its own pod.

    Raises:
        ModelError, ClusterError: a request failed or an output is missing (`verify-failed`).
    """
    bundle = known_bundle(tools, release.plan.bundle)
    if bundle is None or not tools.blobs.has(bundle.sample):
        progress.note("not verified by a request of the sample, which is not on this machine")
        return 0
    progress.step("verifying with real inference")
    try:
        with tools.target.reach() as url:
            return _asked(tools, bundle, url)
    except ClusterError as error:
        if error.code != "not-reachable":
            raise
        why = f"{error.message}: {error.why}" if error.why else error.message
        progress.note(f"not verified from outside: {why}; a replica is ready only after a real inference in its own pod")
        return 0


def _asked(tools: Toolbox, bundle: Bundle, url: str) -> int:
    client = tools.client(url)
    wanted = {t.name for t in bundle.model(bundle.entry).outputs}
    lines = sample_lines(tools, bundle)[:VERIFY_REQUESTS]
    for line in lines:
        answer = client.infer(bundle.entry, {"inputs": line["inputs"]}, timeout_s=30.0)
        if missing := wanted - answer.keys():
            raise ClusterError(
                f"the service answers without {', '.join(sorted(missing))}", hint="deployctl logs   (and deployctl call)", code="verify-failed"
            )
    return len(lines)
