"""Kubernetes behind the Target port: a writer writes objects, the cluster acts, `status` judges what it says.

What enters are releases; what leaves are objects through the environment's writer and a TargetStatus. Which pool and image is
in the release's plan, which release is wanted in the cluster's own records. Refuses to know verbs.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from typing import Any

from deployctl import share
from deployctl.adapters import portforward
from deployctl.adapters.kubernetes import Cluster
from deployctl.core import kube_drift, kube_rollout, manifests
from deployctl.core.kube_inventory import Inventory
from deployctl.core.manifests.workload import GRPC, HTTP, SCRIPTS
from deployctl.core.plan import Plan
from deployctl.core.release import Release
from deployctl.errors import ClusterError, NotConverged, NotFound
from deployctl.hosts.kubernetes import logs
from deployctl.hosts.kubernetes.pulumi_writer import PulumiWriter
from deployctl.hosts.kubernetes.records import ClusterRecordStore
from deployctl.hosts.kubernetes.writer import Writer
from deployctl.ports import Progress, ReplicaStatus, ServerStats, StackEngine, TargetStatus

_GONE_S = 180.0


class KubernetesTarget:
    """One service in one environment on one cluster; with `stacks` its objects are written by Pulumi."""

    def __init__(self, cluster: Cluster, records: ClusterRecordStore, *, stacks: StackEngine | None = None) -> None:
        self._cluster, self._records, self._stacks = cluster, records, stacks

    def check(self, plan: Plan) -> None:
        """Whether everything that is to run is pinned by digest.

        Raises:
            Refused: a digest is unresolved (`unresolved`).
        """
        manifests.require_resolved(plan)

    def apply(self, release: Release) -> None:
        """Write the objects of the release; the cluster rolls out.

        Raises:
            Refused: see `check`, or an object is somebody else's.
            LockHeld: somebody else's change came later (`apply-lost-race`, `lease-lost`).
            ClusterError, NotFound: see `adapters.kubernetes`.
        """
        self.check(release.plan)
        self._writer(release.plan).apply(release, self.objects(release.plan))

    def objects(self, plan: Plan) -> list[manifests.Manifest]:
        """The objects of a plan as the environment's writer writes them."""
        return manifests.objects(self._inputs(plan))

    def _inputs(self, plan: Plan) -> manifests.Inputs:
        content = self._records.content(plan)
        scripts = {name: share.text(f"kube/{name}") for name in SCRIPTS}
        bundle, configs = (content.bundle, content.configs) if content else (None, {})
        return manifests.Inputs(plan=plan, bundle=bundle, configs=configs, scripts=scripts, writer="pulumi" if self._stacks else "apply")

    def drift(self) -> list[kube_drift.Difference]:
        """What the live objects have that the wanted release does not, with who changed it.

        Raises:
            NotFound: the service was never released here or was taken down (`not-running`).
        """
        release = self._wanted()
        writer = self._writer(release.plan) if release else None
        inventory = writer.inventory() if writer else None
        if writer is None or inventory is None:
            raise NotFound("nothing runs here", hint="deployctl up", code="not-running")
        return writer.drift(self.objects(inventory.wanted.plan))

    def pending(self, plan: Plan) -> list[kube_drift.Difference]:
        """What applying the plan would change, as the server says; nothing is written.

        Raises:
            Refused: a digest is unresolved (`unresolved`).
        """
        self.check(plan)
        return self._writer(plan).pending(self.objects(plan))

    def status(self) -> TargetStatus:
        """The live state as the cluster tells it."""
        release = self._wanted()
        if release is None:
            return stopped("nothing was released here", None)
        writer = self._writer(release.plan)
        inventory, view = writer.inventory(), writer.view()
        if inventory is None or view is None:
            return stopped("nothing runs on the cluster", release.revision)
        return view_status(inventory, inventory.wanted.plan, *view)

    def stats(self) -> dict[str, ServerStats]:
        """Nothing: replicas close their statistics to everybody but the cluster's own Prometheus."""
        return {}

    def core_reading(self) -> None:
        """None: a node's cores are not this machine's."""
        return None

    @contextlib.contextmanager
    def reach(self) -> Iterator[str]:
        """An address on this machine that leads to one ready replica, for the moment, through the API server's port-forward.

        Raises:
            ClusterError: no replica is ready, or the cluster does not let you (`not-reachable`).
        """
        release = self._wanted()
        view = self._writer(release.plan).view() if release else None
        ready = [p["metadata"]["name"] for p in view[1] if _replica(p, 0).state == "ready"] if view else []
        if release is None or not ready:
            raise ClusterError("no replica is ready", hint="deployctl status", code="not-reachable")
        with portforward.listen(self._cluster.client(), manifests.cluster_of(release.plan).namespace, sorted(ready)[0], HTTP) as address:
            yield f"http://{address}"

    def logs(self, *, replica: str | None, since_s: float | None, follow: bool) -> Iterator[str]:
        """Lines `[replica container] text` of Triton and of the fetcher; `follow` goes on with all replicas, also those that come later.

        Raises:
            NotFound: no such replica (`replica-not-found`).
        """
        release = self._wanted()
        if release is None or (names := self._names(release)) is None:
            return
        if replica is not None and replica not in names:
            raise NotFound(
                f"there is no replica {replica}", why=f"there are {', '.join(names) or 'none'}", hint="deployctl status", code="replica-not-found"
            )
        read = partial(self._cluster.logs, manifests.cluster_of(release.plan).namespace)
        last_s = None if since_s is None else max(0.0, time.time() - since_s)
        if follow:
            yield from logs.followed(lambda: [replica] if replica else self._names(release) or [], read, last_s)
        else:
            yield from logs.once([replica] if replica else names, read, last_s)

    def _names(self, release: Release) -> list[str] | None:
        """The replicas that there are; None where nothing runs."""
        view = self._writer(release.plan).view()
        return sorted(p["metadata"]["name"] for p in view[1]) if view else None

    def down(self, progress: Progress) -> None:
        """Remove every object on record and wait until they and the pods are gone.

        Raises:
            LockHeld: somebody else is changing the service (`lock-held`).
            NotConverged: some are still leaving (`down-timeout`); the same command goes on.
        """
        release = self._wanted()
        if release is None:
            return
        with self._records.exclusive():
            writer = self._writer(release.plan)
            if writer.inventory() is None:
                return
            progress.step("removing the objects")
            for ref in writer.remove_all():
                progress.update(f"removed {ref.kind} {ref.name}")
            progress.step("waiting until the pods have ended what they accepted and every object is gone")
            self._until_gone(writer, progress)
            writer.forget()

    def _until_gone(self, writer: Writer, progress: Progress) -> None:
        end = time.monotonic() + _GONE_S
        while leaving := writer.leaving():
            if time.monotonic() > end:
                why = "a pod finishes what it accepted; an object waits for whoever put a finalizer on it"
                raise NotConverged(
                    f"still leaving: {', '.join(leaving[:3])}", why=why, hint="deployctl down   (it goes on waiting)", code="down-timeout"
                )
            progress.update(f"{leaving[0]} is still leaving" if len(leaving) == 1 else f"{leaving[0]} and {len(leaving) - 1} more are still leaving")
            self._records.lease.token()  # still ours: says so in time
            time.sleep(0.5)

    def _wanted(self) -> Release | None:
        return self._records.history().current

    def _writer(self, plan: Plan) -> Writer:
        if self._stacks is not None:
            return PulumiWriter(self._cluster, plan, self._records.lease.token, engine=self._stacks, inputs=self._inputs)
        return Writer(self._cluster, plan, self._records.lease.token)


def stopped(message: str, wanted: int | None) -> TargetStatus:
    """Nothing runs."""
    return TargetStatus(
        alive=False,
        url=None,
        grpc_url=None,
        revision_serving=None,
        revision_wanted=wanted,
        phase="stopped",
        message=message,
        replicas=(),
        replicas_wanted=0,
        policy_says="",
        recent=(),
    )


def view_status(inventory: Inventory, plan: Plan, deployment: Any, pods: list[Any], sets: list[Any]) -> TargetStatus:
    """One reading of the cluster as the port's type."""
    pool = manifests.cluster_of(plan).pool
    fixed_pool = pool.max_nodes is not None and pool.max_nodes == pool.min_nodes
    rollout = kube_rollout.judge(deployment, pods, sets, pool_can_grow=not fixed_pool)
    wanted, newest = inventory.wanted.revision, kube_rollout.newest_set(deployment, sets)
    name = newest["metadata"]["name"] if newest else ""
    replicas = tuple(_replica(p, wanted if _set_of(p) == name else inventory.serving or 0) for p in pods)
    ready = any(r.state == "ready" for r in replicas)
    serving = wanted if rollout.phase == "done" else (inventory.serving if ready and rollout.old else None)
    phase = {"done": "serving", "failed": "failed", "progressing": "rolling" if serving else "starting"}[rollout.phase]
    message = rollout.message
    if not inventory.whole:  # what the Deployment says is about what it was before
        serving = inventory.serving if ready else None
        phase, message = "rolling" if serving else "starting", f"revision {wanted} was not written whole: run the command that made it again"
    host = f"{plan.service}.{manifests.cluster_of(plan).namespace}.svc"
    return TargetStatus(
        alive=True,
        url=f"http://{host}:{HTTP}",
        grpc_url=f"{host}:{GRPC}",
        revision_serving=serving,
        revision_wanted=wanted,
        phase=phase,
        message=message,
        code=rollout.code,
        hint=rollout.hint,
        replicas=replicas,
        replicas_wanted=rollout.wanted,
        policy_says="the cluster's autoscaler decides" if plan.scaling.min_replicas != plan.scaling.max_replicas else "fixed",
        recent=(),
    )


def _set_of(pod: Any) -> str:
    return next((str(o["name"]) for o in pod["metadata"].get("ownerReferences", [])), "")


def _replica(pod: Any, revision: int) -> ReplicaStatus:
    status = pod.get("status", {})
    conditions = {c["type"]: c for c in status.get("conditions", [])}
    if "deletionTimestamp" in pod["metadata"]:
        state, reason = "draining", "finishes its requests"
    elif conditions.get("Ready", {}).get("status") == "True":
        state, reason = "ready", "answers"
    else:
        waiting = [c.get("state", {}).get("waiting") or {} for c in (*status.get("initContainerStatuses", []), *status.get("containerStatuses", []))]
        words = next((w["reason"] for w in waiting if w.get("reason")), "") or conditions.get("PodScheduled", {}).get("message", "")
        state, reason = ("backoff" if "BackOff" in words else "starting"), words or str(status.get("phase", ""))
    restarts = sum(int(c.get("restartCount", 0)) for c in status.get("containerStatuses", []))
    return ReplicaStatus(
        name=pod["metadata"]["name"],
        state=state,
        reason=reason,
        revision=revision,
        pid=None,
        http_port=None,
        since_s=_since_s(pod),
        restarts=restarts,
    )


def _since_s(pod: Any) -> float:
    """Unix time of the pod's last change between ready and not ready, else of its making."""
    ready = next((c.get("lastTransitionTime") for c in pod.get("status", {}).get("conditions", []) if c["type"] == "Ready"), None)
    return datetime.fromisoformat(ready or pod["metadata"]["creationTimestamp"]).timestamp()
