"""What the detector sees on the real API server: who answers external metrics, which nodes offer GPUs, and what one may not see."""

import pytest
from metrics_api import MetricsApi

from deployctl.adapters.kubernetes import Cluster
from deployctl.cli.main import run
from deployctl.core import addons
from deployctl.core.platform import ClusterSpec, NodePool, Platform, Pool
from deployctl.flows._addons import look

pytestmark = pytest.mark.kube
PLATFORM = Platform(name="p", pools=(Pool(nodes=NodePool(name="gpu-l4")), Pool(nodes=NodePool(name="gpu-h100"))))
HPA = ClusterSpec(pool=PLATFORM.pools[0].nodes)


def seen(plane, context="admin"):
    return look(Cluster(context, kubeconfig=str(plane.kubeconfig)), PLATFORM)


def test_nobody_answers_external_metrics_until_somebody_registers(plane, tmp_path):
    before = seen(plane)
    assert before.external is None
    assert before.pools == {"gpu-l4": addons.Nodes(total=4, offering=4), "gpu-h100": addons.Nodes(total=0, offering=0)}
    assert before.kinds["keda"] is False
    api = MetricsApi(plane, tmp_path / "metrics").start()
    try:
        server = seen(plane).external
        assert (server.name, server.available) == ("default/test-metrics", True)
        assert addons.findings(seen(plane), HPA)[0].severity == "ok"
    finally:
        api.stop()


def test_a_registered_server_that_is_gone_is_told_from_none(plane):
    spec = {"group": "external.metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "insecureSkipTLSVerify": True, "service": {"name": "keda-operator-metrics-apiserver", "namespace": "keda", "port": 443}}  # fmt: skip
    path = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.external.metrics.k8s.io"
    body = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": path.rsplit("/", 1)[-1]}, "spec": spec}
    plane.apply(path, body)
    try:
        plane.until(lambda: plane.get(path).get("status", {}).get("conditions"), "a condition")
        first = addons.findings(seen(plane), HPA)[0]
        assert first.severity == "fail"
        assert "keda/keda-operator-metrics-apiserver" in first.message
    finally:
        plane.request("DELETE", path)


def test_who_may_not_look_gets_unknown_and_not_absent(plane):
    what = seen(plane, "least")
    assert what.external == "unknown"
    assert what.pools == {}
    assert what.kinds["keda"] is False  # discovery is open to every user


def test_platform_status_and_doctor_say_what_the_cluster_has(plane, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig))
    (tmp_path / "platform.yaml").write_text("cluster: {context: admin}\npools: {gpu-l4: {device: L4}, gpu-h100: {device: H100}}\n")
    deploy = (
        'model: {source: "triton:."}\nslo: {latency: {p99: 100ms}}\ntraffic: {rate: 40/s}\nenvironments: {prod: {on: kubernetes, pool: gpu-l4}}\n'
    )
    (tmp_path / "deploy.yaml").write_text(deploy)
    assert run(["-C", str(tmp_path), "platform", "status"]) == 0
    out = capsys.readouterr().out
    assert "nobody answers external.metrics.k8s.io" in out
    assert "4 of 4 nodes offer their devices" in out
    assert "no node carries the pool's label now" in out
    run(["-C", str(tmp_path), "doctor"])
    seen = capsys.readouterr().out
    assert "prod: external metrics" in seen
    assert "install a metrics adapter" in seen


def test_plan_shows_device_cost_and_what_the_cluster_lacks(cluster_project):
    project = cluster_project
    pool = "gpu-l4: {instance: acme.gpu, device: L4, cpu: 3, memory: 12GiB, nodes: ..4}"
    price = "acme.gpu: {on_demand: 2 USD/h, source: contract 7, as_of: 2026-11-01}"
    (project.root / "platform.yaml").write_text(f"name: shared\ncluster: {{context: admin}}\npools: {{{pool}}}\npricing: {{{price}}}\n")
    project.write(replicas="1..3")
    shown = project.run("plan", "-e", "prod", "--unverified").out
    assert "on Kubernetes (L4, " in shown
    assert "48.00 USD/day for 1 node (contract 7, 2026-11-01)" in shown
    project.run("scale", "1..3", "-e", "prod", "--yes", ok=None)
    scaled = project.run("plan", "-e", "prod", "--unverified", "-o", "json").data
    assert scaled["plan"]["device"] == "L4"
    assert scaled["cost"]["start"]["per_day"] == 48.0
    project.write(replicas="1..3, cost: 10 USD/day")
    refused = project.run("plan", "-e", "prod", "--unverified", ok=(96,))
    assert "1 replica would cost 48.00 USD/day and the limit is 10" in refused.err
