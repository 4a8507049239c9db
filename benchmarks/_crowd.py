"""A real control plane with many services on fake nodes, for `bench_kube.py`: 200 nodes, 500 services with an HPA each, 2,000 pods.

Uses the rig of the tests; kwok says that the pods run. What is listed is what the writer makes: Deployments, autoscalers and inventories.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deployctl.core import kube_inventory, kube_names, manifests
from deployctl.core.decision import ScalingPolicy
from deployctl.core.kube_inventory import Inventory
from deployctl.core.platform import NodePool
from deployctl.core.release import Release
from deployctl.testing import kube

KUBE = Path(__file__).resolve().parents[1] / "tests" / "integration" / "kube"
NODES, SERVICES, REPLICAS = 200, 500, 4
PATHS = {"Deployment": "/apis/apps/v1", "HorizontalPodAutoscaler": "/apis/autoscaling/v2", "ConfigMap": "/api/v1"}
KINDS = {"Deployment": "deployments", "HorizontalPodAutoscaler": "horizontalpodautoscalers", "ConfigMap": "configmaps"}


@contextlib.contextmanager
def crowd(folder: Path) -> Iterator[Any]:
    """The control plane when everything runs; None where its programs are not built."""
    sys.path.insert(0, str(KUBE))
    import kube_rig

    programs = kube_rig.built()
    if programs is None:
        yield None
        return
    plane = kube_rig.ControlPlane(folder, programs, hpa_sync_s=15)
    try:
        plane.start()
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n: plane.add_node(f"crowd-{n}"), range(NODES - kube_rig.GPU_NODES)))
            namespace = plane.namespace("crowd")
            list(pool.map(lambda n: _service(plane, namespace, n), range(SERVICES)))
        plane.until(lambda: _running(plane, namespace) == SERVICES * REPLICAS, "running pods", limit_s=400, step_s=3)
        yield plane
    finally:
        plane.stop()


def _service(plane: Any, namespace: str, number: int) -> None:
    """The three objects that a list of services is made of, as the writer writes them."""
    policy = ScalingPolicy(min_replicas=REPLICAS, max_replicas=2 * REPLICAS, target=10.0, signal="arrivals_rps")
    pool = NodePool(name="gpu-l4", device="L4", gpu_resource=None, cpu=0.1)
    packed = kube.bundle()
    made = kube.plan(packed, service=f"service-{number}", scaling=policy, cluster={"namespace": namespace, "pool": pool})
    release = Release(revision=1, created_at_s=0.0, action="up", plan=made)
    items = [i for i in manifests.objects(kube.inputs(packed, made)) if i["kind"] in ("Deployment", "HorizontalPodAutoscaler")]
    inventory = Inventory(owner=kube_names.owner(made), writer="apply", wanted=release, serving=1, refs=())
    for item in [*items, kube_inventory.manifest(inventory, made, namespace)]:
        if item["kind"] == "Deployment":
            item["spec"]["replicas"] = REPLICAS
            pod = item["spec"]["template"]["spec"]  # nobody reads what these pods mount, and no account was made for them
            pod.pop("serviceAccountName")
        code, text = plane.request("POST", f"{PATHS[item['kind']]}/namespaces/{namespace}/{KINDS[item['kind']]}", item)
        assert code == 201, text


def _running(plane: Any, namespace: str) -> int:
    """Ready pods, by the Deployments' own counts."""
    items = plane.get(f"/apis/apps/v1/namespaces/{namespace}/deployments")["items"]
    return sum(i.get("status", {}).get("readyReplicas", 0) for i in items)
