"""The policy on a whole series at once wants what it wants tick by tick."""

from __future__ import annotations

import math

import numpy as np
import pytest

from deployctl.core import envelopes, fluid, policy_series, replay, traces
from deployctl.core.decision import Observation, Reading, ScalingPolicy
from deployctl.core.policies import slo

Loads = list[tuple[float, float] | None]


def recorded(ticks: int, seed: int) -> Loads:
    """(mean, peak) of each tick: a swing, a spike every half hour, noise, and holes where nothing was seen."""
    rng = np.random.default_rng(seed)
    out: Loads = []
    for i in range(ticks):
        outgrown = 60 * max(0, min(i - 300, 40)) if i < 360 else 0
        mean = float(rng.normal(260 + 120 * math.sin(i / 90) + (400 if i % 124 < 6 else 0) + outgrown, 8))
        hole = rng.random() < 0.02 or 270 <= i < 295
        out.append(None if hole else (mean, mean + abs(float(rng.normal(0, 15)))))
    return out


@pytest.mark.parametrize("start_up_s, ticks", [(30.0, 700), (120.0, 500), pytest.param(60.0, 7000, marks=pytest.mark.full)])
def test_at_once_and_tick_by_tick_decide_the_same(start_up_s: float, ticks: int) -> None:
    settings = ScalingPolicy(policy="slo", capacity_rps=40.0, start_up_s=start_up_s, max_replicas=500)
    loads = recorded(ticks, seed=int(start_up_s))
    columns = np.array([(math.nan, math.nan) if pair is None else pair for pair in loads])
    told = policy_series.foreseen(columns[:, 0].copy(), columns[:, 1].copy(), settings)
    one_by_one, at_once = slo.initial_state(), told.initial_state()
    for i, pair in enumerate(loads):
        readings = {} if pair is None else {"arrivals_rps": Reading(value=pair[0]), "arrivals_peak_rps": Reading(value=pair[1])}
        seen = Observation(at_s=i * 15.0, readings=readings, replicas_ready=6, replicas_wanted=6)
        first, one_by_one = slo.decide(seen, one_by_one, settings, i * 15.0)
        second, at_once = told.decide(seen, at_once, settings, i * 15.0)
        assert first == second, i
    assert len(set(told.chosen.tolist())) > 3  # the choice moves: equality of the default alone would prove little
    assert slo.ALARM in told.chosen


def test_a_replay_takes_the_short_way_and_comes_to_the_same() -> None:
    """What is bent by nothing is decided beforehand; what goes through `distort` is decided tick by tick."""
    t = np.arange(6000)
    trace = traces.Trace(name="wave", arrivals=traces.poisson(260 + 160 * np.sin(t / 900) + 300 * ((t % 1800) < 200), seed=3))
    plant = fluid.Plant(capacity_rps=40.0, start_up_s=45)
    for lag_s in (0, 20, 70):
        view = replay.View(lag_s=lag_s)
        short = replay.replay(trace, plant, replay.peer("slo", plant), view=view)
        long = replay.replay(trace, plant, replay.peer("slo", plant), view=view, distort=lambda _at_s, seen: seen)
        assert short.changes == long.changes
        assert bool(short.changes) == (lag_s <= 60)  # what is older than a minute is not believed


def test_quantiles_roll_over_what_is_not_known() -> None:
    rng = np.random.default_rng(5)
    values = np.where(rng.random(200) < 0.2, np.nan, rng.integers(0, 9, 200).astype(float))
    levels = np.array([0.5, 0.9, 1.0])
    found = policy_series.kernels.rolling_quantiles(values, 37, levels)
    for t in range(200):
        inside = values[max(t - 36, 0) : t + 1]
        known = inside[~np.isnan(inside)]
        assert found[t] == pytest.approx(np.quantile(known, levels) if known.size else [0.0] * 3), t


def test_a_series_of_envelopes_has_one_column_an_envelope() -> None:
    step = slo.ticks(ScalingPolicy(policy="slo", capacity_rps=40.0, start_up_s=60.0))
    mean, peak = np.array([np.nan, 100.0, 90.0]), np.array([np.nan, 120.0, 95.0])
    asked = policy_series.envelopes_asked(mean, peak, policy_series.forecasts(mean, step), 40.0, step)
    assert asked.shape == (3, len(envelopes.EXPERTS))
    assert np.isnan(asked[0]).all() and (asked[1:] >= 3).all()
