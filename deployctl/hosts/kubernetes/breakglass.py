"""Break-glass: writes committed objects to the cluster at once, past the GitOps controller that owns them, and waits until they serve.

What enters are the plan and the objects of an old release; what leaves is a cluster that runs them until its controller next
compares it with the branch. Takes over only objects of this very service. Refuses to know git.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from deployctl.adapters.kubernetes import Cluster
from deployctl.core import kube_inventory, kube_names, kube_rollout
from deployctl.core.manifests import cluster_of
from deployctl.core.plan import Plan
from deployctl.errors import ClusterError, NotConverged, Refused
from deployctl.hosts.kubernetes.writer import Writer
from deployctl.ports import Progress

MANAGER = "deployctl-breakglass"
_WAIT_S, _POLL_S = 900.0, 1.0


class BreakGlass:
    """Writes past the controller; `kubeconfig` None is the usual one, `wait_s` the longest wait for the roll-out."""

    def __init__(self, *, kubeconfig: str | None = None, wait_s: float = _WAIT_S) -> None:
        self._kubeconfig = kubeconfig
        self._wait_s = wait_s

    def __call__(self, plan: Plan, found: Sequence[dict[str, Any]], progress: Progress) -> None:
        """Make the objects so, and wait until they serve.

        Raises:
            Refused: an object of that name is another service's (`not-ours`). Nothing was written then.
            ClusterError: the roll-out failed (`rollout-failed`); NotConverged: it goes on (`rollout-timeout`).
        """
        api = Cluster(context=cluster_of(plan).context, kubeconfig=self._kubeconfig)
        writer = Writer(api, plan)
        for item in found:
            _require_ours(api, item, plan)
        progress.step(f"writing {len(found)} objects to the cluster")
        for item in found:
            api.apply(item, manager=MANAGER, force=True)
        self._wait(writer, plan, progress)

    def _wait(self, writer: Writer, plan: Plan, progress: Progress) -> None:
        end = time.monotonic() + self._wait_s
        while True:
            view = writer.view()
            if view is not None:
                rollout = kube_rollout.judge(*view)
                if rollout.phase == "done":
                    return
                if rollout.phase == "failed":
                    raise ClusterError(
                        f"{plan.service} does not come up with the old release",
                        why=rollout.message,
                        hint=f"kubectl -n {cluster_of(plan).namespace} get pods; mend the cause and repeat the command",
                        code="rollout-failed",
                    )
                progress.update(rollout.message)
            if time.monotonic() > end:
                raise NotConverged(
                    f"{plan.service} does not serve the old release yet; its roll-out goes on",
                    hint=f"kubectl -n {cluster_of(plan).namespace} rollout status deployment/{plan.service}",
                    code="rollout-timeout",
                )
            time.sleep(_POLL_S)


def _require_ours(api: Cluster, item: dict[str, Any], plan: Plan) -> None:
    ref = kube_inventory.ref(item)
    live = api.get(ref.api, ref.kind, cluster_of(plan).namespace, ref.name)
    owner = ((live or {}).get("metadata", {}).get("annotations") or {}).get(kube_names.OWNER)
    if live is not None and owner != kube_names.owner(plan):
        raise Refused(
            f"{ref.kind} {ref.name} exists and is not this service's",
            why=f"it belongs to {owner or 'somebody who is no deployctl'}",
            hint="look at the object; break-glass takes over nothing of others",
            code="not-ours",
        )
