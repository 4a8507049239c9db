"""What a cluster has, from documents of its API: who answers external metrics decides which autoscaler can read them."""

import dataclasses

from deployctl.core import addons
from deployctl.core.platform import ClusterSpec, NodePool, Platform, Pool

POOL = NodePool(name="gpu-l4")
PLATFORM = Platform(name="p", pools=(Pool(nodes=POOL),))
HPA = ClusterSpec(pool=POOL)
KEDA = dataclasses.replace(HPA, autoscaler="keda", prometheus="http://p:9090")


def service(name="metrics/adapter", status="True", message=""):
    namespace, name = name.split("/")
    return {
        "spec": {"service": {"namespace": namespace, "name": name}},
        "status": {"conditions": [{"type": "Available", "status": status, "message": message}]},
    }


def node(pool="gpu-l4", gpus="1"):
    return {"metadata": {"labels": {"deployctl/pool": pool}}, "status": {"allocatable": {"nvidia.com/gpu": gpus}}}


def answers(**changes):
    groups = {"groups": [{"name": n} for n in ("apps", "keda.sh", "monitoring.coreos.com")]}
    return {"external": service(), "custom": None, "resource": None, "groups": groups, "nodes": {"items": [node()]}, **changes}


def found(**changes):
    return addons.found(answers(**changes), PLATFORM)


def rows(what, cluster=HPA):
    return {f.name: (f.severity, f.message, f.remedy) for f in addons.findings(what, cluster)}


def test_an_adapter_that_answers_is_named():
    assert rows(found())["external metrics"] == ("ok", "external.metrics.k8s.io is answered by metrics/adapter", "")


def test_a_plain_hpa_beside_keda_is_warned_of():
    what = found(external=service("keda/keda-operator-metrics-apiserver"))
    severity, message, remedy = rows(what)["external metrics"]
    assert severity == "warn" and "keda/keda-operator" in message and "kind: keda" in remedy
    assert rows(what, KEDA)["external metrics"][0] == "ok"


def test_nobody_and_unknown_are_different_answers():
    assert "nobody answers" in rows(found(external=None))["external metrics"][1]
    assert "unknown who answers" in rows(found(external="unknown"))["external metrics"][1]
    assert {s for s, _, _ in (rows(found(external=x))["external metrics"] for x in (None, "unknown"))} == {"warn"}


def test_an_adapter_that_is_down_fails():
    severity, message, _ = rows(found(external=service(status="False", message="no endpoints")))["external metrics"]
    assert severity == "fail" and "no endpoints" in message


def test_keda_is_missed_where_it_is_to_scale():
    assert rows(found(), KEDA)["keda"][0] == "ok"
    assert rows(found(groups={"groups": []}), KEDA)["keda"][0] == "fail"
    assert rows(found(groups="unknown"), KEDA)["keda"][0] == "warn"


def test_nodes_that_offer_no_device_are_seen():
    assert rows(found())["pool gpu-l4"][:2] == ("ok", "1 of 1 nodes offer their devices")
    assert rows(found(nodes={"items": [node(gpus="0"), node()]}))["pool gpu-l4"][1] == "1 of 2 nodes offer their devices"
    assert "none offers" in rows(found(nodes={"items": [node(gpus="0")]}))["pool gpu-l4"][1]
    assert "no node carries" in rows(found(nodes={"items": [node("other")]}))["pool gpu-l4"][1]
    assert "pool gpu-l4" not in rows(found(nodes="unknown"))


def test_every_warning_has_a_remedy():
    for what in (found(external=None), found(external="unknown"), found(external=service(status="False")), found(nodes={"items": []})):
        assert all(f.remedy for f in addons.findings(what, HPA) if f.severity != "ok")
