"""Known traps of Triton on Kubernetes, found in plain objects: ours before they are written, and anybody's by `advise`.

What enters are objects as dicts, from any chart; what leaves are findings with a remedy. Each rule is a pure function in
RULES and is named after what goes wrong. Refuses to know files and clusters, and never judges what it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Literal

from deployctl.core.finding import Finding

Objects = list[dict[str, Any]]
Severity = Literal["ok", "warn", "fail"]
_OLD_HPA = ("autoscaling/v2beta1", "autoscaling/v2beta2")
_SECRET_WORDS = re.compile(r"secret.?access.?key|aws.?secret|account.?key|private.?key", re.IGNORECASE)
_DELTA = re.compile(r"\b(i?delta)\s*\(\s*nv_inference_(?!pending)\w*(success|failure|count|duration_us)\b")
_FLOOR = re.compile(
    r"clamp_min\s*\(\s*(sum\s*\()?\s*(rate|increase|delta)\s*\([^)]*\)[^,]*,\s*1\s*\)|\b1\s*\+\s*(sum\s*\()?\s*(rate|delta|increase)\s*\("
)
_NULL_FIX = 'spec:\n  triggers:\n  - type: prometheus\n    metadata:\n      ignoreNullValues: "false"'
_FALLBACK_FIX = "spec:\n  fallback:\n    failureThreshold: 3\n    replicas: {replicas}\n    behavior: currentReplicasIfHigher"
_PAUSE_FIX = 'lifecycle:\n  preStop:\n    exec:\n      command: [sleep, "45"]  # as long as gRPC clients may still know this address'
_QUEUE_US = re.compile(r"queue.*us$|queue_duration_us", re.IGNORECASE)


def lint(objects: Objects) -> list[Finding]:
    """Every finding, by rule in the order of RULES and by object in the order given."""
    return [finding for rule in RULES.values() for finding in rule(objects)]


def _where(item: dict[str, Any]) -> str:
    return f"{item.get('kind', 'object')}/{(item.get('metadata') or {}).get('name', '?')}"


def _finding(name: str, severity: Severity, item: dict[str, Any], message: str, remedy: str, fix: str = "") -> Finding:
    """`fix` is what the object should have in that place, as YAML."""
    return Finding(name=name, severity=severity, message=f"{_where(item)}: {message}", remedy=remedy, where=_where(item), fix=fix)


def _of(objects: Objects, *kinds: str) -> Iterator[dict[str, Any]]:
    return (item for item in objects if item.get("kind") in kinds)


def _spec(item: dict[str, Any]) -> dict[str, Any]:
    spec = item.get("spec")
    return spec if isinstance(spec, dict) else {}


def _pods(objects: Objects) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(object, pod spec) of every workload."""
    for item in _of(objects, "Deployment", "StatefulSet", "DaemonSet", "Job"):
        yield item, ((_spec(item).get("template") or {}).get("spec") or {})
    for item in _of(objects, "Pod"):
        yield item, _spec(item)


def _containers(objects: Objects) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    for item, pod in _pods(objects):
        for container in pod.get("containers") or []:
            yield item, pod, container


def _words(container: dict[str, Any]) -> str:
    return " ".join(str(w) for w in [*(container.get("command") or []), *(container.get("args") or [])])


def _flag(words: str, name: str) -> str | None:
    found = re.search(rf"--{name}[= ]([^\s\"']+)", words)
    return found[1] if found else None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _scaled(objects: Objects) -> Iterator[tuple[dict[str, Any], str]]:
    """(autoscaler, name of what it scales)."""
    for item in _of(objects, "HorizontalPodAutoscaler", "ScaledObject"):
        yield item, str((_spec(item).get("scaleTargetRef") or {}).get("name", ""))


def removed_api(objects: Objects) -> Iterator[Finding]:
    """An autoscaler API that current clusters no longer serve."""
    for item in _of(objects, "HorizontalPodAutoscaler"):
        if item.get("apiVersion") in _OLD_HPA:
            yield _finding(
                "removed-api", "fail", item, f"{item['apiVersion']} left Kubernetes with 1.26", "use autoscaling/v2", "apiVersion: autoscaling/v2"
            )


def replicas_beside_autoscaler(objects: Objects) -> Iterator[Finding]:
    """Every apply would set the autoscaler's number back."""
    targets = {name for _, name in _scaled(objects)}
    for item in _of(objects, "Deployment", "StatefulSet"):
        if "replicas" in _spec(item) and (item.get("metadata") or {}).get("name") in targets:
            remedy = "leave spec.replicas out; the autoscaler owns it"
            yield _finding("replicas-beside-autoscaler", "fail", item, "`replicas` is set although an autoscaler owns the number", remedy)


def two_autoscalers(objects: Objects) -> Iterator[Finding]:
    """Two autoscalers of one workload undo each other."""
    seen: dict[str, str] = {}
    for item, name in _scaled(objects):
        if name in seen:
            yield _finding("two-autoscalers", "fail", item, f"{seen[name]} scales {name} already", "keep one autoscaler with several metrics")
        seen.setdefault(name, _where(item))


def null_is_zero(objects: Objects) -> Iterator[Finding]:
    """KEDA reads an empty Prometheus answer as zero unless told otherwise, and then scales down at peak."""
    for item in _of(objects, "ScaledObject"):
        for trigger in _spec(item).get("triggers") or []:
            if trigger.get("type") == "prometheus" and str((trigger.get("metadata") or {}).get("ignoreNullValues", "true")).lower() != "false":
                yield _finding(
                    "null-is-zero", "fail", item, "a missing metric counts as 0", 'set ignoreNullValues: "false" on the trigger', _NULL_FIX
                )


def fallback_shrinks(objects: Objects) -> Iterator[Finding]:
    """Without metrics KEDA keeps scaling on the last thing it knows, or goes down to a fixed number."""
    for item in _of(objects, "ScaledObject"):
        fallback = _spec(item).get("fallback")
        if not fallback or fallback.get("behavior") != "currentReplicasIfHigher":
            yield _finding(
                "fallback-shrinks",
                "warn",
                item,
                "without metrics the number of replicas may fall" if fallback else "nothing is said about what to do without metrics",
                "set fallback with behavior: currentReplicasIfHigher",
                _FALLBACK_FIX.format(replicas=_spec(item).get("minReplicaCount") or 1),
            )


def scale_to_zero(objects: Objects) -> Iterator[Finding]:
    """Nothing in front of a plain Service holds the request that should wake it."""
    for item in _of(objects, "HorizontalPodAutoscaler", "ScaledObject"):
        key, default = ("minReplicas", 1) if item["kind"] == "HorizontalPodAutoscaler" else ("minReplicaCount", 0)
        if _spec(item).get(key, default) == 0:
            yield _finding(
                "scale-to-zero", "fail", item, "it may scale to zero, and the waking request is lost", f"set {key}: 1 or more", f"spec:\n  {key}: 1"
            )


def counter_delta(objects: Objects) -> Iterator[Finding]:
    """delta() is for gauges: on a counter it goes negative at every restart."""
    for item in objects:
        if any(_DELTA.search(text) for text in _texts(item)):
            yield _finding(
                "counter-delta", "fail", item, "delta() of a counter is wrong at every restart of a pod", "use rate() over at least four scrapes"
            )


def floored_average(objects: Objects) -> Iterator[Finding]:
    """A mean divided by at least one request a second is too small wherever traffic is thinner, so scaling never starts."""
    for item in objects:
        if any(_FLOOR.search(text) for text in _texts(item)):
            remedy = "divide rate(sum) by rate(count), and treat no traffic as no data"
            yield _finding("floored-average", "fail", item, "the average is understated below one request a second for each pod", remedy)


def queue_target_too_fine(objects: Objects) -> Iterator[Finding]:
    """A queue target of some microseconds is below what one batch delay takes: always over it, always at the maximum."""
    for item in _of(objects, "HorizontalPodAutoscaler"):
        for metric in _spec(item).get("metrics") or []:
            source = metric.get(str(metric.get("type", "")).lower()) or {}
            name = str((source.get("metric") or {}).get("name") or source.get("metricName", ""))
            target = source.get("target") or {}
            value = _number(target.get("averageValue") or target.get("value") or source.get("targetAverageValue") or source.get("targetValue"))
            if value is not None and value < 1000 and _QUEUE_US.search(name):
                message = f"a mean queue time of {value:g} us is the target"
                yield _finding(
                    "queue-target-too-fine",
                    "warn",
                    item,
                    message,
                    "scale on arrivals or busy share with a measured target: the HPA of `deployctl advise --yaml FILE` does",
                )


def busy_is_not_late(objects: Objects) -> Iterator[Finding]:
    """A GPU's duty cycle says that something ran, not that requests were late or that batches were full."""
    for item in _of(objects, "HorizontalPodAutoscaler", "ScaledObject"):
        if any(re.search(r"duty_cycle|DCGM_FI_DEV_GPU_UTIL|nv_gpu_utilization", text) for text in _texts(item)):
            remedy = "scale on arrivals or busy share with a target measured against the SLO: the HPA of `deployctl advise --yaml FILE` does"
            yield _finding("busy-is-not-late", "warn", item, "it scales on GPU utilisation, which latency does not follow", remedy)


def cpu_is_not_late(objects: Objects) -> Iterator[Finding]:
    """CPU use says nothing of a queue: with a GPU it stays low while requests wait, without one it is at its limit when they are late already."""
    remedy = "scale on arrivals with a measured capacity: the HPA of `deployctl advise --yaml FILE` does"
    for item in _of(objects, "HorizontalPodAutoscaler", "ScaledObject"):
        sources = [metric.get("resource") or metric.get("containerResource") or {} for metric in _spec(item).get("metrics") or []]
        triggers = [trigger.get("type") for trigger in _spec(item).get("triggers") or []]
        if "cpu" in [*(source.get("name") for source in sources), *triggers]:
            yield _finding("cpu-is-not-late", "warn", item, "it scales on CPU utilisation, which does not tell that requests wait", remedy)


def mutable_repository(objects: Objects) -> Iterator[Finding]:
    """Triton loads whatever is in the bucket, unverified; polling shows it half an upload."""
    for item, _, container in _containers(objects):
        words = _words(container)
        if _flag(words, "model-control-mode") == "poll":
            yield _finding(
                "poll-mode",
                "fail",
                item,
                "poll mode loads half-written uploads on every replica at once",
                "use --model-control-mode=none",
                "args: [--model-control-mode=none]  # beside the others, without --repository-poll-secs",
            )
        if re.search(r"--model-(repository|store)[= ](s3|gs|as)://", words):
            remedy = "verify content by digest into a private volume before Triton starts"
            yield _finding("mutable-repository", "fail", item, "Triton reads its models from a bucket that can change", remedy)


def open_admin(objects: Objects) -> Iterator[Finding]:
    """Explicit mode with open admin interfaces runs code for anybody who reaches the port."""
    for item, _, container in _containers(objects):
        words = _words(container)
        if _flag(words, "model-control-mode") == "explicit" and "--http-restricted-api" not in words:
            remedy = "use --model-control-mode=none, or restrict the interfaces on HTTP and gRPC"
            yield _finding("open-admin", "fail", item, "anybody who reaches the port can load a model, which is code", remedy)


def static_keys(objects: Objects) -> Iterator[Finding]:
    """Long-lived cloud keys in a Secret or in the environment outlive the pod and everybody's memory."""
    remedy = "give the service account a cloud identity instead (workload identity)"
    for item in _of(objects, "Secret"):
        keys = [k for part in ("data", "stringData") for k in (item.get(part) or {}) if _SECRET_WORDS.search(k)]
        if keys:
            yield _finding("static-keys", "fail", item, f"it holds static cloud keys ({', '.join(keys)})", remedy)
    for item, _, container in _containers(objects):
        if any(_SECRET_WORDS.search(str(e.get("name", ""))) for e in container.get("env") or []):
            yield _finding("static-keys", "fail", item, "static cloud keys stand in the container's environment", remedy)


def health_is_not_ready(objects: Objects) -> Iterator[Finding]:
    """/v2/health/ready says 400 during a good swap and 200 with a dead backend."""
    for item, _, container in _containers(objects):
        for probe in ("readinessProbe", "livenessProbe"):
            if ((container.get(probe) or {}).get("httpGet") or {}).get("path", "").rstrip("/") == "/v2/health/ready":
                message = f"{probe} asks /v2/health/ready, which stays 200 with a dead backend"
                yield _finding("health-is-not-ready", "warn", item, message, "probe with a real inference")


def short_grace(objects: Objects) -> Iterator[Finding]:
    """A pod that is killed before Triton has finished loses what it accepted."""
    for item, pod, container in _containers(objects):
        exit_s = _number(_flag(_words(container), "exit-timeout-secs"))
        if exit_s is None:
            continue
        command = (((container.get("lifecycle") or {}).get("preStop") or {}).get("exec") or {}).get("command") or []
        pause_s = _number(command[-1]) if command[:1] == ["sleep"] else None
        grace_s = float(pod.get("terminationGracePeriodSeconds", 30))
        if grace_s <= exit_s + (pause_s or 0.0):
            message = f"{grace_s:g} s of grace do not cover preStop ({pause_s or 0:g} s) and Triton's exit timeout ({exit_s:g} s)"
            fix = f"spec:\n  template:\n    spec:\n      terminationGracePeriodSeconds: {exit_s + (pause_s or 0.0) + 10:g}"
            yield _finding("short-grace", "fail", item, message, "raise terminationGracePeriodSeconds", fix)
        if not command:
            yield _finding("no-pause-before-stop", "warn", item, "traffic still arrives when Triton stops", "add a preStop pause", _PAUSE_FIX)


def unpinned_image(objects: Objects) -> Iterator[Finding]:
    """A tag can mean another server tomorrow."""
    for item, pod in _pods(objects):
        for container in [*(pod.get("initContainers") or []), *(pod.get("containers") or [])]:
            if "@sha256:" not in str(container.get("image", "")):
                message = f"the image of {container.get('name', '?')} is not pinned by digest"
                yield _finding("unpinned-image", "warn", item, message, "write NAME@sha256:…")


def blocked_drain(objects: Objects) -> Iterator[Finding]:
    """A budget that allows no disruption keeps a node from ever being drained."""
    for item in _of(objects, "PodDisruptionBudget"):
        spec = _spec(item)
        if spec.get("minAvailable") == "100%" or spec.get("maxUnavailable") in (0, "0", "0%"):
            yield _finding(
                "blocked-drain", "warn", item, "no pod may ever be moved off its node", "set maxUnavailable: 1", "spec:\n  maxUnavailable: 1"
            )


def _number(value: Any) -> float | None:
    """A plain number or a Kubernetes quantity in thousandths."""
    text = str(value)
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(m?)", text)
    return float(match[1]) / (1000 if match[2] else 1) if match else None


RULES: dict[str, Callable[[Objects], Iterator[Finding]]] = {
    "removed-api": removed_api,
    "replicas-beside-autoscaler": replicas_beside_autoscaler,
    "two-autoscalers": two_autoscalers,
    "null-is-zero": null_is_zero,
    "fallback-shrinks": fallback_shrinks,
    "scale-to-zero": scale_to_zero,
    "counter-delta": counter_delta,
    "floored-average": floored_average,
    "queue-target-too-fine": queue_target_too_fine,
    "busy-is-not-late": busy_is_not_late,
    "cpu-is-not-late": cpu_is_not_late,
    "mutable-repository": mutable_repository,
    "open-admin": open_admin,
    "static-keys": static_keys,
    "health-is-not-ready": health_is_not_ready,
    "short-grace": short_grace,
    "unpinned-image": unpinned_image,
    "blocked-drain": blocked_drain,
}
