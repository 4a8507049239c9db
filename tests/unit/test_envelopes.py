"""Rolling maxima, sorted errors and forecasts of the envelopes against the plain formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployctl.core import envelopes
from deployctl.core.decision import ScalingPolicy
from deployctl.core.observation_window import quantiles, replaced
from deployctl.core.policies import slo

STEP = slo.ticks(ScalingPolicy(policy="slo", capacity_rps=40.0, start_up_s=60.0))
LOADS = st.lists(st.one_of(st.none(), st.floats(0, 1000)), min_size=1, max_size=60)


def grown(loads: list[float | None]) -> envelopes.Load:
    load = envelopes.no_load(STEP)
    for value in loads:
        known = math.nan if value is None else value
        load = envelopes.seen(load, known, known, STEP)
    return load


@given(values=st.lists(st.floats(0, 10), min_size=1, max_size=30), enters=st.floats(0, 10), data=st.data())
def test_a_value_is_replaced_in_order_and_the_old_array_stays(values: list[float], enters: float, data: st.DataObject) -> None:
    ordered = np.sort(np.array(values))
    before, leaves = ordered.copy(), data.draw(st.sampled_from(values))
    rest = list(values)
    rest.remove(leaves)
    assert replaced(ordered, leaves, enters).tolist() == sorted([*rest, enters])
    assert replaced(ordered, leaves, math.nan).tolist() == sorted(rest)
    assert replaced(ordered, math.nan, enters).tolist() == sorted([*values, enters])
    assert replaced(ordered, math.nan, math.nan) is ordered
    assert ordered.tolist() == before.tolist()


@given(values=st.lists(st.floats(0, 10), min_size=1, max_size=30))
def test_quantiles_are_linear_between_values(values: list[float]) -> None:
    ordered = np.sort(np.array(values))
    levels = (0.0, 0.5, 0.9, 0.99, 1.0)
    assert quantiles((ordered, ordered), levels)[1] == pytest.approx(np.quantile(ordered, levels))
    assert quantiles((np.empty(0),), levels).tolist() == [[0.0] * 5]


@given(loads=LOADS)
def test_the_largest_load_of_a_window_rolls_over_holes(loads: list[float | None]) -> None:
    loads = [*loads, 5.0]
    asked = envelopes.asked(grown(loads), 1.0, STEP)
    known = [0.0 if v is None else v for v in loads]
    for i, expert in enumerate(envelopes.EXPERTS):
        if expert.kind == "flat":
            top = expert.headroom_ratio * max(known[-STEP.of(expert.window_s) :])
            assert asked[i] == max(math.ceil(min(top, envelopes.CEILING * max(known)) - envelopes.SLACK), 1)


def test_a_straight_ramp_is_forecast_to_the_moment_a_replica_would_be_ready() -> None:
    load = grown([10.0 * i for i in range(30)])
    asked = envelopes.asked(load, 1.0, STEP)
    trend = next(i for i, e in enumerate(envelopes.EXPERTS) if e.name == "forecast-trend1-q0.95")
    assert asked[trend] == 10 * (29 + STEP.lead)  # 60 s are 4 ticks, and the tick that is then served from end to end


def test_a_forecast_is_not_held_and_never_below_what_arrives() -> None:
    load = grown([500.0] * 300 + [20.0] * 2 + [400.0])
    asked = envelopes.asked(load, 1.0, STEP)
    for i, expert in enumerate(envelopes.EXPERTS):
        assert asked[i] >= 400
        assert expert.held == (i < envelopes.HELD_COUNT)
