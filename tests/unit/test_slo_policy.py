"""The slo policy: monotone, bounded, silent on unknown, robust against broken metrics."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployctl.core import bound, replay, traces
from deployctl.core.admission import admission
from deployctl.core.decision import Hold, Observation, Reading, ScaleTo, ScalingPolicy, Unknown
from deployctl.core.fluid import Plant
from deployctl.core.observation_window import Window
from deployctl.core.policies import slo

PLANT = Plant(capacity_rps=40.0, start_up_s=30)
SETTINGS = ScalingPolicy(policy="slo", capacity_rps=40.0, start_up_s=30.0, min_replicas=1, max_replicas=10_000)


def look(value: float | None, *, replicas: int = 5, ready: int | None = None) -> Observation:
    ready = replicas if ready is None else ready
    readings = {"arrivals_rps": Reading(value=value)}
    return Observation(at_s=0.0, readings=readings, replicas_ready=ready, replicas_starting=replicas - ready, replicas_wanted=replicas)


def grown(loads: list[float]) -> slo.SloState:
    state = slo.initial_state()
    for i, value in enumerate(loads):
        _, state = slo.decide(look(value), state, SETTINGS, i * 15.0)
    return state


def wave(seconds: int = 9000, seed: int = 1) -> traces.Trace:
    t = np.arange(seconds)
    rate = 260 + 160 * np.sin(t / 2000) + 300 * ((t % 3600) < 200)
    return traces.Trace(name="wave", arrivals=traces.poisson(rate, seed=seed))


@functools.cache
def learned() -> slo.SloState:
    """A state past its first hour, so that the envelopes' scores decide."""
    rng = np.random.default_rng(3)
    return grown([float(v) for v in 400 + 300 * np.sin(np.arange(260) / 20) + rng.normal(0, 30, 260)])


@given(past=st.lists(st.floats(0, 2000), max_size=20), age=st.sampled_from(["new", "learned"]), low=st.floats(0, 3000), more=st.floats(0, 3000))
@settings(max_examples=60, deadline=None)
def test_more_load_never_means_fewer_replicas(past: list[float], age: str, low: float, more: float) -> None:
    state = learned() if age == "learned" else slo.initial_state()
    for i, value in enumerate(past):
        _, state = slo.decide(look(value), state, SETTINGS, 1e4 + i * 15.0)
    wanted = []
    for value in (low, low + more):
        decision, _ = slo.decide(look(value), state, SETTINGS, 1e5)
        wanted.append(decision.replicas if isinstance(decision, ScaleTo) else 5)
    assert wanted[0] <= wanted[1]


def test_a_state_is_not_changed_by_what_grows_from_it() -> None:
    state = grown([100.0, 200.0])
    first, _ = slo.decide(look(900.0), state, SETTINGS, 30.0)
    slo.decide(look(10.0), state, SETTINGS, 30.0)
    again, _ = slo.decide(look(900.0), state, SETTINGS, 30.0)
    assert first == again


def test_without_a_measured_capacity_it_says_so() -> None:
    decision, _ = slo.decide(look(100.0), slo.initial_state(), replace(SETTINGS, capacity_rps=0.0), 0.0)
    assert isinstance(decision, Unknown)
    assert "tune" in decision.reason


def test_replicas_on_their_way_are_kept_while_too_few_are_ready() -> None:
    decision, _ = slo.decide(look(100.0, replicas=30, ready=1), slo.initial_state(), SETTINGS, 0.0)
    assert isinstance(decision, Hold)
    assert "ready" in decision.reason


def test_it_learns_a_period_and_is_there_before_the_spike() -> None:
    t = np.arange(6 * 3600)
    rate = np.where((t % 1800) < 300, 800.0, 80.0)
    trace = traces.Trace(name="half-hours", arrivals=rate, history_s=4 * 3600)
    run = replay.replay(trace, PLANT, SETTINGS)
    least = bound.clairvoyant(trace.judged, capacity_rps=40.0, start_up_s=30.0, miss_ratio=0.01)
    assert run.keeps()
    assert run.outcome.cost_s < 0.75 * 20 * trace.duration_s  # cheaper than holding the peak
    assert run.outcome.cost_s >= least.cost_s


def test_windows_share_rows_and_keep_apart() -> None:
    empty = Window(width=1, depth=3)
    one = empty.append(np.array([1.0]))
    left, right = one.append(np.array([2.0])), one.append(np.array([3.0]))
    assert left.last(0, 9).tolist() == [1.0, 2.0]
    assert right.last(0, 9).tolist() == [1.0, 3.0]
    assert len(empty) == 0
    long = one
    for i in range(200):
        long = long.append(np.array([float(i)]))
    assert long.last(0, 9).tolist() == [197.0, 198.0, 199.0]
    assert long.last(0, 1, skip=2).tolist() == [197.0]
    assert long.back(0, 2) == 197.0 and long.back(0, 3) is None


def test_a_queue_no_longer_than_the_slo_allows() -> None:
    found = admission(0.5, full_batch_s=0.1, max_batch=8, instances=2, overhead_s=0.05)
    assert found is not None
    assert found.queue_timeout_s == pytest.approx(0.35)
    assert found.queue_size == 56  # 160 req/s for 0.35 s
    assert admission(0.1, full_batch_s=0.2, max_batch=8, instances=1) is None
