"""Which live objects belong together: KEDA's own HPA is not the autoscaler, and nothing is guessed."""

from __future__ import annotations

import pytest

from deployctl.core.advise_live import runs_triton, scaled
from deployctl.errors import NotFound, ProjectError


def workload(name: str, image: str = "nvcr.io/nvidia/tritonserver:24.10-py3") -> dict:
    metadata = {"name": name, "namespace": "prod", "uid": "1", "managedFields": [{}]}
    spec = {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec, "status": {"replicas": 2}}


def autoscaler(name: str, target: str, kind: str = "HorizontalPodAutoscaler", **metadata: object) -> dict:
    return {
        "apiVersion": "x/v1",
        "kind": kind,
        "metadata": {"name": name, **metadata},
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": target}},
    }


def test_the_autoscaler_comes_with_what_it_scales_and_without_what_the_server_wrote() -> None:
    found = scaled(
        [autoscaler("other", "web"), autoscaler("own", "embed")], [workload("embed"), workload("web", "nginx")], deployment=None, namespace="prod"
    )
    assert [item["metadata"]["name"] for item in found] == ["own", "embed"]
    assert "status" not in found[1] and "managedFields" not in found[1]["metadata"] and "uid" not in found[1]["metadata"]


def test_an_hpa_that_keda_made_gives_way_to_its_scaled_object() -> None:
    made = autoscaler("keda-hpa-own", "embed", ownerReferences=[{"kind": "ScaledObject", "name": "own"}])
    found = scaled([made, autoscaler("own", "embed", kind="ScaledObject")], [workload("embed")], deployment="embed", namespace="prod")
    assert [item["kind"] for item in found] == ["ScaledObject", "Deployment"]


def test_nothing_scales_it_is_an_answer() -> None:
    assert [item["kind"] for item in scaled([], [workload("embed")], deployment=None, namespace="prod")] == ["Deployment"]


def test_several_or_none_are_told_with_their_names() -> None:
    with pytest.raises(ProjectError) as several:
        scaled([], [workload("a"), workload("b")], deployment=None, namespace="prod")
    assert several.value.code == "deployment-ambiguous" and "a, b" in (several.value.why or "")
    with pytest.raises(NotFound) as none:
        scaled([], [workload("web", "nginx")], deployment=None, namespace="prod")
    assert none.value.code == "deployment-missing" and "web" in (none.value.why or "")
    with pytest.raises(NotFound):
        scaled([], [workload("a")], deployment="z", namespace="prod")


def test_triton_is_known_by_image_command_or_arguments() -> None:
    assert runs_triton(workload("a"))
    plain = workload("a", "ubuntu")
    assert not runs_triton(plain)
    plain["spec"]["template"]["spec"]["containers"][0]["args"] = ["exec /opt/tritonserver/bin/tritonserver"]
    assert runs_triton(plain)
