"""The traps that are known, each in a small object written for this test after a published chart's mistake."""

import copy

import pytest
from ruamel.yaml import YAML

from deployctl.core import lint, manifests
from deployctl.core.decision import ScalingPolicy
from deployctl.testing import kube


def hpa(api="autoscaling/v2", metric=None, **spec):
    target = {"scaleTargetRef": {"kind": "Deployment", "name": "triton"}, "minReplicas": 1, "maxReplicas": 4}
    return {"apiVersion": api, "kind": "HorizontalPodAutoscaler", "metadata": {"name": "triton"}, "spec": {**target, "metrics": metric or [], **spec}}


def pods_metric(name, value):
    return [{"type": "Pods", "pods": {"metric": {"name": name}, "target": {"type": "AverageValue", "averageValue": value}}}]


def deployment(args=(), pod=None, container=None, **spec):
    box = {"name": "triton", "image": f"t@sha256:{'0' * 64}", "args": list(args), **(container or {})}
    template = {"spec": {"containers": [box], **(pod or {})}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "triton"}, "spec": {"template": template, **spec}}


def scaled_object(metadata=None, **spec):
    trigger = {"type": "prometheus", "metadata": {"query": "sum(x)", "threshold": "1", "ignoreNullValues": "false", **(metadata or {})}}
    good = {"scaleTargetRef": {"name": "triton"}, "minReplicaCount": 1, "triggers": [trigger],
            "fallback": {"failureThreshold": 3, "replicas": 2, "behavior": "currentReplicasIfHigher"}}  # fmt: skip
    return {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "triton"}, "spec": {**good, **spec}}


def rule(expression):
    groups = [{"name": "g", "rules": [{"record": "r", "expr": expression}]}]
    return {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": {"name": "triton"}, "spec": {"groups": groups}}


# finding -> objects that have that trap and no other
CORPUS = {
    "removed-api": [hpa("autoscaling/v2beta2")],
    "queue-target-too-fine": [hpa(metric=pods_metric("avg_time_queue_us", "50"))],
    "counter-delta": [rule("avg(delta(nv_inference_queue_duration_us[30s]))")],
    "floored-average": [rule("avg(rate(a_us[30s]) / clamp_min(rate(nv_inference_request_success[30s]), 1))")],
    "busy-is-not-late": [hpa(metric=[{"type": "External", "external": {"metric": {"name": "kubernetes.io|container|accelerator|duty_cycle"}}}])],
    "cpu-is-not-late": [hpa(metric=[{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 90}}}])],
    "poll-mode": [deployment(["--model-repository=/m", "--model-control-mode=poll", "--repository-poll-secs=5"])],
    "mutable-repository": [deployment(["--model-repository=s3://bucket/models"])],
    "static-keys": [{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "aws"}, "data": {"AWS_SECRET_ACCESS_KEY": "eA=="}}],
    "null-is-zero": [scaled_object({"ignoreNullValues": "true"})],
    "replicas-beside-autoscaler": [deployment(replicas=1), hpa()],
    "two-autoscalers": [hpa(), scaled_object()],
    "fallback-shrinks": [scaled_object(fallback={"failureThreshold": 3, "replicas": 1})],
    "scale-to-zero": [scaled_object(minReplicaCount=0)],
    "open-admin": [deployment(["--model-control-mode=explicit"])],
    "health-is-not-ready": [deployment(container={"readinessProbe": {"httpGet": {"path": "/v2/health/ready", "port": 8000}}})],
    "short-grace": [deployment(["--exit-timeout-secs=30"], {"terminationGracePeriodSeconds": 40},
                               {"lifecycle": {"preStop": {"exec": {"command": ["sleep", "15"]}}}})],
    "no-pause-before-stop": [deployment(["--exit-timeout-secs=30"], {"terminationGracePeriodSeconds": 60})],
    "unpinned-image": [deployment(container={"image": "tritonserver:24.10-py3"})],
    "blocked-drain": [{"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "triton"}, "spec": {"maxUnavailable": 0}}],
}  # fmt: skip


@pytest.mark.parametrize("name", CORPUS)
def test_each_trap_is_found_and_nothing_else(name):
    found = lint.lint(CORPUS[name])
    assert [f.name for f in found] == [name]
    assert found[0].remedy
    assert found[0].severity in ("warn", "fail")
    assert found[0].where


@pytest.mark.parametrize("name", ["removed-api", "null-is-zero", "fallback-shrinks", "scale-to-zero", "short-grace", "blocked-drain"])
def test_a_fix_merged_into_its_object_ends_the_finding(name):
    objects = copy.deepcopy(CORPUS[name])
    (found,) = lint.lint(objects)
    merge(objects[0], YAML(typ="safe").load(found.fix))
    assert lint.lint(objects) == []


def merge(into, what):
    """As a strategic merge of maps; lists by position."""
    for key, value in what.items() if isinstance(what, dict) else enumerate(what):
        if isinstance(value, (dict, list)) and isinstance(into.get(key) if isinstance(into, dict) else into[key], (dict, list)):
            merge(into[key], value)
        else:
            into[key] = value


def test_every_rule_has_an_object_that_it_finds():
    silent = [name for name, check in lint.RULES.items() if not any(list(check(objects)) for objects in CORPUS.values())]
    assert silent == []


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        ([hpa("autoscaling/v2beta1")], "removed-api"),
        ([rule("delta(nv_inference_queue_duration_us[30s]) / (1 + delta(nv_inference_request_success[30s]))")], "floored-average"),
        ([rule("idelta(nv_inference_request_success[1m])")], "counter-delta"),
        ([scaled_object(triggers=[{"type": "prometheus", "metadata": {"query": "x"}}])], "null-is-zero"),
        ([{k: v for k, v in scaled_object().items()} | {"spec": {"scaleTargetRef": {"name": "t"}, "triggers": []}}], "scale-to-zero"),
        ([deployment(["--model-store", "gs://bucket/m"])], "mutable-repository"),
        ([deployment(container={"env": [{"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}]})], "static-keys"),
        ([deployment(["--exit-timeout-secs=30"])], "short-grace"),
        ([hpa(metric=[{"type": "Pods", "pods": {"metricName": "avg_time_queue_us", "targetAverageValue": "50"}}])], "queue-target-too-fine"),
    ],
)
def test_other_spellings_are_found(variant, name):
    assert name in [f.name for f in lint.lint(variant)]


@pytest.mark.parametrize(
    "harmless",
    [
        [hpa(metric=pods_metric("deployctl_busy_ratio", "700m")), deployment()],
        [scaled_object(), deployment()],
        [rule("rate(nv_inference_queue_duration_us[1m]) / rate(nv_inference_request_success[1m])")],
        [rule("delta(nv_inference_pending_request_count[1m])")],  # a gauge
        [deployment(["--model-repository=/models", "--model-control-mode=none"])],
        [deployment(replicas=3)],
        [{"kind": "Secret", "metadata": {"name": "tls"}, "data": {"tls.crt": "eA=="}}],
        [{"kind": "Deployment", "metadata": {}, "spec": None}, {"kind": "HorizontalPodAutoscaler"}],
        [],
    ],
)
def test_sound_objects_are_left_alone(harmless):
    assert lint.lint(copy.deepcopy(harmless)) == []


@pytest.mark.parametrize("autoscaler", ["fixed", "hpa", "keda"])
def test_our_own_objects_have_no_finding(autoscaler):
    packed = kube.bundle()
    scaling = ScalingPolicy(min_replicas=2, max_replicas=2 if autoscaler == "fixed" else 8, target=0.7, signal="busy_ratio")
    cluster = {"autoscaler": "keda", "prometheus": "http://p:9090"} if autoscaler == "keda" else {}
    assert lint.lint(manifests.objects(kube.inputs(packed, kube.plan(packed, scaling=scaling, cluster=cluster)))) == []


# Whole charts, written for this test after what facts are known of published ones: what each gets wrong, and nothing else.
PUBLISHED = {
    "on-premises chart: a removed API, a queue target of 50 us, and delta() of counters over one plus delta()": (
        [
            hpa("autoscaling/v2beta2", metric=pods_metric("avg_time_queue_us", "50")),
            rule("avg(delta(nv_inference_queue_duration_us[30s]) / (1 + delta(nv_inference_request_success[30s])))"),
            deployment(["--model-repository=/models"]),
        ],
        {"removed-api", "queue-target-too-fine", "counter-delta", "floored-average"},
    ),
    "language model tutorial: queue over compute with averages over at least one request a second": (
        [
            hpa(metric=pods_metric("triton:queue_compute:ratio", "1")),
            rule("sum(rate(nv_inference_queue_duration_us[1m])) / clamp_min(sum(rate(nv_inference_request_success[1m])), 1)"),
            rule("rate(nv_inference_compute_infer_duration_us[1m]) / clamp_min(rate(nv_inference_request_success[1m]), 1)"),
            deployment(replicas=1),
        ],
        {"floored-average", "replicas-beside-autoscaler"},
    ),
    "marketplace chart: duty cycle 85": (
        [
            hpa(
                metric=[
                    {
                        "type": "External",
                        "external": {
                            "metric": {"name": "kubernetes.io|container|accelerator|duty_cycle"},
                            "target": {"type": "AverageValue", "averageValue": 85},
                        },
                    }
                ]
            ),
            deployment(),
        ],
        {"busy-is-not-late"},
    ),
    "cloud charts: polling a bucket with static keys": (
        [
            deployment(["--model-store=s3://bucket/models", "--model-control-mode=poll", "--repository-poll-secs=5"]),
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "aws"}, "stringData": {"AWS_SECRET_ACCESS_KEY": "x"}},
        ],
        {"poll-mode", "mutable-repository", "static-keys"},
    ),
    "KEDA example: a missing metric is zero, and nothing is said for when there is none": (
        [scaled_object({"ignoreNullValues": None}, fallback=None), deployment(replicas=2)],
        {"null-is-zero", "fallback-shrinks", "replicas-beside-autoscaler"},
    ),
}


@pytest.mark.parametrize("chart", PUBLISHED)
def test_each_published_mistake_is_found(chart):
    objects, expected = PUBLISHED[chart]
    assert {f.name for f in lint.lint(objects)} == expected
