"""A replica to measure and a load generator, each as a Job that ends by itself: what enters are a plan and times, what leaves are plain dicts.

The replica has the release's own pod template on the release's own pool, but labels of its own: no Service, autoscaler or budget of the service
selects it. The Job is the owner of everything made for it and has a deadline and a time to live, so that nothing stays when the one who
asked is killed. Refuses to know who makes the objects and who measures.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

from deployctl.core import kube_names
from deployctl.core.manifests import Inputs, Manifest, cluster_of, finished, policy, workload
from deployctl.core.plan import Plan

RUN = "deployctl/bench"  # label: which run an object belongs to
KEY = "key"  # name of the admin key in its Secret
REQUEST, BODIES = "request.json", "bodies.jsonl.gz"
MOUNT = "/job"
_TTL_S = 60  # of an ended Job: long enough to read its log
_STOP_S = 15  # nobody's requests are in flight when a measured replica is stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One Job and what is made for it once it exists, with it as owner.

    Attributes:
        name: of the Job, and of every other object.
        namespace: where.
        job: the owner.
        others: what its pod mounts and what leads to it; the pod waits for them.
        account: the service account of the service, made only where it does not exist; not owned, since `up` needs it too.
    """

    name: str
    namespace: str
    job: Manifest
    others: tuple[Manifest, ...]
    account: Manifest | None = None

    def owned(self, uid: str) -> list[Manifest]:
        """The others, owned by the live Job with this uid."""
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": self.name, "uid": uid, "blockOwnerDeletion": False}
        return [{**item, "metadata": {**item["metadata"], "ownerReferences": [owner]}} for item in self.others]


def replica(inputs: Inputs, run: str, *, lasts_s: float, admin_key: str | None = None) -> Run:
    """One replica of the plan's release.

    Args:
        inputs: as for the service itself.
        run: name of this run, lower case letters and digits.
        lasts_s: the Job's deadline.
        admin_key: open Triton's admin interfaces to who knows it, and let models be loaded under other settings; None keeps them closed.
    """
    plan, bundle, cluster = inputs.plan, inputs.bundle, cluster_of(inputs.plan)
    name = kube_names.name(plan.service, "bench", run)
    labels = {**_labels(plan, run, "bench"), **workload.identity_labels(plan)}
    template = copy.deepcopy(workload.deployment(plan, bundle, cluster, name)["spec"]["template"])
    pod, triton = template["spec"], template["spec"]["containers"][0]
    pod |= {"restartPolicy": "Never", "terminationGracePeriodSeconds": _STOP_S}
    del pod["topologySpreadConstraints"], triton["lifecycle"]
    others = []
    if admin_key is not None:
        triton["args"] = [a for a in triton["args"] if not a.startswith("--model-control-mode")] + ["--model-control-mode=explicit", "--load-model=*"]
        triton["env"] = [{"name": "DEPLOYCTL_ADMIN_KEY", "valueFrom": {"secretKeyRef": {"name": name, "key": KEY}}}]
        others.append({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {KEY: admin_key}})
    record = workload.config_map(plan, bundle, inputs.configs, inputs.scripts, cluster)
    door = copy.deepcopy(policy.network_policies(plan, cluster)[1])
    door["spec"]["podSelector"] = {"matchLabels": labels}
    service = policy.services(plan)[0]
    service["spec"]["selector"] = labels
    others += [{**record, "metadata": {"name": name}}, {**door, "metadata": {"name": name}}, {**service, "metadata": {"name": name}}]
    return Run(
        name=name,
        namespace=cluster.namespace,
        job=_job(name, cluster.namespace, labels, {"metadata": {**template["metadata"], "labels": labels}, "spec": pod}, lasts_s),
        others=tuple(_placed(item, cluster.namespace, labels) for item in others),
        account=finished(workload.service_account(plan, cluster), inputs),
    )


def address(run: Run, port: int) -> str:
    """Where a replica is found inside the cluster."""
    return f"{run.name}.{run.namespace}.svc:{port}"


def load(plan: Plan, run: str, *, image: str, request: str, bodies_gz_base64: str, lasts_s: float) -> Run:
    """The load generator: an image that has deployctl installed, given a request and example bodies."""
    cluster = cluster_of(plan)
    name = kube_names.name(plan.service, "load", run)
    labels = _labels(plan, run, "load")
    data = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {REQUEST: request}, "binaryData": {BODIES: bodies_gz_base64}}
    container = {
        "name": "load",
        "image": image,
        "command": ["python3", "-m", "deployctl.hosts.kubernetes.loadjob", MOUNT],
        "resources": {"requests": {"cpu": "1", "memory": "512Mi"}, "limits": {"memory": "2Gi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "job", "mountPath": MOUNT, "readOnly": True}, {"name": "tmp", "mountPath": "/tmp"}],
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "imagePullSecrets": [{"name": s} for s in cluster.pull_secrets],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "runAsGroup": 1000,
            "fsGroup": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "job", "configMap": {"name": name}}, {"name": "tmp", "emptyDir": {}}],
    }
    return Run(
        name=name,
        namespace=cluster.namespace,
        job=_job(name, cluster.namespace, labels, {"metadata": {"labels": labels}, "spec": pod}, lasts_s),
        others=(_placed(data, cluster.namespace, labels),),
    )


def _labels(plan: Plan, run: str, part: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": kube_names.label_value(f"{plan.service}-{part}"),
        "app.kubernetes.io/managed-by": kube_names.MANAGER,
        RUN: run,
    }


def _job(name: str, namespace: str, labels: dict[str, str], template: Manifest, lasts_s: float) -> Manifest:
    spec = {"backoffLimit": 0, "activeDeadlineSeconds": math.ceil(lasts_s), "ttlSecondsAfterFinished": _TTL_S, "template": template}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": namespace, "labels": labels}, "spec": spec}


def _placed(item: Manifest, namespace: str, labels: dict[str, str]) -> Manifest:
    return {**item, "metadata": {**item["metadata"], "namespace": namespace, "labels": labels}}
