"""KEDA's own part (sleep, wake, fallback), Knative's windows, llm-d's law."""

from __future__ import annotations

from dataclasses import replace

from deployctl.core.decision import Hold, Observation, Reading, ScaleTo, ScalingPolicy, Unknown
from deployctl.core.policies import keda, kpa, llmd

KEDA = ScalingPolicy(policy="keda", signal="arrivals_rps", target=40.0, min_replicas=0, max_replicas=50)
KPA = ScalingPolicy(policy="kpa", signal="concurrency", target=1.0, min_replicas=1, max_replicas=50, sync_s=2.0)
LLMD = ScalingPolicy(policy="llmd", signal="arrivals_rps", target=40.0, min_replicas=1, max_replicas=50)


def look(signal: str, value: float | None, replicas: int, ready: int | None = None) -> Observation:
    ready = replicas if ready is None else ready
    return Observation(
        at_s=0.0, readings={signal: Reading(value=value)}, replicas_ready=ready, replicas_starting=replicas - ready, replicas_wanted=replicas
    )


def drive(rule, settings: ScalingPolicy, values: list[float | None], *, replicas: int, step_s: float = 15.0) -> list[int]:
    state, out = rule.initial_state(), []
    for i, value in enumerate(values):
        decision, state = rule.decide(look(settings.signal, value, replicas), state, settings, i * step_s)
        replicas = decision.replicas if isinstance(decision, ScaleTo) else replicas
        out.append(replicas)
    return out


def test_keda_sleeps_after_the_cooldown_and_wakes_on_the_next_poll() -> None:
    settings = replace(KEDA, options={"polling_s": 30.0, "cooldown_s": 120.0}, scale_down_window_s=0.0)
    series = drive(keda, settings, [10.0] + [0.0] * 10 + [0.0, 5.0, 5.0, 5.0], replicas=1)
    assert series[:8] == [1] * 8
    assert 0 in series[8:12]
    assert series[-1] == 1


def test_activation_is_a_threshold() -> None:
    settings = replace(KEDA, options={"activation": 5.0})
    assert drive(keda, settings, [4.0] * 4, replicas=0) == [0] * 4
    assert drive(keda, settings, [6.0] * 2, replicas=0) == [1, 1]


def test_keda_between_one_and_many_is_the_hpa() -> None:
    assert drive(keda, replace(KEDA, scale_down_window_s=0.0), [160.0, 160.0, 80.0], replicas=1) == [4, 4, 2]


def test_fallback_steps_in_after_failures_in_a_row_only() -> None:
    settings = replace(KEDA, min_replicas=1, options={"fallback_replicas": 6.0, "failure_threshold": 3.0})
    assert drive(keda, settings, [None, None, None, None], replicas=2) == [2, 2, 6, 6]
    assert drive(keda, settings, [None, None, 80.0, None, None], replicas=2) == [2, 2, 2, 2, 2]
    without = replace(settings, options={})
    assert drive(keda, without, [None] * 5, replicas=2) == [2] * 5


def test_panic_goes_up_at_once_and_not_down_before_a_stable_window() -> None:
    calm = [2.0] * 30
    series = drive(kpa, KPA, [*calm, 12.0, 12.0, 12.0, *([2.0] * 60)], replicas=2, step_s=2.0)
    assert series[29] == 2
    assert max(series) >= 6
    top = series.index(max(series))
    assert series[top : top + 25] == sorted(series[top : top + 25])  # nothing is taken away during panic
    assert series[-1] == 2


def test_kpa_gives_no_credit_for_replicas_on_their_way() -> None:
    decision, _ = kpa.decide(look("concurrency", 40.0, 10, ready=2), kpa.initial_state(), KPA, 0.0)
    assert isinstance(decision, ScaleTo) and decision.replicas == 40


def test_llmd_credits_replicas_on_their_way_and_rests_in_the_dead_band() -> None:
    state = llmd.initial_state()
    up, _ = llmd.decide(look("arrivals_rps", 320.0, 4), state, LLMD, 0.0)
    assert isinstance(up, ScaleTo) and up.replicas == 8  # twice the target: 4 + ceil(4 * (2 - 1))
    credited, _ = llmd.decide(look("arrivals_rps", 320.0, 8, ready=4), state, LLMD, 0.0)
    assert isinstance(credited, Hold)
    rest, _ = llmd.decide(look("arrivals_rps", 130.0, 4), state, LLMD, 0.0)
    assert isinstance(rest, Hold)
    down, _ = llmd.decide(look("arrivals_rps", 24.0, 4), state, LLMD, 0.0)
    assert isinstance(down, ScaleTo) and down.replicas == 1  # 4 - floor(4 * (1 - 0.15 / 0.6))
    assert isinstance(llmd.decide(look("arrivals_rps", None, 4), state, LLMD, 0.0)[0], Unknown)
