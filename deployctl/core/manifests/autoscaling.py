"""The scaling policy as a standard object: HorizontalPodAutoscaler v2, or a KEDA ScaledObject that makes one.

What enters are the same values that drive the simulator and the local supervisor; what leaves is one autoscaler or none (a
fixed number needs none), and for the policy `slo` the recording rules whose result it follows. A signal of scope `replica` is
a mean over replicas, one of scope `service` a total.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from deployctl.core import kube_names, rules
from deployctl.core.decision import RateLimit, ScalingPolicy
from deployctl.core.plan import Plan
from deployctl.core.platform import ClusterSpec
from deployctl.core.policies import slo
from deployctl.core.signals import SIGNALS, query
from deployctl.errors import Refused

# What the controller-manager uses where the object names none; only another value needs the field (Kubernetes 1.35).
_CLUSTER_TOLERANCE_RATIO = 0.1
_SELECT = {"max": "Max", "min": "Min", "disabled": "Disabled"}
_WINDOW = "1m"


def metric_name(signal: str) -> str:
    """Name under which a metrics adapter serves the signal."""
    return f"deployctl_{signal}"


def autoscaler(plan: Plan, cluster: ClusterSpec) -> list[dict[str, Any]]:
    """Nothing for a fixed number; else exactly one autoscaler, after the rules that compute its metric where the policy needs them.

    Raises:
        Refused: scale to zero (`scale-to-zero-unsafe`), another law than these two (`policy-not-on-cluster`), no target
            or capacity (`scaling-target-missing`), a signal that cannot be served (`signal-not-on-cluster`), or KEDA without a
            Prometheus (`prometheus-missing`).
    """
    policy = plan.scaling
    if policy.min_replicas < 1:
        raise Refused(
            "scaling to zero would drop the request that wakes the service",
            why="nothing in front of the pods holds requests while a replica starts",
            hint="set limits.replicas to 1.. or more",
            code="scale-to-zero-unsafe",
        )
    if policy.min_replicas == policy.max_replicas:
        return []
    before: list[dict[str, Any]] = []
    if policy.policy == "slo":
        if policy.capacity_rps <= 0:
            raise _unmeasured(plan, "the rate at which one replica keeps the SLO is not known")
        before, plan = [_rules(plan, cluster)], dataclasses.replace(plan, scaling=slo.hpa_settings(policy))
    elif policy.policy != "hpa":
        raise Refused(
            f"no standard object of Kubernetes does what the policy {policy.policy!r} does",
            why="nothing of ours runs in the cluster, so a policy has to be one that compiles to rules and an HPA",
            hint="set scaling.policy to hpa or slo for this environment",
            code="policy-not-on-cluster",
        )
    metrics = [(plan.scaling.signal, plan.scaling.target), *((m.signal, m.target) for m in plan.scaling.also)]
    for signal, target in metrics:
        if target <= 0:
            raise _unmeasured(plan, f"the autoscaler has no target for {signal}")
    return [*before, _scaled_object(plan, cluster, metrics) if cluster.autoscaler == "keda" else _hpa(plan, metrics)]


def _unmeasured(plan: Plan, message: str) -> Refused:
    return Refused(
        message,
        why="it comes from `tune`, or from `scaling.target` in deploy.yaml; it is never guessed",
        hint=f"deployctl tune --env {plan.env}",
        code="scaling-target-missing",
    )


def _rules(plan: Plan, cluster: ClusterSpec) -> dict[str, Any]:
    """The policy `slo` as recording rules, for a Prometheus that the Prometheus operator runs."""
    groups = rules.groups(plan.scaling, selector=_selector(plan, cluster), labels=series(plan))
    return {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": {"name": plan.service}, "spec": {"groups": groups}}


def series(plan: Plan) -> dict[str, str]:
    """Labels that name the service on every series of ours."""
    return {"service": plan.service, "env": plan.env}


def service_selector(plan: Plan, cluster: ClusterSpec) -> str:
    """Triton's own series of this service, as a Prometheus labels them that finds the pods through the headless Service."""
    return f'namespace="{cluster.namespace}",service="{kube_names.name(plan.service, "pods")}"'


def _selector(plan: Plan, cluster: ClusterSpec) -> str:
    return f'{service_selector(plan, cluster)},model="{plan.entry}"'


def _hpa(plan: Plan, metrics: list[tuple[str, float]]) -> dict[str, Any]:
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": plan.service},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": plan.service},
            "minReplicas": plan.scaling.min_replicas,
            "maxReplicas": plan.scaling.max_replicas,
            "metrics": [_metric(plan, signal, target) for signal, target in metrics],
            "behavior": _behavior(plan.scaling),
        },
    }


def _metric(plan: Plan, signal: str, target: float) -> dict[str, Any]:
    wanted = {"type": "AverageValue", "averageValue": kube_names.quantity(target)}
    if SIGNALS[signal].scope == "replica":
        return {"type": "Pods", "pods": {"metric": {"name": metric_name(signal)}, "target": wanted}}
    metric = {"name": metric_name(signal), "selector": {"matchLabels": series(plan)}}
    return {"type": "External", "external": {"metric": metric, "target": wanted}}


def _behavior(policy: ScalingPolicy) -> dict[str, Any]:
    up: dict[str, Any] = {
        "stabilizationWindowSeconds": round(policy.scale_up_window_s),
        "selectPolicy": _SELECT[policy.up_select],
        "policies": [_limit(rule) for rule in policy.up_limits],
    }
    down: dict[str, Any] = {
        "stabilizationWindowSeconds": round(policy.scale_down_window_s),
        "selectPolicy": _SELECT[policy.down_select],
        "policies": [_limit(rule) for rule in policy.down_limits],
    }
    if policy.tolerance_ratio != _CLUSTER_TOLERANCE_RATIO:
        up["tolerance"] = down["tolerance"] = kube_names.quantity(policy.tolerance_ratio) if policy.tolerance_ratio else "0"
    return {"scaleUp": up, "scaleDown": down}


def _limit(rule: RateLimit) -> dict[str, Any]:
    return {"type": "Pods" if rule.kind == "pods" else "Percent", "value": rule.value, "periodSeconds": round(rule.period_s)}


def _scaled_object(plan: Plan, cluster: ClusterSpec, metrics: list[tuple[str, float]]) -> dict[str, Any]:
    if not cluster.prometheus:
        raise Refused(
            "KEDA has no Prometheus to ask",
            hint="name it as `prometheus:` of the cluster, or use the plain autoscaler",
            code="prometheus-missing",
        )
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": plan.service},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": plan.service},
            "pollingInterval": round(plan.scaling.sync_s),
            "minReplicaCount": plan.scaling.min_replicas,
            "maxReplicaCount": plan.scaling.max_replicas,
            # Without metrics: what the plan needs, and never fewer than run now. A missing value is no zero.
            "fallback": {
                "failureThreshold": 3,
                "replicas": min(max(plan.replicas, plan.scaling.min_replicas), plan.scaling.max_replicas),
                "behavior": "currentReplicasIfHigher",
            },
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behavior(plan.scaling)}},
            "triggers": [_trigger(plan, cluster, signal, target) for signal, target in metrics],
        },
    }


def _trigger(plan: Plan, cluster: ClusterSpec, signal: str, target: float) -> dict[str, Any]:
    selector = _selector(plan, cluster)
    text = query(signal, selector=selector, window=_WINDOW)
    if signal == "wanted_replicas":
        matchers = ",".join(f'{key}="{value}"' for key, value in sorted(series(plan).items()))
        text = f"{rules.WANTED}{{{matchers}}}"
    if text is None:
        raise Refused(
            f"Triton's own metrics cannot tell {signal}",
            hint="scale on arrivals_rps, busy_ratio or pending",
            code="signal-not-on-cluster",
        )
    if SIGNALS[signal].scope == "replica":
        # The autoscaler divides the total by the replicas; the query of a mean has to become one of the total.
        text = f"({text}) * count(count by (instance) (nv_inference_request_success{{{selector}}}))"
    return {
        "type": "prometheus",
        "metricType": "AverageValue",
        "metadata": {"serverAddress": cluster.prometheus, "query": text, "threshold": f"{target:.6g}", "ignoreNullValues": "false"},
    }
