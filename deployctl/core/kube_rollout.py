"""What the cluster says about a roll-out, judged: done, going on, or failed for good with the cause and the next command.

What enters are live objects as plain dicts; what leaves is one Rollout. A condition is final only where waiting cannot
help; everything else is progress, since a GPU node may take minutes to come. Refuses to know clients and clocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Live = dict[str, Any]

_BAD_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
_BAD_CONFIG = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_FETCH = "deployctl-fetch:"
# What fetch.py says and no further try can mend -> code and what to do; an unreachable store is tried again by the kubelet.
_PUSH = "push the bundle again and repeat the command; the old release goes on serving"
_IDENTITY = "bind the pod's service account to a role that may read the store, and repeat the command"
_REPEAT = "run the same command again; it writes what the pod is told anew"
_FINAL_FETCH = {
    "access-denied": ("fetch-access-denied", _IDENTITY),
    "blob-damaged": ("fetch-blob-damaged", _PUSH),
    "blob-missing": ("fetch-blob-missing", _PUSH),
    "bundle-damaged": ("fetch-bundle-damaged", _REPEAT),
    "no-identity": ("fetch-no-identity", _IDENTITY),
    "path-escapes": ("fetch-path-escapes", "package the model again"),
    "release-damaged": ("fetch-release-damaged", _REPEAT),
    "store-unknown": ("fetch-store-unknown", "name a store of the kind s3:// or https:// in deploy.yaml"),
    "unresolved": ("fetch-unresolved", "deployctl package, then deployctl up"),
}
_RESTARTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One judgement.

    Attributes:
        phase: done, progressing, or failed (nothing more will happen by itself).
        message: the cause in one sentence, or what is being waited for.
        ready: replicas of the wanted revision that are ready.
        wanted: replicas that are wanted.
        old: replicas of earlier revisions that still run.
        code, hint: of the error that a failure becomes.
    """

    phase: Literal["done", "progressing", "failed"]
    message: str
    ready: int
    wanted: int
    old: int
    code: str = ""
    hint: str = ""


class Cause(NamedTuple):
    """What waiting cannot mend: code, sentence, and what to do."""

    code: str
    message: str
    hint: str


def judge(deployment: Live, pods: Sequence[Live], replica_sets: Sequence[Live], *, pool_can_grow: bool = True) -> Rollout:
    """Judge a Deployment's roll-out by its conditions and its newest pods.

    Args:
        deployment: the live Deployment.
        pods: the pods of its selector.
        replica_sets: the ReplicaSets of its selector.
        pool_can_grow: whether waiting for room makes sense.
    """
    status, spec = deployment.get("status", {}), deployment["spec"]
    wanted = spec.get("replicas", 1)
    updated, ready = status.get("updatedReplicas", 0), status.get("readyReplicas", 0)
    old = status.get("replicas", 0) - updated
    seen = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    newest = newest_set(deployment, replica_sets)
    mine = [p for p in pods if newest and _owner(p) == newest["metadata"]["name"]]
    fresh = sum(_condition(p, "Ready") == "True" and "deletionTimestamp" not in p["metadata"] for p in mine)
    if seen and updated == wanted and ready >= wanted and fresh >= wanted and old <= 0:
        return Rollout(phase="done", message=f"{wanted} ready", ready=fresh, wanted=wanted, old=0)
    cause = _final(deployment, mine, pool_can_grow=pool_can_grow) if seen else None
    if cause:
        return Rollout(phase="failed", message=cause.message, ready=fresh, wanted=wanted, old=max(old, 0), code=cause.code, hint=cause.hint)
    return Rollout(phase="progressing", message=_waiting(mine, wanted, fresh, old), ready=fresh, wanted=wanted, old=max(old, 0))


def newest_set(deployment: Live, replica_sets: Sequence[Live]) -> Live | None:
    """The ReplicaSet of the Deployment's present template, None before the controller made it."""
    revision = deployment["metadata"].get("annotations", {}).get("deployment.kubernetes.io/revision")
    for item in replica_sets:
        owners = [o.get("uid") for o in item["metadata"].get("ownerReferences", [])]
        if (
            deployment["metadata"].get("uid") in owners
            and item["metadata"].get("annotations", {}).get("deployment.kubernetes.io/revision") == revision
        ):
            return item
    return None


def _owner(pod: Live) -> str:
    return next((str(o["name"]) for o in pod["metadata"].get("ownerReferences", [])), "")


def _condition(item: Live, kind: str) -> str:
    return next((str(c.get("status")) for c in item.get("status", {}).get("conditions", []) if c.get("type") == kind), "")


def _final(deployment: Live, pods: Sequence[Live], *, pool_can_grow: bool) -> Cause | None:
    """The first cause that waiting cannot mend, most telling first."""
    for pod in pods:
        cause = pod_cause(pod)
        if cause:
            return cause
    for condition in deployment.get("status", {}).get("conditions", []):
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            return _refusal(str(condition.get("message", "")))
    if not pool_can_grow:
        for pod in pods:
            words = _unschedulable(pod)
            if words:
                return Cause(
                    "pool-full",
                    f"no node has room for another replica and the pool cannot grow: {words}",
                    "make the pool bigger, or lower limits.replicas",
                )
    for condition in deployment.get("status", {}).get("conditions", []):
        if condition.get("type") == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded":
            return Cause("rollout-stalled", f"no progress within the deadline; {_waiting(pods, 0, 0, 0)}", "deployctl logs")
    return None


def _refusal(message: str) -> Cause:
    if "exceeded quota" in message:
        return Cause("quota-exceeded", f"the namespace's quota refuses the pod: {message}", "ask for a higher quota, or lower limits.replicas")
    if "admission webhook" in message or "failed calling webhook" in message:
        return Cause("webhook-refused", f"a webhook of the cluster refuses the pod: {message}", "the message is the webhook's; ask who runs it")
    if "violates PodSecurity" in message:
        return Cause(
            "pod-security-refused", f"the namespace's Pod Security refuses the pod: {message}", "report this: pods are made for `restricted`"
        )
    return Cause("pod-refused", f"the cluster refuses the pod: {message}", "mend what the message names and run the same command again")


def pod_cause(pod: Live) -> Cause | None:
    """Why this pod will never be ready, None while it still may."""
    name = pod["metadata"]["name"]
    status = pod.get("status", {})
    for container in (*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])):
        cause = _container_cause(name, container)
        if cause:
            return cause
    return None


def _container_cause(pod: str, container: Live) -> Cause | None:
    waiting = container.get("state", {}).get("waiting") or {}
    reason, words = str(waiting.get("reason", "")), str(waiting.get("message", ""))
    ended = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated") or {}
    restarts = int(container.get("restartCount", 0))
    fetch = _fetch_cause(pod, str(ended.get("message", "")))
    if fetch and ended.get("exitCode"):
        return fetch
    # The first failed pull says ErrImagePull; the kubelet says ImagePullBackOff once the next has failed or is pointless.
    if reason in _BAD_IMAGE - {"ErrImagePull"}:
        return Cause("image-unavailable", f"{pod}: the image cannot be pulled: {words or reason}", "check the image's name, digest and pull secret")
    if reason in _BAD_CONFIG:
        return Cause("container-config-wrong", f"{pod}: {reason}: {words}", "mend what the message names and run the same command again")
    if ended.get("reason") == "OOMKilled" and restarts >= 2:
        return Cause("out-of-memory", f"{pod}: {container['name']} was killed for memory {restarts} times", "give the pool's replicas more memory")
    if reason == "CrashLoopBackOff" and restarts >= _RESTARTS:
        last = str(ended.get("message", "")).strip().splitlines()[-1:] or [f"exit code {ended.get('exitCode')}"]
        return Cause("crash-loop", f"{pod}: {container['name']} ended {restarts} times: {last[0][:300]}", "deployctl logs")
    return None


def _fetch_cause(pod: str, message: str) -> Cause | None:
    for line in reversed(message.strip().splitlines()):
        if line.startswith(_FETCH):
            slug, _, rest = line.removeprefix(_FETCH).strip().partition(": ")
            if slug in _FINAL_FETCH:
                code, hint = _FINAL_FETCH[slug]
                return Cause(code, f"{pod}: {rest[:400]}", hint)
    return None


def _unschedulable(pod: Live) -> str:
    for condition in pod.get("status", {}).get("conditions", []):
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return str(condition.get("message", ""))
    return ""


def _waiting(pods: Sequence[Live], wanted: int, ready: int, old: int) -> str:
    """What is being waited for, by the pod that is farthest from ready."""
    for pod in pods:
        words = _unschedulable(pod)
        if words:
            return f"{pod['metadata']['name']} waits for a node: {words}"
    for pod in pods:
        status = pod.get("status", {})
        for container in (*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])):
            waiting = container.get("state", {}).get("waiting") or {}
            if waiting.get("reason"):
                return f"{pod['metadata']['name']}: {container['name']}: {waiting['reason']}"
    if ready < wanted:
        return f"{ready} of {wanted} replicas answer"
    return f"{old} old replicas are leaving" if old > 0 else "waiting for the controllers"
