"""The alert rules on Prometheus' own rule engine: each fires where it should, and stays silent beside that."""

import dataclasses
import json
import re
import subprocess

import pytest

from deployctl.core import alerts
from deployctl.core.decision import ScalingPolicy
from deployctl.core.slo import Objective, Slo
from deployctl.core.spans import REQUEST_HISTOGRAM
from deployctl.testing import kube

SELECTOR = 'namespace="n",service="s"'
SERIES = 'namespace="n",service="s",model="echo"'
GOOD, BAD, BUCKET, COUNT = (
    "nv_inference_request_success",
    "nv_inference_request_failure",
    f"{REQUEST_HISTOGRAM}_bucket",
    f"{REQUEST_HISTOGRAM}_count",
)


def groups(spans=True, **changes):
    fields = {"entry": "echo", "trace_ratio": 1.0, "scaling": ScalingPolicy(min_replicas=1, max_replicas=2), **changes}
    plan = dataclasses.replace(kube.plan(kube.bundle()), **fields)
    return alerts.groups(plan, selector=SELECTOR, labels={"service": "echo", "env": "prod"}, spans=spans)


def firing(promtool, folder, inputs, at, made=None):
    """Names of the alerts that fire at `at`: what `promtool test rules` got where nothing was expected."""
    (folder / "rules.json").write_text(json.dumps({"groups": made or groups()}))
    check = {"expr": 'group by (alertname) (ALERTS{alertstate="firing"})', "eval_time": at, "exp_samples": []}
    test = {"interval": "30s", "input_series": [{"series": s, "values": v} for s, v in inputs], "promql_expr_test": [check]}
    (folder / "test.json").write_text(json.dumps({"rule_files": ["rules.json"], "evaluation_interval": "30s", "tests": [test]}))
    done = subprocess.run([promtool, "test", "rules", "test.json"], cwd=folder, capture_output=True, text=True, timeout=120)
    told = done.stdout + done.stderr
    assert (done.returncode == 0) != ("got:" in told), told
    return sorted(re.findall(r'alertname="(\w+)"', told.partition("got:")[2]))


def load(good="0+300x400", bad="0x400", inside="0+300x400", total="0+300x400", instance="a"):
    """Ten requests a second from one replica; by default all of them good and in time."""
    return [
        (f'{GOOD}{{{SERIES},instance="{instance}"}}', good),
        (f'{BAD}{{{SERIES},instance="{instance}"}}', bad),
        (f'{BUCKET}{{{SERIES},le="100000"}}', inside),
        (f"{COUNT}{{{SERIES}}}", total),
    ]


@pytest.mark.parametrize("spans", [True, False])
@pytest.mark.parametrize("percentile, max_s", [(99.0, 0.1), (50.0, 0.0125), (99.9, 2.5)])
def test_the_rules_parse(promtool, tmp_path, spans, percentile, max_s):
    slo = Slo(objectives=(Objective(metric="latency", percentile=percentile, max=max_s), Objective(metric="errors", max=0.001)))
    made = groups(spans, slo=slo)
    (tmp_path / "rules.json").write_text(json.dumps({"groups": made}))
    done = subprocess.run([promtool, "check", "rules", str(tmp_path / "rules.json")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert any("latency" in r.get("record", "") for g in made for r in g["rules"]) == spans


def test_a_healthy_service_is_silent(promtool, tmp_path):
    assert firing(promtool, tmp_path, load(), "3h") == []


def test_too_many_late_requests(promtool, tmp_path):
    # 30 % late is 30 times the even burn of a p99: over 14.4 within minutes.
    assert firing(promtool, tmp_path, load(inside="0+210x400"), "2h") == ["DeployctlLatencyBudgetBurns"]


def test_a_short_burst_that_is_over_wakes_nobody(promtool, tmp_path):
    burst = "0+210x10 2400+300x390"
    assert firing(promtool, tmp_path, load(inside=burst), "3h") == []


def test_a_slow_burn_is_a_ticket_not_a_page(promtool, tmp_path):
    made = groups()
    assert firing(promtool, tmp_path, load(inside="0+295x800", good="0+300x800", bad="0x800", total="0+300x800"), "6h", made) == [
        "DeployctlLatencyBudgetBurns"
    ]
    paged = [{**g, "rules": [r for r in g["rules"] if r.get("labels", {}).get("severity") != "ticket"]} for g in made]
    assert firing(promtool, tmp_path, load(inside="0+295x800", good="0+300x800", bad="0x800", total="0+300x800"), "6h", paged) == []


def test_errors_burn_their_own_budget(promtool, tmp_path):
    assert "DeployctlErrorBudgetBurns" in firing(promtool, tmp_path, load(bad="0+15x400"), "2h")


def test_a_dead_backend_behind_a_healthy_server(promtool, tmp_path):
    dead = [(f'{GOOD}{{{SERIES},instance="b"}}', "500x400"), (f'{BAD}{{{SERIES},instance="b"}}', "0+90x400")]
    fired = firing(promtool, tmp_path, [*load(), *dead], "20m")
    assert "DeployctlBackendDead" in fired
    some = [(f'{GOOD}{{{SERIES},instance="b"}}', "0+300x400"), (f'{BAD}{{{SERIES},instance="b"}}', "0+1x400")]
    assert "DeployctlBackendDead" not in firing(promtool, tmp_path, [*load(), *some], "20m")


def test_no_metrics_at_all(promtool, tmp_path):
    assert firing(promtool, tmp_path, [("up", "1x400")], "30m") == ["DeployctlMetricsAbsent"]


def test_replicas_at_their_limit(promtool, tmp_path):
    second = [(f'{GOOD}{{{SERIES},instance="b"}}', "0+300x400")]
    assert "DeployctlReplicasAtMaximum" in firing(promtool, tmp_path, [*load(), *second], "1h")
    fixed = groups(scaling=ScalingPolicy(min_replicas=2, max_replicas=2))
    assert firing(promtool, tmp_path, [*load(), *second], "1h", fixed) == []


def test_spans_that_no_longer_come(promtool, tmp_path):
    assert firing(promtool, tmp_path, load(inside="9000x400", total="9000x400"), "2h") == ["DeployctlSpansAbsent"]


def test_a_handful_of_requests_says_nothing(promtool, tmp_path):
    few = load(good="0 0 3x400", inside="0x400", total="0 0 3x400")
    assert "DeployctlLatencyBudgetBurns" not in firing(promtool, tmp_path, few, "30m")
