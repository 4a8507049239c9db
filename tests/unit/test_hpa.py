"""The HPA as a pure function, against cases worked out by hand from Kubernetes' replica calculator."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deployctl.core.decision import Hold, MetricTarget, Observation, RateLimit, Reading, ScaleTo, ScalingPolicy, Unknown
from deployctl.core.policies import hpa

FREE = (RateLimit(kind="pods", value=1000, period_s=15.0),)
BASE = ScalingPolicy(signal="busy_ratio", target=0.5, min_replicas=1, max_replicas=100, scale_down_window_s=0.0, up_limits=FREE, down_limits=FREE)


def seen(value: float | None, *, ready: int = 4, starting: int = 0, wanted: int | None = None, samples: int = 0, signal: str = "busy_ratio", **more):
    readings = {signal: Reading(value=value, samples=samples)} | {k: Reading(value=v) for k, v in more.items()}
    return Observation(
        at_s=0.0, readings=readings, replicas_ready=ready, replicas_starting=starting, replicas_wanted=ready + starting if wanted is None else wanted
    )


def result(observation: Observation, settings: ScalingPolicy = BASE, state: hpa.HpaState | None = None, now_s: float = 1000.0) -> int:
    decision, _ = hpa.decide(observation, state or hpa.initial_state(), settings, now_s)
    return decision.replicas if isinstance(decision, ScaleTo) else observation.replicas_wanted


@pytest.mark.parametrize(
    "value, ready, starting, samples, expected",
    [
        (1.0, 4, 0, 4, 8),  # ceil(2.0 * 4)
        (0.55, 4, 0, 4, 4),  # ratio 1.1 is within the tolerance
        (0.56, 4, 0, 4, 5),  # ceil(1.12 * 4)
        (0.45, 4, 0, 4, 4),  # ratio 0.9 is within
        (0.2, 4, 0, 4, 2),  # ceil(0.4 * 4)
        (1.0, 4, 4, 4, 8),  # starting replicas count as idle: 4 * 1.0 / 8 = on target
        (2.0, 4, 4, 4, 16),  # ratio with idle ones: 8 / (0.5 * 8) = 2
        (0.2, 4, 4, 4, 2),  # going down: starting replicas are left out
        (0.2, 4, 0, 2, 3),  # two silent replicas count as on target: (0.4 + 1.0) / (0.5 * 4) = 0.7
        (0.8, 4, 0, 2, 4),  # two silent replicas count as idle: 1.6 / (0.5 * 4) = 0.8 turns the direction: hold
        (2.0, 4, 0, 2, 8),  # 4.0 / (0.5 * 4) = 2
    ],
)
def test_a_mean_over_replicas(value: float, ready: int, starting: int, samples: int, expected: int) -> None:
    assert result(seen(value, ready=ready, starting=starting, samples=samples)) == expected


@pytest.mark.parametrize("total, starting, expected", [(400.0, 0, 10), (176.0, 0, 4), (177.0, 0, 5), (120.0, 0, 3), (0.0, 0, 1), (400.0, 6, 10)])
def test_a_total_of_the_service(total: float, starting: int, expected: int) -> None:
    settings = replace(BASE, signal="arrivals_rps", target=40.0)
    assert result(seen(total, signal="arrivals_rps", starting=starting), settings) == expected


def test_bounds_and_zero() -> None:
    assert result(seen(5.0), replace(BASE, max_replicas=6)) == 6
    assert result(seen(0.0, ready=4, samples=4), replace(BASE, min_replicas=3)) == 3
    assert result(seen(0.5, ready=4), replace(BASE, max_replicas=2)) == 2
    assert result(seen(0.5, ready=1), replace(BASE, min_replicas=3)) == 3
    decision, _ = hpa.decide(seen(1.0, ready=0), hpa.initial_state(), BASE, 0.0)
    assert isinstance(decision, Hold)


def test_the_largest_of_several_metrics_wins_and_a_failed_one_forbids_only_going_down() -> None:
    settings = replace(BASE, also=(MetricTarget(signal="arrivals_rps", target=40.0),))
    assert result(seen(1.0, arrivals_rps=1000.0), settings) == 25
    assert result(seen(1.0, arrivals_rps=None), settings) == 8
    decision, _ = hpa.decide(seen(0.1, arrivals_rps=None), hpa.initial_state(), settings, 0.0)
    assert isinstance(decision, Unknown)


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), -1.0])
def test_what_is_no_number_changes_nothing(value: float | None) -> None:
    decision, state = hpa.decide(seen(value), hpa.initial_state(), BASE, 0.0)
    assert isinstance(decision, Unknown)
    assert state == hpa.initial_state()


def run(values: list[float], settings: ScalingPolicy, *, start: int = 4) -> list[int]:
    state, replicas, out = hpa.initial_state(), start, []
    for i, value in enumerate(values):
        decision, state = hpa.decide(seen(value, signal="arrivals_rps", ready=replicas), state, settings, i * 15.0)
        replicas = decision.replicas if isinstance(decision, ScaleTo) else replicas
        out.append(replicas)
    return out


def test_the_scale_down_window_keeps_the_largest_recommendation() -> None:
    settings = replace(BASE, signal="arrivals_rps", target=40.0, scale_down_window_s=60.0)
    assert run([160, 80, 80, 80, 80, 80], settings) == [4, 4, 4, 4, 2, 2]


def test_the_scale_up_window_keeps_the_smallest_recommendation() -> None:
    settings = replace(BASE, signal="arrivals_rps", target=40.0, scale_up_window_s=30.0)
    assert run([160, 400, 400, 400], settings) == [4, 4, 10, 10]


def test_the_default_speed_doubles_or_adds_four() -> None:
    settings = replace(BASE, signal="arrivals_rps", target=40.0, up_limits=ScalingPolicy().up_limits)
    assert run([4000] * 4, settings, start=1) == [5, 10, 20, 40]


def test_limits_per_period_count_what_was_done_in_it() -> None:
    limits = (RateLimit(kind="pods", value=2, period_s=60.0),)
    settings = replace(BASE, signal="arrivals_rps", target=40.0, up_limits=limits)
    assert run([4000] * 6, settings) == [6, 6, 6, 6, 8, 8]
    assert run([0] * 5, replace(settings, down_limits=limits), start=8) == [6, 6, 6, 6, 4]
    assert run([0] * 3, replace(settings, down_select="disabled"), start=8) == [8, 8, 8]
    smaller = (*limits, RateLimit(kind="percent", value=100, period_s=60.0))
    assert run([4000], replace(settings, up_limits=smaller, up_select="min")) == [6]
    assert run([4000], replace(settings, up_limits=smaller, up_select="max")) == [8]
