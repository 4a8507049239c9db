"""Plan to objects: the whole output against golden files, and each promise of the pod by itself."""

import dataclasses
import io
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from deployctl.core import alerts, codec, collector, kube_names, manifests
from deployctl.core.decision import MetricTarget, RateLimit, ScalingPolicy
from deployctl.core.manifests import workload
from deployctl.core.plan import Plan
from deployctl.core.platform import ClusterSpec, NodePool, Telemetry
from deployctl.errors import Bug, Refused
from deployctl.testing import kube

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "manifests"
FIXED = ScalingPolicy(min_replicas=3, max_replicas=3)


def built(**changes):
    packed = kube.bundle()
    return manifests.objects(kube.inputs(packed, kube.plan(packed, **changes)))


def one(items, kind, name=None):
    found = [o for o in items if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    assert len(found) == 1
    return found[0]


def pod(items):
    return one(items, "Deployment")["spec"]["template"]["spec"]


CASES = {
    "hpa": lambda: built(),
    "fixed": lambda: built(scaling=FIXED),
    "keda": lambda: built(
        cluster={"autoscaler": "keda", "prometheus": "http://prometheus.monitoring:9090"},
        scaling=ScalingPolicy(min_replicas=2, max_replicas=9, target=0.6, signal="busy_ratio", also=(MetricTarget(signal="pending", target=4.0),)),
    ),
    "observed": lambda: observed(),
    "unresolved": lambda: manifests.objects(kube.inputs(None, kube.plan(None, cluster={"image": None, "store": None}, scaling=FIXED))),
}


@pytest.mark.parametrize("case", CASES)
def test_golden(case, pytestconfig):
    # The scripts stand in the ConfigMap as they are shipped; the golden file names them by digest so that it stays readable.
    items = CASES[case]()
    record = next(i for i in items if i.get("immutable"))
    for script in workload.SCRIPTS:
        record["data"][script] = "(deployctl/templates/kube)\n"
    for item in (i for i in items if i["metadata"]["name"] == "echo-dashboard"):
        item["data"] = {name: "(infra/dashboards)\n" for name in item["data"]}
    name = record["metadata"]["name"]
    text = kube_names.yaml_documents(items).replace(name, f"{name.rpartition('-')[0]}-CONTENT")
    path = GOLDEN / f"{case}.yaml"
    if pytestconfig.getoption("update_snapshots", False):  # `make golden`
        path.write_text(text)
    assert text == path.read_text()


def test_the_image_is_kept_on_every_node_of_the_pool_where_that_is_asked_for():
    items = built(cluster={"image_prepull": True})
    (held,) = [i for i in items if i["kind"] == "DaemonSet"]
    pod, main = held["spec"]["template"], next(i for i in items if i["kind"] == "Deployment")["spec"]
    for key in ("nodeSelector", "tolerations", "serviceAccountName"):
        assert pod["spec"][key] == main["template"]["spec"][key]
    assert pod["spec"]["containers"][0]["image"] == main["template"]["spec"]["containers"][0]["image"]
    # No Service, policy or budget of the service counts its pods.
    chosen = [i["spec"][k] for i in items for k in ("selector", "podSelector") if k in i.get("spec", {}) and i["kind"] != "DaemonSet"]
    for wanted in [c.get("matchLabels", c) for c in chosen]:
        assert not wanted.items() <= pod["metadata"]["labels"].items()
    assert [i for i in built(cluster={"image_prepull": True, "image": None}) if i["kind"] == "DaemonSet"] == []


def test_serialised_twice_is_the_same_bytes():
    assert kube_names.yaml_documents(built()) == kube_names.yaml_documents(built())


def test_inputs_survive_the_codec():
    given_ = kube.inputs()
    text = codec.dumps(given_)
    again = codec.loads(manifests.Inputs, text)
    assert again == given_
    assert codec.dumps(again) == text
    assert manifests.objects(again) == manifests.objects(given_)


def test_a_plan_without_cluster_keeps_its_digest():
    bare = dataclasses.replace(kube.plan(kube.bundle()), cluster=None, target="local")
    assert "cluster" not in codec.to_data(bare)
    assert codec.loads(Plan, codec.dumps(bare)) == bare


def test_every_object_is_labelled_owned_and_in_its_namespace():
    for item in built():
        meta = item["metadata"]
        assert meta["namespace"] == "team-a"
        assert meta["labels"]["app.kubernetes.io/managed-by"] == "deployctl"
        assert meta["annotations"][kube_names.OWNER] == "echo/prod"
        assert meta["annotations"][kube_names.WRITER] == "apply"
        assert kube_names.UNRESOLVED not in meta["annotations"]


def test_nothing_unresolved_can_be_pulled_or_started():
    items = CASES["unresolved"]()
    assert {o["metadata"]["annotations"][kube_names.UNRESOLVED] for o in items} == {"bundle,image,store"}
    image = pod(items)["containers"][0]["image"]
    assert image.split("/")[0].endswith(".invalid")
    assert '"bundle": null' in one(items, "ConfigMap")["data"]["release.json"]


def test_the_bundle_in_the_config_map_hashes_to_the_digest_of_the_plan():
    packed = kube.bundle()
    data = one(manifests.objects(kube.inputs(packed)), "ConfigMap")["data"]
    assert kube.digest(data["bundle.json"].encode()) == packed.digest


def test_another_release_means_another_config_map_and_other_pods():
    first, second = (manifests.objects(kube.inputs(kube.bundle({"model.py": text}))) for text in (b"one", b"two"))
    names = [one(o, "ConfigMap")["metadata"]["name"] for o in (first, second)]
    assert names[0] != names[1]
    assert [next(v for v in pod(o)["volumes"] if v["name"] == "release")["configMap"]["name"] for o in (first, second)] == names


def test_replicas_are_left_out_exactly_where_an_autoscaler_owns_them():
    assert "replicas" not in one(built(), "Deployment")["spec"]
    fixed = built(scaling=FIXED)
    assert one(fixed, "Deployment")["spec"]["replicas"] == 3
    assert not [o for o in fixed if o["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")]


def test_the_pod_is_locked_down():
    spec = pod(built())
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in (*spec["initContainers"], *spec["containers"]):
        security = container["securityContext"]
        assert security == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
    models = next(m for m in spec["containers"][0]["volumeMounts"] if m["name"] == "models")
    assert models["readOnly"] is True
    assert not [v for v in spec["volumes"] if "secret" in v or "hostPath" in v]


@given(limit_s=st.floats(0.001, 60), age_s=st.floats(1, 300), known_s=st.floats(0, 300), longest_s=st.none() | st.floats(0.1, 600))
def test_a_leaving_pod_has_time_for_all_it_accepted(limit_s, age_s, known_s, longest_s):
    packed = kube.bundle()
    made = kube.plan(packed, cluster={"grpc_connection_age_s": age_s, "address_age_s": known_s, "longest_request_s": longest_s})
    slo = dataclasses.replace(made.slo, objectives=(dataclasses.replace(made.slo.latency, max=limit_s),))
    made = dataclasses.replace(made, slo=slo)
    spec = pod(manifests.objects(kube.inputs(packed, made)))
    container = spec["containers"][0]
    slept_s = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    exit_s = next(int(a.rpartition("=")[2]) for a in container["args"] if a.startswith("--exit-timeout-secs"))
    longest = longest_s or max(5.0, 10 * limit_s)
    assert slept_s >= max(age_s, known_s) + longest  # until then a client may connect to it again
    assert exit_s > longest
    assert spec["terminationGracePeriodSeconds"] > slept_s + exit_s


def test_every_probe_is_an_inference_and_outlasts_its_canary():
    items = built()
    timeout_s = yaml.safe_load(one(items, "ConfigMap")["data"]["request.json"])["timeout_s"]
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = pod(items)["containers"][0][name]
        assert probe["exec"]["command"][:2] == ["python3", "/deployctl/probe.py"]
        assert timeout_s < probe["timeoutSeconds"] <= probe["periodSeconds"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"scaling": ScalingPolicy(min_replicas=0, max_replicas=3, target=1.0)}, "scale-to-zero-unsafe"),
        ({"scaling": ScalingPolicy(min_replicas=1, max_replicas=3)}, "scaling-target-missing"),
        ({"scaling": ScalingPolicy(policy="other", min_replicas=1, max_replicas=3, target=1.0)}, "policy-not-on-cluster"),
        ({"scaling": ScalingPolicy(policy="slo", min_replicas=1, max_replicas=3)}, "scaling-target-missing"),
        ({"cluster": {"autoscaler": "keda"}}, "prometheus-missing"),
        ({"triton_version": "2.50.0"}, "triton-too-old"),
        ({"cluster": None, "target": "local", "no_cluster": True}, "not-kubernetes"),
    ],
)
def test_refusals(changes, code):
    packed = kube.bundle()
    bare = changes.pop("no_cluster", False)
    made = kube.plan(packed, **{k: v for k, v in changes.items() if v is not None})
    if bare:
        made = dataclasses.replace(made, cluster=None)
    with pytest.raises(Refused) as caught:
        manifests.objects(kube.inputs(packed, made))
    assert caught.value.code == code
    assert caught.value.exit_code == 5


def test_keda_refuses_a_signal_that_triton_does_not_count():
    policy = ScalingPolicy(min_replicas=1, max_replicas=3, target=0.1, signal="latency_p99_s")
    with pytest.raises(Refused) as caught:
        built(cluster={"autoscaler": "keda", "prometheus": "http://p:9090"}, scaling=policy)
    assert caught.value.code == "signal-not-on-cluster"


def test_a_file_list_that_no_config_map_holds_is_refused():
    packed = kube.bundle({f"part-{i:05}.bin": str(i).encode() for i in range(6000)})
    with pytest.raises(Refused) as caught:
        manifests.objects(kube.inputs(packed))
    assert caught.value.code == "configmap-too-big"


def test_a_bundle_that_the_plan_does_not_name_is_a_bug():
    with pytest.raises(Bug):
        manifests.objects(dataclasses.replace(kube.inputs(), bundle=kube.bundle({"model.py": b"other"})))


SLO_POLICY = ScalingPolicy(policy="slo", min_replicas=2, max_replicas=9, capacity_rps=25.0, start_up_s=40.0)


def test_the_slo_policy_becomes_rules_and_an_hpa_that_follows_their_result():
    items = built(scaling=SLO_POLICY)
    assert [o["kind"] for o in items[-2:]] == ["PrometheusRule", "HorizontalPodAutoscaler"]
    records = [r["record"] for g in items[-2]["spec"]["groups"] for r in g["rules"]]
    assert records[-2:] == ["deployctl:wanted_replicas", "deployctl:followed_replicas"]
    assert {tuple(sorted(r["labels"].items()))[:1] for g in items[-2]["spec"]["groups"] for r in g["rules"]} == {(("env", "prod"),)}
    spec = items[-1]["spec"]
    assert spec["metrics"][0]["external"]["metric"] == {
        "name": "deployctl_wanted_replicas",
        "selector": {"matchLabels": {"service": "echo", "env": "prod"}},
    }
    assert spec["metrics"][0]["external"]["target"]["averageValue"] == "1"
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 9)


def test_keda_reads_the_result_of_the_rules():
    items = built(scaling=SLO_POLICY, cluster={"autoscaler": "keda", "prometheus": "http://p:9090"})
    trigger = one(items, "ScaledObject")["spec"]["triggers"][0]["metadata"]
    assert trigger["query"] == 'deployctl:wanted_replicas{env="prod",service="echo"}'
    assert trigger["ignoreNullValues"] == "false"


def test_behaviour_says_what_the_policy_says():
    policy = ScalingPolicy(
        min_replicas=1,
        max_replicas=8,
        target=0.1,
        signal="pending",
        tolerance_ratio=0.02,
        scale_down_window_s=90.0,
        up_limits=(RateLimit(kind="percent", value=50, period_s=30.0),),
        up_select="min",
    )
    spec = one(built(scaling=policy), "HorizontalPodAutoscaler")["spec"]
    assert spec["metrics"][0]["external"]["target"] == {"type": "AverageValue", "averageValue": "100m"}
    assert spec["behavior"]["scaleUp"]["policies"] == [{"type": "Percent", "value": 50, "periodSeconds": 30}]
    assert spec["behavior"]["scaleUp"]["selectPolicy"] == "Min"
    assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 90
    assert spec["behavior"]["scaleUp"]["tolerance"] == "20m"


def test_identity_and_pull_secrets_come_from_the_cluster_spec():
    items = built(cluster={"identity": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/r"}, "pull_secrets": ("regcred",)})
    account = one(items, "ServiceAccount")
    assert account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"] == "arn:aws:iam::1:role/r"
    assert account["imagePullSecrets"] == [{"name": "regcred"}]


def test_a_cpu_pool_asks_for_no_gpu():
    pool = NodePool(name="cpu", gpu_resource=None, taint=None)
    spec = pod(built(cluster={"pool": pool}))
    assert set(spec["containers"][0]["resources"]["limits"]) == {"memory"}
    assert "tolerations" not in spec


def test_the_spec_has_no_field_that_nothing_reads():
    # A setting that changes no object would be a promise without a deed; `context` alone is for whoever connects.
    packed = kube.bundle()
    base = manifests.objects(kube.inputs(packed))
    other = {
        "namespace": "other", "image": kube.IMAGE.replace("a1", "b2"), "pull_secrets": ("x",), "secrets": ("y",), "store": "s3://else",
        "store_region": "eu-west-1",
        "store_endpoint": "http://store:9000", "identity": {"a/b": "c"}, "metrics_namespace": "prom", "longest_request_s": 99.0,
        "grpc_connection_age_s": 77.0, "address_age_s": 88.0, "shm_bytes": 1 << 30, "pool": NodePool(name="other"),
        "telemetry": Telemetry(operator=True), "image_prepull": True,
    }  # fmt: skip
    unread = {"context", "autoscaler", "prometheus"}  # the last two are seen in the golden case `keda`
    assert set(other) | unread == {f.name for f in dataclasses.fields(ClusterSpec)}
    for field, value in other.items():
        assert manifests.objects(kube.inputs(packed, kube.plan(packed, cluster={field: value}))) != base, field


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=20)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | TEXT
    | st.sampled_from(["no", "1e3", "010", "12:30", "~", "- a", "a: b", "x\ny\n", " x\n", "#", ""]),
    lambda inner: st.lists(inner.filter(lambda v: not isinstance(v, list)), max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(TEXT, VALUES, min_size=1, max_size=4))
def test_yaml_reads_back_in_both_yaml_versions(value):
    text = kube_names.yaml_text(value)
    assert yaml.safe_load(text) == value
    assert YAML(typ="safe", pure=True).load(io.StringIO(text)) == value


@given(st.lists(st.from_regex(r"[a-z]([a-z0-9-]{0,80}[a-z0-9])?", fullmatch=True), min_size=1, max_size=3))
def test_names_fit_and_differ(parts):
    text = kube_names.name(*parts)
    assert len(text) <= 63
    assert text != kube_names.name(*parts, "x")


@pytest.mark.parametrize("bad", ["", "-a", "A", "a_b", "9a", "a-"])
def test_bad_names_are_refused(bad):
    with pytest.raises(ValueError, match="name"):
        kube_names.name(bad)


@given(st.text(max_size=100))
def test_label_values_are_valid(text):
    value = kube_names.label_value(text)
    assert len(value) <= 63
    assert value[0].isalnum() and value[-1].isalnum()


OBSERVED = Telemetry(operator=True, dashboard=True, collector=kube.IMAGE, forward="http://tempo.monitoring:4318")


def observed(**changes):
    return built(cluster={"telemetry": OBSERVED}, **{"trace_ratio": 0.01, **changes})


def test_nothing_is_watched_unasked():
    assert {i["kind"] for i in built()} & {"ServiceMonitor", "PrometheusRule"} == set()
    assert not any("--trace-config" in a for a in pod(built(trace_ratio=0.01))["containers"][0]["args"])


def test_the_collectors_pods_are_none_of_the_services_pods():
    items = observed()
    selector = kube_names.selector(kube.plan(kube.bundle()))
    collector = next(i for i in items if i["metadata"]["name"] == "echo-collector" and i["kind"] == "Deployment")
    labels = collector["spec"]["template"]["metadata"]["labels"]
    assert not selector.items() <= labels.items()
    assert collector["spec"]["selector"]["matchLabels"] == labels
    service = next(i for i in items if i["metadata"]["name"] == "echo-collector" and i["kind"] == "Service")
    assert service["spec"]["selector"] == labels


def test_triton_traces_the_share_that_the_plan_allows_and_may_reach_the_collector():
    items = observed()
    triton = next(i for i in items if i["kind"] == "Deployment" and i["metadata"]["name"] == "echo")["spec"]["template"]["spec"]["containers"][0]
    assert "--trace-config=rate=100" in triton["args"]
    assert "--trace-config=opentelemetry,url=http://echo-collector:4318/v1/traces" in triton["args"]
    allow = next(i for i in items if i["kind"] == "NetworkPolicy" and i["metadata"]["name"] == "echo-allow")
    assert any(rule["ports"] == [{"port": 4318, "protocol": "TCP"}] for rule in allow["spec"]["egress"])
    off = observed(trace_ratio=0.0)
    assert not any("trace-config" in str(i) for i in off if i["kind"] == "Deployment")
    assert "latency" not in str(next(i for i in off if i["metadata"]["name"] == "echo-alerts"))


def test_another_configuration_of_the_collector_is_another_pod():
    def notes(items):
        return next(i for i in items if i["metadata"]["name"] == "echo-collector" and i["kind"] == "Deployment")["spec"]["template"]["metadata"]

    assert notes(observed()) == notes(observed())
    assert notes(observed()) != notes(observed(entry="other"))


def test_the_histogram_has_the_slo_as_a_bound():
    plan = kube.plan(kube.bundle())
    buckets = collector.config(plan, forward=None)["connectors"]["spanmetrics"]["histogram"]["explicit"]["buckets"]
    assert f"{alerts.limit_us(plan.slo)}us" in buckets
    assert len(buckets) == len(set(buckets))
    assert "exporters" in collector.config(plan, forward=None) and "otlphttp/forward" not in collector.config(plan, forward=None)["exporters"]


@pytest.mark.parametrize(("key", "asks"), [("azure.workload.identity/client-id", "true"), ("eks.amazonaws.com/role-arn", None)])
def test_pods_ask_azure_for_the_identity_of_their_account(key, asks):
    (deployment,) = (o for o in built(cluster={"identity": {key: "x"}}) if o["kind"] == "Deployment")
    assert deployment["spec"]["template"]["metadata"]["labels"].get("azure.workload.identity/use") == asks


def test_secrets_are_named_and_never_written():
    made = kube.plan(kube.bundle(), cluster={"secrets": ("hub-token",)})
    objects = manifests.objects(kube.inputs(kube.bundle(), made))
    container = next(o for o in objects if o["kind"] == "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert container["envFrom"] == [{"secretRef": {"name": "hub-token"}}]
    assert not [o for o in objects if o["kind"] == "Secret"]
    assert "env" not in container


def test_a_spot_pool_tolerates_the_taint_that_azure_puts_on_its_nodes():
    pool = NodePool(name="gpu-l4", spot=True)
    made = kube.plan(kube.bundle(), cluster={"pool": pool})
    pod = next(o for o in manifests.objects(kube.inputs(kube.bundle(), made)) if o["kind"] == "Deployment")["spec"]["template"]["spec"]
    assert [t["key"] for t in pod["tolerations"]] == ["nvidia.com/gpu", "kubernetes.azure.com/scalesetpriority"]
