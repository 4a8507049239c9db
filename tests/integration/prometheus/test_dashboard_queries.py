"""Every query of the dashboard and every recording rule, on a real Prometheus that scrapes a real Triton and the real collector of its spans."""

import dataclasses
import json
import math
import time
import urllib.parse
import urllib.request

import pytest

from deployctl.adapters.triton import TritonLauncher
from deployctl.core import alerts, dashboard
from deployctl.core.decision import ScalingPolicy
from deployctl.core.manifests.workload import triton_arguments
from deployctl.core.platform import Telemetry
from deployctl.errors import MachineError, ModelError
from deployctl.testing import kube

pytestmark = [pytest.mark.triton, pytest.mark.kube]

CONFIG = """
name: "echo"
backend: "python"
max_batch_size: 4
input { name: "X" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "Y" data_type: TYPE_FP32 dims: [ 1 ] }
instance_group { kind: KIND_CPU count: 1 }
dynamic_batching { }
"""
CODE = """
import time
import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        time.sleep(0.02)
        found = [pb.get_input_tensor_by_name(r, "X").as_numpy() for r in requests]
        if min(x.flat[0] for x in found) < 0:
            raise pb.TritonModelException("as asked")  # an error that is only put into a response counts as a success
        return [pb.InferenceResponse([pb.Tensor("Y", x)]) for x in found]
"""
LABELS = {"namespace": "team-a", "service": "echo-pods", "app_kubernetes_io_version": "abc123"}


def request(value):
    return {"X": {"dtype": "FP32", "shape": [1, 1], "data": [[value]]}}


def served_plan():
    plan = kube.plan(kube.bundle(), cluster={"telemetry": Telemetry(collector=kube.IMAGE)}, scaling=ScalingPolicy(min_replicas=1, max_replicas=4))
    return dataclasses.replace(plan, entry="echo", trace_ratio=1.0)


@pytest.fixture
def triton(tmp_path, collector):
    """A traced Triton with exactly the trace settings that the pod would get, and the collector that they lead to."""
    plan = served_plan()
    there = collector(plan)
    folder = tmp_path / "repository" / "echo" / "1"
    folder.mkdir(parents=True)
    (folder.parent / "config.pbtxt").write_text(CONFIG)
    (folder / "model.py").write_text(CODE)
    launcher = TritonLauncher(tmp_path / "launcher")
    traced = [a for a in triton_arguments(plan, plan.cluster) if a.startswith("--trace-config")]
    traced = [f"--trace-config=opentelemetry,url={there.otlp}" if "url=" in a else a for a in traced]
    argv = launcher._install.argv
    launcher._install.argv = lambda command: [*argv(command), *traced, "--trace-config=opentelemetry,bsp_schedule_delay=500"]
    try:
        server = launcher.start(tmp_path / "repository")
    except MachineError as error:
        pytest.skip(f"no Triton on this machine: {error}")
    yield plan, server, there
    server.stop()


def ask(url, expression):
    text = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"{url}/api/v1/query?{text}", timeout=10) as answer:
        return json.load(answer)["data"]["result"]


def filled(text):
    words = {"$namespace": "team-a", "$service": "echo-pods", "$model": "echo", "$__rate_interval": "15s"}
    for name, value in words.items():
        text = text.replace(name, value)
    return text


def values(url, expression):
    return [float(row["value"][1]) for row in ask(url, expression)]


def test_every_query_has_an_answer(triton, prometheus_server, tmp_path):
    plan, server, there = triton
    (tmp_path / "data").mkdir()
    groups = alerts.groups(plan, selector='namespace="team-a",service="echo-pods"', labels={"service": "echo", "env": "prod"}, spans=True)
    quick = [{**g, "interval": "1s"} for g in groups]
    (tmp_path / "rules.json").write_text(json.dumps({"groups": quick}))
    jobs = [
        {"job_name": "triton", "static_configs": [{"targets": [server.metrics_url], "labels": LABELS}]},
        {
            "job_name": "collector",
            "static_configs": [{"targets": [there.scrape], "labels": LABELS}],
            "metric_relabel_configs": [{"action": "labeldrop", "regex": "otel_scope_.*|exported_job"}],
        },
    ]
    config = {"global": {"scrape_interval": "1s"}, "rule_files": [str(tmp_path / "rules.json")], "scrape_configs": jobs}
    with prometheus_server(tmp_path, json.dumps(config)) as url:
        sent = 0
        end = time.monotonic() + 120
        recorded = [r["record"] for g in groups for r in g["rules"] if "record" in r]
        wanted = {f"{p.title}: {legend}": filled(text) for p in dashboard.PANELS for legend, text in p.queries}
        open_ends = dict(wanted)
        while (open_ends or sent < 200) and time.monotonic() < end:
            for _ in range(20):
                server.infer("echo", request(1.0))
            with pytest.raises(ModelError):
                server.infer("echo", request(-1.0))
            sent += 21
            open_ends = {name: text for name, text in open_ends.items() if not any(math.isfinite(v) for v in values(url, text))}
        assert open_ends == {}
        # The figures are those of this Triton: 20 ms a request, a share of 1 in 21 fails, one replica of one release.
        (p50,) = values(url, wanted["Latency: p50"])
        assert 0.015 < p50 < 2.0
        (failed,) = values(url, wanted["Failed requests: failed"])
        assert 0.01 < failed < 0.15
        assert [(r["metric"], r["value"][1]) for r in ask(url, wanted["Releases: {{app_kubernetes_io_version}}"])] == [
            ({"app_kubernetes_io_version": "abc123"}, "1")
        ]
        deadline = time.monotonic() + 60
        while (silent := [name for name in recorded if not values(url, name)]) and time.monotonic() < deadline:
            time.sleep(0.5)
        assert silent == []
        while values(url, "nv_inference_request_duration_histogram_us_count") != [float(sent)] and time.monotonic() < deadline:
            time.sleep(0.5)
        # Root spans only: each request is counted once, although Triton makes three spans of it.
        assert values(url, "nv_inference_request_duration_histogram_us_count") == [float(sent)]
        names = {row["metric"]["__name__"] for row in ask(url, '{job="collector",__name__!~"scrape_.*|up"}')}
        assert {n.rpartition("_")[0] for n in names} == {"nv_inference_request_duration_histogram_us"}
