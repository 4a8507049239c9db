"""Planned arrivals: the law, the curve, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployctl.core.arrivals import arrival_times_s, sizes, weibull_shape
from deployctl.core.demand import Demand, RateStep, SizeShare, constant
from deployctl.errors import ProjectError


def _demand(*steps, **more):
    return Demand(steps=tuple(RateStep(start_s=s, rate_rps=r) for s, r in steps), **more)


def test_constant_is_a_grid():
    times = arrival_times_s(_demand((0, 10.0), arrivals="constant"), 2.0, np.random.default_rng(0))
    np.testing.assert_allclose(times, np.arange(20) / 10)


def test_constant_follows_steps():
    times = arrival_times_s(_demand((0, 10.0), (1.0, 0.0), (2.0, 20.0), arrivals="constant"), 3.0, np.random.default_rng(0))
    assert len(times) == 30
    assert np.count_nonzero(times < 1) == 10
    assert np.count_nonzero((times >= 1) & (times < 2)) == 0


def test_first_step_of_rate_zero():
    times = arrival_times_s(_demand((0, 0.0), (5.0, 100.0)), 10.0, np.random.default_rng(0))
    assert times.min() >= 5.0
    assert 400 < len(times) < 600


def test_no_rate_no_arrivals():
    assert len(arrival_times_s(_demand((0, 0.0)), 10.0, np.random.default_rng(0))) == 0
    assert len(arrival_times_s(_demand((0, 5.0)), 0.0, np.random.default_rng(0))) == 0


@pytest.mark.parametrize(("law", "cv"), [("poisson", 1.0), ("gamma", 0.5), ("gamma", 3.0), ("weibull", 0.5), ("weibull", 2.0)])
def test_rate_and_variation_of_the_gaps(law, cv):
    times = arrival_times_s(_demand((0, 200.0), arrivals=law, cv=cv), 1000.0, np.random.default_rng(7))
    gaps = np.diff(times)
    assert gaps.mean() == pytest.approx(1 / 200, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.06)


@given(
    seed=st.integers(0, 2**32 - 1),
    rates=st.lists(st.floats(0, 300), min_size=1, max_size=6),
    duration=st.floats(0.1, 20),
    law=st.sampled_from(["poisson", "constant", "gamma", "weibull"]),
    cv=st.floats(0.2, 3),
)
@settings(max_examples=80, deadline=None)
def test_always_rising_inside_and_repeatable(seed, rates, duration, law, cv):
    demand = _demand(*((float(i), r) for i, r in enumerate(rates)), arrivals=law, cv=cv)
    times = arrival_times_s(demand, duration, np.random.default_rng(seed))
    again = arrival_times_s(demand, duration, np.random.default_rng(seed))
    np.testing.assert_array_equal(times, again)
    assert np.all(np.diff(times) >= 0)
    assert np.all((times >= 0) & (times < duration))
    assert all(demand.rate_rps(t) > 0 for t in times[:50])


def test_trace_is_replayed_and_cut():
    demand = _demand((0, 1.0), arrivals="trace", times_s=(3.0, 0.5, 9.0, -1.0))
    np.testing.assert_array_equal(arrival_times_s(demand, 5.0, np.random.default_rng(0)), [0.5, 3.0])


def test_sizes_follow_the_mix():
    demand = constant(1.0, mix=(SizeShare(size=16, share_ratio=0.75), SizeShare(size=64, share_ratio=0.25)))
    drawn = sizes(demand, 40_000, np.random.default_rng(1))
    assert set(np.unique(drawn)) == {16, 64}
    assert np.mean(drawn == 16) == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize(
    ("demand", "code"),
    [
        (_demand((0, 1e9)), "demand-too-large"),
        (_demand((1, 5.0)), "demand-invalid"),
        (_demand((0, -5.0)), "demand-invalid"),
        (_demand((0, 5.0), arrivals="trace"), "demand-invalid"),
        (_demand((0, 5.0), arrivals="gamma", cv=-1.0), "demand-invalid"),
        (_demand((0, 5.0), arrivals="weibull", cv=1000.0), "demand-invalid"),
    ],
)
def test_refuses(demand, code):
    with pytest.raises(ProjectError) as caught:
        arrival_times_s(demand, 10.0, np.random.default_rng(0))
    assert caught.value.code == code


def test_weibull_shape_of_one_is_exponential():
    assert weibull_shape(1.0) == pytest.approx(1.0, abs=1e-9)
