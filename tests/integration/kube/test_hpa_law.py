"""The real kube-controller-manager and our copy of its law on identical inputs.

The metrics adapter remembers when the controller asked and what it was told; our law is then called at those times with
those answers, and both series of replicas are compared.
"""

import dataclasses
import json
import math
import random
import time

import pytest
from kube_service import Service
from metrics_api import MetricsApi

from deployctl.core.decision import MetricTarget, Observation, RateLimit, Reading, ScaleTo, ScalingPolicy
from deployctl.core.policies import hpa

pytestmark = pytest.mark.kube
SECONDS = 60
AT_ONCE = (RateLimit(kind="percent", value=900, period_s=1.0),)
BASE = ScalingPolicy(
    min_replicas=1, max_replicas=12, target=10.0, signal="arrivals_rps", sync_s=1.0, scale_down_window_s=0.0, up_limits=AT_ONCE, down_limits=AT_ONCE
)


def steps(seed, low=5.0, high=110.0, hold_s=6):
    """A value for each second, held for some."""
    rng = random.Random(seed)
    return [value for _ in range(SECONDS // hold_s + 1) for value in [rng.uniform(low, high)] * hold_s][:SECONDS]


def gaps(values, seed):
    """The same with stretches where the metric is missing."""
    rng = random.Random(seed)
    starts = sorted(rng.sample(range(10, SECONDS - 8), 3))
    return [None if any(s <= t < s + 6 for s in starts) else v for t, v in enumerate(values)]


wave = [60 + 50 * math.sin(t / 9) for t in range(SECONDS)]
hill = [min(10.0 + 8 * (t // 5), 90.0) if t < 45 else 5.0 for t in range(SECONDS)]
# name -> (policy, arrivals by second, pending by second)
SERIES = {
    "steps": (BASE, steps(1), None),
    "wave": (BASE, wave, None),
    "tolerant": (dataclasses.replace(BASE, tolerance_ratio=0.3), steps(2), None),
    "down-window": (dataclasses.replace(BASE, scale_down_window_s=8.0), wave, None),
    "up-window": (dataclasses.replace(BASE, scale_up_window_s=5.0), steps(3), None),
    "pods-limit": (dataclasses.replace(BASE, up_limits=(RateLimit(kind="pods", value=2, period_s=4.0),)), steps(4, hold_s=12), None),
    "percent-limit": (
        dataclasses.replace(BASE, min_replicas=2, down_limits=(RateLimit(kind="percent", value=50, period_s=5.0),)),
        steps(5, hold_s=12),
        None,
    ),
    "never-down": (dataclasses.replace(BASE, down_select="disabled"), hill, None),
    "missing": (BASE, gaps(steps(7), 7), None),
    "two-metrics": (dataclasses.replace(BASE, also=(MetricTarget(signal="pending", target=4.0),)), steps(8, hold_s=9), steps(9, 1.0, 40.0, 9)),
    "one-missing": (dataclasses.replace(BASE, also=(MetricTarget(signal="pending", target=4.0),)), steps(10), gaps(steps(11, 1.0, 40.0), 11)),
}


def syncs(served, name, metrics):
    """Each sync of the controller for one service: when it had its last answer, and the answers."""
    found, seen = [], {}
    for at_s, service, metric, value in served:
        if service != name:
            continue
        seen[metric] = value
        if metric == metrics[-1]:
            found.append((at_s, dict(seen)))
            seen = {}
    return found


def replay(policy, served, name, begin_s, replicas):
    """Our law at exactly the controller's times with exactly its answers: (when, replicas)."""
    metrics = ["deployctl_arrivals_rps"] + [f"deployctl_{m.signal}" for m in policy.also]
    state, rows = hpa.initial_state(), []
    for at_s, values in syncs(served, name, metrics):
        if at_s < begin_s:
            continue
        readings = {m.removeprefix("deployctl_"): Reading(value=v, samples=1) for m, v in values.items()}
        seen = Observation(at_s=at_s, readings=readings, replicas_ready=replicas, replicas_wanted=replicas)
        decision, state = hpa.decide(seen, state, policy, at_s)
        replicas = decision.replicas if isinstance(decision, ScaleTo) else replicas
        rows.append((at_s, replicas))
    return rows


def at(rows, when_s, before):
    """The value of a step function."""
    found = before
    for at_s, value in rows:
        if at_s > when_s:
            break
        found = value
    return found


@pytest.mark.timeout(300)
def test_eleven_series_side_by_side(plane, namespace, tmp_path):
    metrics = MetricsApi(plane, tmp_path / "tls").start()
    real = {name: [] for name in SERIES}

    def look():
        now_s = time.monotonic()
        for item in plane.get(f"/apis/apps/v1/namespaces/{namespace}/deployments")["items"]:
            real[item["metadata"]["name"]].append((now_s, item["spec"]["replicas"]))

    try:
        for name, (policy, arrivals, pending) in SERIES.items():
            metrics.external["deployctl_arrivals_rps", name] = arrivals[0]
            metrics.external["deployctl_pending", name] = pending[0] if pending else None
            service = Service(plane, namespace)
            packed, made = service.plan(scaling=policy, service=name, replicas=policy.min_replicas)
            service.up(packed, made)
        end = time.monotonic() + 10  # longer than every window: both sides begin settled on the first value and without memory
        while time.monotonic() < end:
            look()
            time.sleep(0.5)
        begin = time.monotonic()
        start = {name: rows[-1][1] for name, rows in real.items()}
        for second in range(SECONDS):
            for name, (_, arrivals, pending) in SERIES.items():
                metrics.external["deployctl_arrivals_rps", name] = arrivals[second]
                metrics.external["deployctl_pending", name] = pending[second] if pending else None
            while time.monotonic() < begin + second + 1:
                look()
                time.sleep(0.1)
    finally:
        metrics.stop()
    report, totals = {}, [0.0, 0.0]
    for name, (policy, _, _) in SERIES.items():
        model = replay(policy, metrics.served, name, begin, start[name])
        pairs = [(value, at(model, when_s - 0.2, start[name])) for when_s, value in real[name] if when_s >= begin]  # a write takes a moment
        difference = sum(abs(a - b) for a, b in pairs) / len(pairs)
        sums = [sum(side) for side in zip(*pairs, strict=True)]
        totals = [total + part / len(pairs) for total, part in zip(totals, sums, strict=True)]
        report[name] = {
            "difference": round(difference, 3),
            "ratio": round(sums[0] / sums[1], 4),
            "syncs": len(model),
            "spread": len({a for a, _ in pairs}),
        }
    off_ratio = abs(totals[0] / totals[1] - 1)
    worst = max(row["difference"] for row in report.values())
    print(report)
    print("\nHPA-LAW " + json.dumps({"series": len(report), "difference": worst, "off_ratio": off_ratio}))  # read by benchmarks/bench_kube.py
    assert all(row["spread"] >= 3 and row["syncs"] >= SECONDS / 3 for row in report.values()), report  # each really moved, often
    assert all(row["difference"] <= 0.5 for row in report.values()), report
    assert off_ratio <= 0.03, report
