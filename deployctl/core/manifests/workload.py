"""The Triton pod: what enters is a plan and its bundle, what leaves are ServiceAccount, ConfigMap and Deployment.

The init container verifies every byte into a private volume, then Triton starts with its repository read-only and its
admin interfaces closed. Runs the stock Triton image: everything of ours is a script in the ConfigMap.
"""

from __future__ import annotations

import math
from typing import Any

from deployctl.core import codec, kube_names, packaging
from deployctl.core.bundle import Bundle
from deployctl.core.collector import OTLP
from deployctl.core.plan import Plan
from deployctl.core.platform import ClusterSpec, NodePool
from deployctl.errors import Refused

SCRIPTS = ("fetch.py", "probe.py", "serve.py")
HTTP, GRPC, METRICS = 8000, 8001, 8002
# Before traffic stops, every node and client has to hear that the pod leaves. Seconds; kube-proxy needs one or two.
_PROPAGATION_S = 5
_AGE_SPREAD = 1.1  # gRPC servers spread the age of connections by 10 % either way
_CONFIG_MAP_BYTES = 1_000_000  # the API server refuses more than 1 MiB
_UNRESOLVED_IMAGE = "unresolved.invalid/tritonserver"
_MOUNT = "/deployctl"
_MIB = 1024**2


def longest_request_s(plan: Plan, cluster: ClusterSpec) -> float:
    """How long a request that was accepted may take: given, else ten times the SLO's limit and at least 5 s."""
    return cluster.longest_request_s or max(5.0, 10 * plan.slo.latency.max)


def drain_s(plan: Plan, cluster: ClusterSpec) -> int:
    """Seconds that a leaving pod goes on serving before Triton hears SIGTERM.

    Endpoint propagation; then every gRPC client has dropped the address and its last call has ended. A client asks for
    addresses anew when a connection has reached its age, but not sooner after the last time than `address_age_s` allows, and
    until then it connects to the leaving pod again. Triton before 25.05 answers NOT_FOUND to gRPC calls that arrive while
    it stops, and clients do not retry that.
    """
    heard_s = max(cluster.address_age_s, _AGE_SPREAD * cluster.grpc_connection_age_s)
    return math.ceil(_PROPAGATION_S + heard_s + longest_request_s(plan, cluster))


def exit_timeout_s(plan: Plan, cluster: ClusterSpec) -> int:
    """Triton's own limit for requests in flight. Too short loses them, and 24.10 then crashes at exit."""
    return math.ceil(longest_request_s(plan, cluster)) + 5


def service_account(plan: Plan, cluster: ClusterSpec) -> dict[str, Any]:
    """The pod's identity towards the cloud. No token of the cluster is mounted: nothing in the pod talks to the API."""
    metadata: dict[str, Any] = {"name": plan.service}
    if cluster.identity:
        metadata["annotations"] = dict(cluster.identity)
    account: dict[str, Any] = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata, "automountServiceAccountToken": False}
    if cluster.pull_secrets:
        account["imagePullSecrets"] = [{"name": s} for s in cluster.pull_secrets]
    return account


def config_map(plan: Plan, bundle: Bundle | None, configs: dict[str, str], scripts: dict[str, str], cluster: ClusterSpec) -> dict[str, Any]:
    """What the pod is told: immutable and named by its content, so that a running release never changes under its pods.

    Raises:
        Refused: the bundle's file list does not fit (`configmap-too-big`).
    """
    release = {
        "schema_version": 1,
        "bundle": plan.bundle,
        "store": cluster.store,
        "region": cluster.store_region,
        "endpoint": cluster.store_endpoint,
        "configs": dict(sorted(configs.items())) if bundle else {},
    }
    data = {
        "bundle.json": codec.dumps(bundle) if bundle else "null\n",
        "release.json": kube_names.json_text(release),
        "request.json": kube_names.json_text(canary(bundle, plan, cluster)),
        **{name: scripts[name] for name in SCRIPTS},
    }
    size = sum(len(text.encode()) for text in data.values())
    if size > _CONFIG_MAP_BYTES:
        raise Refused(
            f"the bundle's file list needs {size} bytes and a ConfigMap holds {_CONFIG_MAP_BYTES}",
            hint="pack the many small files of the model into fewer ones",
            code="configmap-too-big",
        )
    name = kube_names.name(plan.service, kube_names.short_hash(kube_names.json_text(data)))
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "immutable": True, "data": dict(sorted(data.items()))}


def canary(bundle: Bundle | None, plan: Plan, cluster: ClusterSpec) -> dict[str, Any]:
    """The probe's real inference: the entry model's inputs, each of the smallest size, all zero."""
    inputs = []
    if bundle:
        batch = [1] if bundle.model(bundle.entry).serving.max_batch else []
        size = bundle.size_rule.step
        inputs = [{"name": t.name, "datatype": t.dtype, "shape": batch + [size if d < 0 else d for d in t.shape]} for t in bundle.inputs]
    timeout_s = min(max(longest_request_s(plan, cluster) / 2, 2.0), 20.0)
    request = {"model": plan.entry, "inputs": inputs, "http_port": HTTP, "metrics_port": METRICS, "timeout_s": timeout_s}
    if bundle and bundle.model(bundle.entry).backend == "vllm":  # it answers in pieces, which the inference endpoint refuses
        request |= {"inputs": [], "generate": {"text_input": "1", "stream": False, "sampling_parameters": '{"max_tokens": 1}'}}
    return request


def deployment(plan: Plan, bundle: Bundle | None, cluster: ClusterSpec, record: str) -> dict[str, Any]:
    """The replicas. `replicas` is left out where an autoscaler owns it, so that an apply never resets the number."""
    spec: dict[str, Any] = {}
    if plan.scaling.min_replicas == plan.scaling.max_replicas:
        spec["replicas"] = plan.scaling.min_replicas
    spec |= {
        "revisionHistoryLimit": 2,
        "progressDeadlineSeconds": 900,
        "selector": {"matchLabels": kube_names.selector(plan)},
        # The old release stays whole until each new replica has answered a real inference.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": {"metadata": _pod_metadata(plan), "spec": _pod(plan, bundle, cluster, record)},
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": plan.service}, "spec": spec}


def _pod_metadata(plan: Plan) -> dict[str, Any]:
    version = plan.bundle.removeprefix("sha256:")[:12] if plan.bundle else "unresolved"
    return {
        "labels": {**kube_names.labels(plan), "app.kubernetes.io/version": version, **identity_labels(plan)},
        "annotations": {
            "deployctl/bundle": plan.bundle or "unresolved",
            "prometheus.io/scrape": "true",
            "prometheus.io/port": str(METRICS),
        },
    }


def identity_labels(plan: Plan) -> dict[str, str]:
    """Azure's webhook gives an identity only to pods that ask for it by this label."""
    asks = plan.cluster is not None and any(key.startswith("azure.workload.identity/") for key in plan.cluster.identity)
    return {"azure.workload.identity/use": "true"} if asks else {}


def _pod(plan: Plan, bundle: Bundle | None, cluster: ClusterSpec, record: str) -> dict[str, Any]:
    image = cluster.image or f"{_UNRESOLVED_IMAGE}:{plan.triton_version}"
    spec: dict[str, Any] = {
        "serviceAccountName": plan.service,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": drain_s(plan, cluster) + exit_timeout_s(plan, cluster) + 10,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "runAsGroup": 1000,
            "fsGroup": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "nodeSelector": {cluster.pool.node_label: cluster.pool.name},
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": key,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": kube_names.selector(plan)},
            }
            for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
        ],
        "initContainers": [_fetcher(image)],
        "containers": [_triton(plan, cluster, image)],
        "volumes": _volumes(bundle, cluster, record),
    }
    # Azure taints every spot node by itself, with this key.
    keys = [key for key in (cluster.pool.taint, "kubernetes.azure.com/scalesetpriority" if cluster.pool.spot else None) if key]
    if keys:
        spec["tolerations"] = [{"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in keys]
    return spec


def _locked_down() -> dict[str, Any]:
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}


def _fetcher(image: str) -> dict[str, Any]:
    return {
        "name": "fetch",
        "image": image,
        "command": ["python3", f"{_MOUNT}/fetch.py", "--from", _MOUNT, "--into", packaging.REPOSITORY],
        "resources": {"requests": {"cpu": "500m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": _locked_down(),
        # The last lines of the log become the container's message: that is where the cause of a failed start is read.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "release", "mountPath": _MOUNT, "readOnly": True},
            {"name": "models", "mountPath": "/models"},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }


def _triton(plan: Plan, cluster: ClusterSpec, image: str) -> dict[str, Any]:
    return {
        "name": "triton",
        "image": image,
        "command": ["python3", f"{_MOUNT}/serve.py"],
        "args": triton_arguments(plan, cluster),
        "ports": [
            {"name": "http", "containerPort": HTTP},
            {"name": "grpc", "containerPort": GRPC},
            {"name": "metrics", "containerPort": METRICS},
        ],
        **({"envFrom": [{"secretRef": {"name": name}} for name in cluster.secrets]} if cluster.secrets else {}),
        "resources": _resources(cluster.pool),
        "securityContext": _locked_down(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(drain_s(plan, cluster))]}}},
        **_probes(plan, cluster),
        "volumeMounts": [
            {"name": "release", "mountPath": _MOUNT, "readOnly": True},
            {"name": "models", "mountPath": "/models", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
    }


def triton_arguments(plan: Plan, cluster: ClusterSpec) -> list[str]:
    """Arguments of tritonserver; `serve.py` adds the closed admin interfaces with a key that nobody knows."""
    return [
        f"--model-repository={packaging.REPOSITORY}",
        "--model-control-mode=none",
        f"--http-port={HTTP}",
        f"--grpc-port={GRPC}",
        f"--metrics-port={METRICS}",
        f"--exit-timeout-secs={exit_timeout_s(plan, cluster)}",
        f"--grpc-max-connection-age={round(cluster.grpc_connection_age_s * 1000)}",
        f"--grpc-max-connection-age-grace={round(longest_request_s(plan, cluster) * 1000)}",
        *_tracing(plan, cluster),
    ]


def _tracing(plan: Plan, cluster: ClusterSpec) -> list[str]:
    """Spans for the collector, of the share that the plan allows: a Triton before 25.04 can crash while it traces at a high rate."""
    if cluster.telemetry.collector is None or plan.trace_ratio <= 0:
        return []
    version = plan.bundle.removeprefix("sha256:")[:12] if plan.bundle else "unresolved"
    settings = [
        "mode=opentelemetry",
        f"opentelemetry,url=http://{kube_names.name(plan.service, 'collector')}:{OTLP}/v1/traces",
        f"opentelemetry,resource=service.name={plan.service}",
        f"opentelemetry,resource=service.version={version}",
        f"opentelemetry,resource=deployment.environment.name={plan.env}",
        "level=TIMESTAMPS",
        f"rate={max(1, round(1 / plan.trace_ratio))}",
    ]
    return [f"--trace-config={text}" for text in settings]


def _probes(plan: Plan, cluster: ClusterSpec) -> dict[str, Any]:
    """Triton's health endpoints say ready with a dead backend, so each probe is an inference. See probe.py for overload."""
    timeout_s = math.ceil(canary(None, plan, cluster)["timeout_s"]) + 3

    def probe(mode: str, period_s: int, failures: int) -> dict[str, Any]:
        return {
            "exec": {"command": ["python3", f"{_MOUNT}/probe.py", mode]},
            "periodSeconds": max(period_s, timeout_s),
            "timeoutSeconds": timeout_s,
            "failureThreshold": failures,
        }

    return {"startupProbe": probe("start", 5, 120), "readinessProbe": probe("ready", 10, 3), "livenessProbe": probe("live", 20, 6)}


def _resources(pool: NodePool) -> dict[str, Any]:
    requests: dict[str, str] = {"cpu": kube_names.quantity(pool.cpu), "memory": kube_names.memory(pool.memory_bytes)}
    limits: dict[str, str] = {"memory": kube_names.memory(pool.memory_bytes)}
    if pool.gpu_resource:
        requests[pool.gpu_resource] = limits[pool.gpu_resource] = str(pool.gpus)
    return {"requests": requests, "limits": limits}


def _volumes(bundle: Bundle | None, cluster: ClusterSpec, record: str) -> list[dict[str, Any]]:
    # Twice: an interrupted fetch may leave its partial copy beside the new one until it is cleared.
    size = 2 * sum(f.size_bytes for f in bundle.files) if bundle else 0
    return [
        {"name": "release", "configMap": {"name": record, "defaultMode": 0o444}},
        {"name": "models", "emptyDir": {"sizeLimit": kube_names.memory(size + 64 * _MIB)}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "1024Mi"}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": kube_names.memory(cluster.shm_bytes)}},
    ]
