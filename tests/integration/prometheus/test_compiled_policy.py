"""The compiled policy on Prometheus' own engine, storage and rule manager gives the replica series of the pure function."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path

import numpy as np
import pytest

from deployctl.core import rules
from deployctl.core.decision import Hold, Observation, Reading, ScaleTo, ScalingPolicy, Unknown
from deployctl.core.policies import hpa, slo

SYNC_S = 15
LABELS = {"service": "search"}
SETTINGS = ScalingPolicy(policy="slo", capacity_rps=40.0, start_up_s=60.0, sync_s=float(SYNC_S), min_replicas=1, max_replicas=500)


def recorded(ticks: int, seed: int) -> list[tuple[float, float] | None]:
    """(mean, peak) of each tick: a slow swing, ramps, a spike every half hour, noise, and holes where nothing was scraped."""
    rng = np.random.default_rng(seed)
    out: list[tuple[float, float] | None] = []
    for i in range(ticks):
        rate = 260 + 120 * math.sin(i / 90) + (400 if (i * SYNC_S) % 1860 < 90 else 0) + 0.8 * max(0, (i % 200) - 120)
        rate += 150 * max(0, min(i - 250, 18)) if i < 300 else 0  # a ramp that nobody has seen before: the alarm
        mean = round(float(rng.normal(rate, 8)), 2)
        peak = round(mean + abs(float(rng.normal(0, 15))), 2)
        out.append(None if rng.random() < 0.02 or 270 <= i < 295 else (mean, peak))
    return out


def pure(load: list[tuple[float, float] | None]) -> tuple[list[float | None], list[int], str]:
    """What the pure function wants at each tick, the replicas that follow, and all reasons."""
    state, replicas = slo.initial_state(), 6
    wanted: list[float | None] = []
    series, reasons = [], ""
    for i, sample in enumerate(load):
        readings = {} if sample is None else {"arrivals_rps": Reading(value=sample[0]), "arrivals_peak_rps": Reading(value=sample[1])}
        seen = Observation(at_s=i * SYNC_S, readings=readings, replicas_ready=replicas, replicas_wanted=replicas)
        decision, state = slo.decide(seen, state, SETTINGS, float(i * SYNC_S))
        assert isinstance(decision, (ScaleTo, Hold, Unknown))
        wanted.append(decision.evidence.get("wanted_replicas"))
        replicas = decision.replicas if isinstance(decision, ScaleTo) else replicas
        series.append(replicas)
        reasons += decision.reason
    return wanted, series, reasons


def through_hpa(wanted: list[float | None]) -> list[int]:
    """Real HPA arithmetic (target 1 a replica) on the series that the rules record."""
    state, replicas, series = hpa.initial_state(), 6, []
    follower = slo.hpa_settings(SETTINGS)
    for i, value in enumerate(wanted):
        seen = Observation(at_s=i * SYNC_S, readings={"wanted_replicas": Reading(value=value)}, replicas_ready=replicas, replicas_wanted=replicas)
        decision, state = hpa.decide(seen, state, follower, float(i * SYNC_S))
        replicas = decision.replicas if isinstance(decision, ScaleTo) else replicas
        series.append(replicas)
    return series


def promtool_test(load: list[tuple[float, float] | None], wanted: list[float | None]) -> dict[str, object]:
    """A `promtool test rules` file: recorded arrivals in, one expectation a tick."""
    own = '{service="search"}'
    values = [" ".join("_" if s is None else repr(s[k]) for s in load) for k in (0, 1)]
    checks = []
    for i, value in enumerate(wanted):
        samples = [] if value is None else [{"labels": f"{rules.WANTED}{own}", "value": value}]
        checks.append({"expr": f"last_over_time({rules.WANTED}{own}[7s])" if value is None else rules.WANTED + own, "eval_time": f"{i * SYNC_S}s"})
        checks[-1]["exp_samples"] = samples
    return {
        "rule_files": ["rules.json"],
        "evaluation_interval": f"{SYNC_S}s",
        "tests": [
            {
                "interval": f"{SYNC_S}s",
                "input_series": [{"series": rules.MEAN + own, "values": values[0]}, {"series": rules.PEAK + own, "values": values[1]}],
                "promql_expr_test": checks,
            }
        ],
    }


def run_promtool(promtool: str, folder: Path, load: list[tuple[float, float] | None], wanted: list[float | None]) -> subprocess.CompletedProcess[str]:
    group = {"name": "policy", "interval": f"{SYNC_S}s", "rules": rules.policy_rules(SETTINGS, labels=LABELS)}
    (folder / "rules.json").write_text(json.dumps({"groups": [group]}))
    (folder / "test.json").write_text(json.dumps(promtool_test(load, wanted)))
    return subprocess.run([promtool, "test", "rules", "test.json"], cwd=folder, capture_output=True, text=True, timeout=280)


@pytest.mark.parametrize("ticks, seed", [(320, 1), pytest.param(1200, 2, marks=pytest.mark.full)])
def test_the_compiled_rules_want_what_the_pure_function_wants(promtool: str, tmp_path: Path, ticks: int, seed: int) -> None:
    load = recorded(ticks, seed)
    wanted, series, reasons = pure(load)
    done = run_promtool(promtool, tmp_path, load, wanted)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert through_hpa(wanted) == series
    assert len(set(series)) > 5  # the series moves: equality of constants would prove nothing
    assert "catching up" in reasons  # the alarm went off


def test_the_comparison_can_fail(promtool: str, tmp_path: Path) -> None:
    load = recorded(60, 3)
    wanted, _, _ = pure(load)
    wrong = [None if v is None else v + 1 for v in wanted]
    assert run_promtool(promtool, tmp_path, load, wrong).returncode != 0


def test_arrivals_are_recorded_from_tritons_counters_through_restarts_and_queues(promtool: str, tmp_path: Path) -> None:
    """Two replicas at 20 and 10 req/s, one restarts; then the queue grows by 6 a second; then one replica is silent for good."""
    groups = rules.groups(SETTINGS, selector='model="m"', labels=LABELS)
    (tmp_path / "rules.json").write_text(json.dumps({"groups": groups}))

    def series(name: str, instance: str, values: str) -> dict[str, str]:
        return {"series": f'{name}{{model="m",instance="{instance}"}}', "values": values}

    inputs = [
        series("nv_inference_request_success", "a", "0+100x59 0+100x140"),
        series("nv_inference_request_success", "b", "0+50x200"),
        series("nv_inference_pending_request_count", "a", "0x99 0+30x100"),
    ]
    own = '{service="search"}'
    checks = [
        {"expr": f"round({name}{own}, 0.5)", "eval_time": at, "exp_samples": [{"labels": own, "value": value}]}
        for name in (rules.MEAN, rules.PEAK)
        for at, value in (("240s", 30.0), ("450s", 30.0), ("690s", 36.0))
    ]
    document = {
        "rule_files": ["rules.json"],
        "evaluation_interval": "5s",
        "tests": [{"interval": "5s", "input_series": inputs, "promql_expr_test": checks}],
    }
    (tmp_path / "test.json").write_text(json.dumps(document))
    done = subprocess.run([promtool, "test", "rules", "test.json"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
