"""advise on a real Prometheus that holds a day of Triton's counters: what it rebuilds is what was put in."""

from __future__ import annotations

import json
import math
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from deployctl.adapters.prometheus import Prometheus
from deployctl.cli.advise import advise
from deployctl.cli.scale import scale
from deployctl.core.signals import query
from deployctl.errors import ClusterError, ProjectError

STEP, HOURS = 15, 6
HPA = """
apiVersion: autoscaling/v2beta2
kind: HorizontalPodAutoscaler
metadata: {name: embed}
spec:
  scaleTargetRef: {kind: Deployment, name: embed-triton}
  minReplicas: 1
  maxReplicas: 12
  metrics:
  - type: Pods
    pods: {metric: {name: avg_time_queue_us}, target: {type: AverageValue, averageValue: 50}}
"""


def history(end: int) -> tuple[str, dict[str, np.ndarray]]:
    """OpenMetrics text of three replicas that serve 20 req/s each at most (50 ms a request), one of which restarts once."""
    count = HOURS * 3600 // STEP
    at = end - (count - 1 - np.arange(count)) * STEP
    rate = 30 + 15 * np.sin(np.arange(count) / 120) + np.where((np.arange(count) % 240) < 12, 40.0, 0.0)
    served = np.minimum(rate, 58.0)
    queue = np.cumsum((rate - served) * STEP)  # what is not served waits; it drains when there is room
    for i in range(1, count):
        room = max(58.0 - rate[i], 0.0) * STEP
        extra = max(rate[i] - 58.0, 0.0) * STEP
        queue[i] = max(queue[i - 1] + extra - room, 0.0)
    served = np.maximum(rate - np.diff(queue, prepend=0.0) / STEP, 0.0)
    families: dict[str, list[str]] = {}
    for replica in range(3):
        part = np.cumsum(served * STEP / 3)
        counters = {
            "nv_inference_request_success": part,
            "nv_inference_request_failure": part * 0.0,
            "nv_inference_exec_count": part,
            "nv_inference_compute_infer_duration_us": part * 50_000.0,
            "nv_inference_queue_duration_us": np.cumsum(served * STEP / 3 * (queue / 58.0) * 1e6),
        }
        counters["nv_inference_request_duration_us"] = counters["nv_inference_compute_infer_duration_us"] + counters["nv_inference_queue_duration_us"]
        if replica == 0:  # a restart: counters begin again
            counters = {name: np.where(np.arange(count) >= count // 2, v - v[count // 2], v) for name, v in counters.items()}
        counters["nv_inference_pending_request_count"] = queue / 3
        for name, values in counters.items():
            labels = f'{{model="embed",version="1",instance="10.0.0.{replica}:8002"}}'
            families.setdefault(name, []).extend(f"{name}{labels} {float(v)!r} {int(t)}" for v, t in zip(values, at, strict=True))
    lines = [line for name, rows in families.items() for line in (f"# TYPE {name} unknown", *rows)]
    return "\n".join([*lines, "# EOF", ""]), {"rate": rate, "at": at}


@pytest.fixture(scope="module")
def server(promtool: str, prometheus_server, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("history")
    end = int(time.time()) // STEP * STEP - 60
    text, truth = history(end)
    (folder / "metrics.txt").write_text(text)
    words = [promtool, "tsdb", "create-blocks-from", "openmetrics", str(folder / "metrics.txt"), str(folder / "data")]
    subprocess.run(words, check=True, capture_output=True, timeout=120)
    with prometheus_server(folder) as url:
        yield url, end, truth


def test_arrivals_are_rebuilt_from_what_ended_and_what_waits(server) -> None:
    url, end, truth = server
    source = Prometheus(url, end_s=end, window_s=HOURS * 3600 - 600, step_s=STEP)
    assert source.names("nv_inference_request_success", "model") == ["embed"]
    rows = source.history(query("arrivals_rps", selector='model="embed"', window="60s"))
    found = np.array([v for _, v in rows])
    real = np.interp([t for t, _ in rows], truth["at"], truth["rate"])
    calm = np.isfinite(found)
    assert calm.mean() > 0.98
    assert abs(np.nanmean(found) - real.mean()) < 0.03 * real.mean()
    assert np.nanpercentile(np.abs(found - real) / real, 80) < 0.1
    completions = source.history(query("completions_rps", selector='model="embed"', window="60s"))
    top = max(v for _, v in completions if math.isfinite(v))
    assert top < 60 < np.nanmax(found)  # completions saturate where arrivals do not


def test_advise_says_what_was_missed_and_what_to_apply(server, tmp_path: Path) -> None:
    url, _, _ = server
    (tmp_path / "hpa.yaml").write_text(HPA)
    words = ["--prometheus", url, "--slo", "200ms", "--window", "5h", "--hpa", str(tmp_path / "hpa.yaml"), "--start-up", "60s"]
    done = CliRunner().invoke(advise, [*words, "-o", "json", "--yaml", str(tmp_path / "apply.yaml")], catch_exceptions=False)
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    assert document["measured"]["replica_hours"] == pytest.approx(15.0, rel=0.03)
    assert 0.05 < document["measured"]["windows_missed_ratio"] < 0.8
    assert document["replay"]["plant"]["capacity_rps"] == pytest.approx(16.0, rel=0.05)  # 0.8 of 20 req/s
    assert [p["policy"] for p in document["replay"]["policies"]] == ["HorizontalPodAutoscaler/embed", "slo"]
    assert {f["name"] for f in document["findings"]} == {"removed-api", "queue-target-too-fine"}
    assert document["present"]["forecast_error_ratio"] is not None
    kinds = [item["kind"] for item in document["objects"]]
    assert kinds == ["PrometheusRule", "HorizontalPodAutoscaler"]
    assert document["objects"][1]["spec"]["scaleTargetRef"]["name"] == "embed-triton"
    table = CliRunner().invoke(advise, words, catch_exceptions=False).stdout
    assert "minimum possible" in table and "autoscaling/v2beta2 left Kubernetes" in table
    assert "deployctl:wanted_replicas" in (tmp_path / "apply.yaml").read_text()


def test_the_rules_of_the_advice_load_into_a_prometheus(server, promtool: str, tmp_path: Path) -> None:
    url, _, _ = server
    done = CliRunner().invoke(advise, ["--prometheus", url, "--slo", "200ms", "--window", "1h", "-o", "json"], catch_exceptions=False)
    (tmp_path / "rules.json").write_text(json.dumps(json.loads(done.stdout)["objects"][0]["spec"]))
    checked = subprocess.run([promtool, "check", "rules", str(tmp_path / "rules.json")], capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("which", [("--model", "embed"), ("--query", 'sum(rate(nv_inference_request_success{model="embed"}[60s]))')])
def test_a_replay_reads_its_trace_from_prometheus(server, tmp_path: Path, which: tuple[str, str]) -> None:
    url, _, truth = server
    flags = ["--window", "5h", "--capacity", "16/s", "--start-up", "60s", "--against", "keda", "-o", "json"]
    done = CliRunner().invoke(scale, ["--replay", f"prometheus:{url}", *which, *flags], obj=tmp_path, catch_exceptions=False)
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    assert [p["policy"] for p in document["policies"]] == ["slo", "keda"]
    assert document["bound"]["clairvoyant_hours"] > 5 * truth["rate"].mean() / 16.0 * 0.95


@pytest.mark.parametrize("words", [["prometheus:http://127.0.0.1:9"], ["day.csv", "--model", "embed"]])
def test_a_replay_says_what_to_read(tmp_path: Path, words: list[str]) -> None:
    with pytest.raises(ProjectError) as caught:
        CliRunner().invoke(scale, ["--replay", *words, "--capacity", "16/s", "--start-up", "60s"], obj=tmp_path, catch_exceptions=False)
    assert caught.value.code == "scale-usage"


@pytest.mark.parametrize("text, code", [("sum(", "prometheus-query"), ("nv_inference_request_success", "prometheus-query")])
def test_a_bad_query_says_why(server, text: str, code: str) -> None:
    url, end, _ = server
    with pytest.raises(ClusterError) as caught:
        Prometheus(url, end_s=end, window_s=600, step_s=STEP).history(text)
    assert caught.value.code == code and caught.value.why


def test_nobody_there() -> None:
    with pytest.raises(ClusterError) as caught:
        Prometheus("http://127.0.0.1:9", end_s=1e9, window_s=60).history("up")
    assert caught.value.code == "prometheus-unreachable"
