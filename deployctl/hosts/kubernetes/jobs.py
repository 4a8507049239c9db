"""Jobs of a run on the cluster: made with everything that they own, watched until their pod is there, removed.

What enters is a `core.manifests.bench.Run`; what leaves is the name of its pod, or an error that says why there is none. Whatever
happens to this process, the cluster ends the Job at its deadline and removes it with all that it owns.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from deployctl.adapters.kubernetes import Cluster
from deployctl.core import kube_rollout
from deployctl.core.manifests import Manifest
from deployctl.core.manifests.bench import Run
from deployctl.errors import DeployctlError, LockHeld, NotConverged

_STEP_S = 0.5
_SETTLED_S = 20.0  # a pod may look for its ConfigMap before that is made, and says so until it looks again
Pod = dict[str, Any]


def make(cluster: Cluster, run: Run) -> None:
    """Make the Job first, then what it owns: a kill between leaves a Job whose pod never starts and which ends by itself."""
    if run.account is not None:
        _create(cluster, run.account)
    job = _create(cluster, run.job)
    for item in run.owned(job["metadata"]["uid"]):
        _create(cluster, item)


def _create(cluster: Cluster, item: Manifest) -> Manifest:
    """The object, made here or there already: names of a run are random, and a service's account is the same whoever makes it."""
    try:
        return cluster.create(item)
    except LockHeld:
        meta = item["metadata"]
        found = cluster.get(item["apiVersion"], item["kind"], meta["namespace"], meta["name"])
        if found is None:
            raise
        return found


def remove(cluster: Cluster, run: Run) -> None:
    """Remove the Job; the cluster removes its pod and all that it owns."""
    cluster.delete("batch/v1", "Job", run.namespace, run.name)


def wait_for_pod(cluster: Cluster, run: Run, good: Callable[[Pod], bool], limit_s: float) -> Pod:
    """The Job's pod as soon as it is `good` or has ended.

    Raises:
        NotConverged: it cannot start, or did not within `limit_s` (`bench-not-started`).
    """
    begun = time.monotonic()
    while True:
        pods = cluster.list("v1", "Pod", run.namespace, labels={"batch.kubernetes.io/job-name": run.name})
        pod = pods[0] if pods else None
        if pod is not None and (good(pod) or ended(pod)):
            return pod
        cause = kube_rollout.pod_cause(pod) if pod else None
        words = (cause.message if cause else waiting(pod)) if pod else _refused(cluster, run)
        passed_s = time.monotonic() - begun
        if passed_s > limit_s or (cause is not None and passed_s > _SETTLED_S):
            raise NotConverged(
                f"the pod of {run.name} does not start", why=words, hint=cause.hint if cause else "deployctl doctor", code="bench-not-started"
            )
        time.sleep(_STEP_S)


def ready(pod: Pod) -> bool:
    """Whether the pod answers its readiness probe."""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", []))


def ended(pod: Pod) -> bool:
    """Whether nothing runs in it any more."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def waiting(pod: Pod) -> str:
    """What the pod waits for, in the cluster's words."""
    status = pod.get("status", {})
    for condition in status.get("conditions", []):
        if condition.get("reason") == "Unschedulable":
            return str(condition.get("message", ""))
    containers = (*status.get("initContainerStatuses", []), *status.get("containerStatuses", []))
    states = [c.get("state", {}).get("waiting") or {} for c in containers]
    return next((f"{s['reason']}: {s.get('message', '')}".rstrip(": ") for s in states if s.get("reason")), str(status.get("phase", "")))


def message(pod: Pod) -> str:
    """The last words of the container that failed."""
    status = pod.get("status", {})
    for container in (*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])):
        end = container.get("state", {}).get("terminated") or {}
        if end.get("exitCode"):
            return str(end.get("message") or end.get("reason") or "").strip()[-500:]
    return str(status.get("message") or status.get("reason") or "")


def _refused(cluster: Cluster, run: Run) -> str:
    """Why the Job has no pod: an event of its controller."""
    try:
        events = cluster.list("v1", "Event", run.namespace)
    except DeployctlError:
        return "the Job has no pod yet"
    mine = [e for e in events if e.get("involvedObject", {}).get("name") == run.name and e.get("type") == "Warning"]
    return str(mine[-1].get("message", "")) if mine else "the Job has no pod yet"
