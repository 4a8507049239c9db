"""advise --context on a real API server: it reads the HPA and the Deployment that are there, and writes nothing."""

from __future__ import annotations

import math

import pytest

from deployctl.adapters.kubernetes import Cluster
from deployctl.core.signals import query
from deployctl.errors import NotFound
from deployctl.flows.advise import Asked, advise

pytestmark = pytest.mark.kube

STEP_S, COUNT = 15.0, 240
SERVED = [30 + 15 * math.sin(i / 30) for i in range(COUNT)]


class Remembered:
    """An hour of a Triton with three replicas, as a Prometheus would tell it; the real one is tested beside `advise --prometheus`."""

    def history(self, text: str) -> list[tuple[float, float]]:
        answers = {
            "arrivals_rps": SERVED,
            "completions_rps": SERVED,
            "failures_rps": [0.0] * COUNT,
            "busy_ratio": [rate * 0.05 / 3 for rate in SERVED],
            "queue_s": [0.002] * COUNT,
            "response_s": [0.052] * COUNT,
            "replicas": [3.0] * COUNT,
        }
        name = next(n for n in answers if query(n, selector='model="embed"', window="60s") == text)
        return [(i * STEP_S, value) for i, value in enumerate(answers[name])]

    def names(self, text: str, label: str) -> list[str]:
        return ["embed"]


class Quiet:
    def step(self, message: str) -> None:
        """Nothing."""

    update = note = warn = step


def deployment(namespace: str) -> dict:
    pod = {"containers": [{"name": "triton", "image": "nvcr.io/nvidia/tritonserver:24.10-py3", "args": ["tritonserver"]}]}
    spec = {"selector": {"matchLabels": {"app": "embed"}}, "template": {"metadata": {"labels": {"app": "embed"}}, "spec": pod}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "embed-triton", "namespace": namespace}, "spec": spec}


def autoscaler(namespace: str) -> dict:
    metric = {"type": "Pods", "pods": {"metric": {"name": "nv_inference_request_rate"}, "target": {"type": "AverageValue", "averageValue": "10"}}}
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "embed-triton"}
    spec = {"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 9, "metrics": [metric]}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "embed-hpa", "namespace": namespace},
        "spec": spec,
    }


def test_the_live_hpa_is_replayed_and_nothing_is_written(plane, namespace: str) -> None:
    writer = Cluster("admin", kubeconfig=str(plane.kubeconfig))
    for item in (deployment(namespace), autoscaler(namespace)):
        writer.apply(item)
    reader = Cluster("admin", kubeconfig=str(plane.kubeconfig))
    before = reader.get("autoscaling/v2", "HorizontalPodAutoscaler", namespace, "embed-hpa")
    document = advise(Remembered(), Quiet(), Asked(slo_s=0.2, namespace=namespace), cluster=reader)
    assert document["present"]["name"] == "HorizontalPodAutoscaler/embed-hpa"
    assert [p["policy"] for p in document["replay"]["policies"]] == ["HorizontalPodAutoscaler/embed-hpa", "slo"]
    hpa = next(item for item in document["objects"] if item["kind"] == "HorizontalPodAutoscaler")
    assert hpa["spec"]["scaleTargetRef"]["name"] == "embed-triton" and hpa["metadata"]["namespace"] == namespace
    after = reader.get("autoscaling/v2", "HorizontalPodAutoscaler", namespace, "embed-hpa")
    assert before is not None and after is not None and after["spec"] == before["spec"]  # the controller writes status and replicas by itself
    assert reader.writes == 0


def test_a_namespace_without_triton_says_what_is_there(plane, namespace: str) -> None:
    with pytest.raises(NotFound) as caught:
        advise(Remembered(), Quiet(), Asked(slo_s=0.2, namespace=namespace), cluster=Cluster("admin", kubeconfig=str(plane.kubeconfig)))
    assert caught.value.code == "deployment-missing" and namespace in caught.value.message
