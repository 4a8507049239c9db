"""The rendered HPA under the real kube-controller-manager: it reads our metric names and moves the Deployment."""

import pytest
from metrics_api import MetricsApi

from deployctl.core.decision import RateLimit, ScalingPolicy

pytestmark = pytest.mark.kube
FAST = (RateLimit(kind="percent", value=900, period_s=1.0),)


@pytest.fixture(scope="module")
def metrics(plane, tmp_path_factory):
    api = MetricsApi(plane, tmp_path_factory.mktemp("metrics") / "tls")
    yield api.start()
    api.stop()


def policy(signal, target):
    return ScalingPolicy(
        min_replicas=2, max_replicas=8, target=target, signal=signal, tolerance_ratio=0.1, scale_down_window_s=0.0, up_limits=FAST, down_limits=FAST
    )


def test_arrivals_of_the_whole_service_move_the_replicas(service, metrics):
    packed, made = service.plan(scaling=policy("arrivals_rps", 10.0), replicas=2)
    metrics.external["deployctl_arrivals_rps"] = 20.0
    service.up(packed, made)
    service.wait(made)
    for rate_rps, replicas in ((38.0, 4), (75.0, 8), (500.0, 8), (31.0, 4), (1.0, 2)):
        metrics.external["deployctl_arrivals_rps"] = rate_rps
        service.plane.until(lambda n=replicas: service.live("deployments")["spec"]["replicas"] == n, f"{replicas} replicas at {rate_rps}/s")
    assert service.wait(made).ready == 2
    assert any("deployctl_arrivals_rps" in path for path in metrics.asked)


def test_a_mean_over_replicas_moves_them_too(service, metrics):
    packed, made = service.plan(scaling=policy("busy_ratio", 0.5), replicas=2)
    service.up(packed, made)
    service.wait(made)

    def report(value):
        pods = service.plane.get(f"/api/v1/namespaces/{service.namespace}/pods")["items"]
        metrics.pods["deployctl_busy_ratio"] = {p["metadata"]["name"]: value for p in pods}

    report(0.95)
    service.plane.until(lambda: service.live("deployments")["spec"]["replicas"] == 4, "4 replicas")
    service.wait(made)
    report(0.5)
    hpa = service.live("horizontalpodautoscalers", group="/apis/autoscaling/v2")
    assert hpa["spec"]["metrics"][0]["type"] == "Pods"


def test_a_metric_that_vanishes_never_scales_down(service, metrics):
    packed, made = service.plan(scaling=policy("arrivals_rps", 10.0), replicas=5)
    metrics.external["deployctl_arrivals_rps"] = 50.0
    service.up(packed, made)
    service.wait(made)
    metrics.external["deployctl_arrivals_rps"] = None

    def blind():
        conditions = service.live("horizontalpodautoscalers", group="/apis/autoscaling/v2").get("status", {}).get("conditions", [])
        return any(c["type"] == "ScalingActive" and c["status"] == "False" for c in conditions)

    service.plane.until(blind, "an autoscaler that says it is blind")
    assert service.live("deployments")["spec"]["replicas"] == 5


def test_an_apply_beside_a_working_autoscaler_writes_nothing_and_keeps_its_number(service, metrics):
    packed, made = service.plan(scaling=policy("arrivals_rps", 10.0), replicas=2)
    metrics.external["deployctl_arrivals_rps"] = 60.0
    release, _ = service.up(packed, made)
    service.plane.until(lambda: service.live("deployments")["spec"]["replicas"] == 6, "6 replicas")
    assert service.up(packed, made, release)[1] == 0
    other, next_plan = service.plan(b"two", scaling=policy("arrivals_rps", 10.0), replicas=2)
    service.up(other, next_plan)
    assert service.live("deployments")["spec"]["replicas"] == 6  # a roll-out does not reset what traffic needs
    assert service.wait(next_plan).ready == 6


@pytest.fixture(scope="module")
def rule_kind(plane):
    """The kind PrometheusRule as its operator registers it, but with an open schema: no Prometheus runs here."""
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    names = {"plural": "prometheusrules", "singular": "prometheusrule", "kind": "PrometheusRule", "listKind": "PrometheusRuleList"}
    versions = [{"name": "v1", "served": True, "storage": True, "schema": schema}]
    spec = {"group": "monitoring.coreos.com", "scope": "Namespaced", "names": names, "versions": versions}
    meta = {"name": "prometheusrules.monitoring.coreos.com"}
    body = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": meta, "spec": spec}
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/prometheusrules.monitoring.coreos.com"
    plane.apply(path, body)
    plane.until(lambda: plane.request("GET", "/apis/monitoring.coreos.com/v1/prometheusrules")[0] == 200, "the kind PrometheusRule")
    yield
    plane.request("DELETE", path)


def test_the_slo_policys_number_is_followed_exactly_and_its_rules_are_pruned(service, metrics, rule_kind):
    slo = ScalingPolicy(policy="slo", min_replicas=2, max_replicas=9, capacity_rps=25.0, start_up_s=1.0, sync_s=1.0)
    packed, made = service.plan(scaling=slo, replicas=2)
    metrics.external["deployctl_wanted_replicas"] = 2.0
    release, _ = service.up(packed, made)
    service.wait(made)
    for wanted, replicas in ((7.0, 7), (8.0, 8), (3.0, 3), (40.0, 9)):
        metrics.external["deployctl_wanted_replicas"] = wanted
        service.plane.until(lambda n=replicas: service.live("deployments")["spec"]["replicas"] == n, f"{wanted:g} replicas")
    assert service.up(packed, made, release)[1] == 0
    group = "/apis/monitoring.coreos.com/v1"
    assert service.live("prometheusrules", group=group)["spec"]["groups"]
    _, fixed = service.plan()
    service.up(packed, fixed)
    assert service.live("prometheusrules", group=group) is None
