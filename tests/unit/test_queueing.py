"""Formulas against textbook values and against each other."""

import math

import pytest
from forecast_models import profile, stage
from hypothesis import given
from hypothesis import strategies as st

from deployctl.core import queueing as q
from deployctl.core.demand import Demand, RateStep, SizeShare, constant
from deployctl.core.serving import ServingConfig


@pytest.mark.parametrize(("servers", "offered", "expected"), [(1, 0.5, 0.5), (2, 1.0, 1 / 3), (5, 4.0, 0.5541), (10, 8.0, 0.4092)])
def test_erlang_c_known_values(servers, offered, expected):
    assert q.erlang_c(servers, offered) == pytest.approx(expected, abs=2e-4)


def test_single_server_formulas_agree():
    assert q.mm1_wait_s(0.7, 1.0) == pytest.approx(0.7 / 0.3)
    assert q.mg1_wait_s(0.7, 1.0, 1.0) == pytest.approx(q.mm1_wait_s(0.7, 1.0))
    assert q.md1_wait_s(0.7, 1.0) == pytest.approx(q.mm1_wait_s(0.7, 1.0) / 2)
    assert q.ggc_wait_s(1, 0.7, 1.0, arrival_cv=1.0, service_cv=0.5) == pytest.approx(q.mg1_wait_s(0.7, 1.0, 0.5))


def test_a_queue_that_cannot_keep_up_is_infinite():
    assert math.isinf(q.mmc_wait_s(2, 2.0, 1.0))
    assert math.isinf(q.inoue_bound_s(1001.0, 0.01, 0.001))


@given(servers=st.integers(1, 30), load=st.floats(0.05, 0.95), more=st.floats(0.0, 0.04))
def test_more_load_waits_longer_and_more_servers_wait_less(servers, load, more):
    rate = servers * load
    assert q.mmc_wait_s(servers, rate + servers * more, 1.0) >= q.mmc_wait_s(servers, rate, 1.0)
    assert q.mmc_wait_s(servers + 1, rate, 1.0) <= q.mmc_wait_s(servers, rate, 1.0)


def test_inoue_reduces_to_a_lone_request_at_no_load():
    # An empty server: service plus nothing. The bound is loose by at most half a base time there.
    assert 0.005 <= q.inoue_bound_s(1e-9, 0.004, 0.001) <= 0.005 + 0.002 + 1e-9


def test_percentiles_are_ordered_and_rise_with_the_rate():
    p = profile(stage(cv=0.3))
    old = 0.0
    for rate in (20.0, 60.0, 120.0):
        f = q.forecast(p, {"m": ServingConfig(max_batch=1)}, 1, constant(rate))
        assert f.valid and f.p50_s <= f.p95_s <= f.p99_s
        assert f.p99_s >= old
        old = f.p99_s


def test_saturation_has_no_percentiles_and_names_the_bottleneck():
    f = q.forecast(profile(stage("a", item_s=0.0001), stage("b")), {}, 1, constant(500.0), slo_s=0.1)
    assert f.p99_s is None and f.bottleneck == "b" and f.miss_ratio == 1.0
    assert f.throughput_rps == pytest.approx(200.0, rel=0.01)


@pytest.mark.parametrize(
    ("demand", "config", "word"),
    [
        (Demand(steps=(RateStep(start_s=0, rate_rps=1), RateStep(start_s=9, rate_rps=2))), ServingConfig(), "rate changes"),
        (constant(1.0), ServingConfig(queue_timeout_s=0.1), "queue limits"),
        (constant(1.0, mix=(SizeShare(size=512, share_ratio=1.0),)), ServingConfig(), "size 512"),
        (constant(1.0), ServingConfig(max_batch=64), "batch 64"),
        (constant(1.0), ServingConfig(instances=3), "3 instances"),
    ],
)
def test_says_what_it_does_not_know(demand, config, word):
    f = q.forecast(profile(stage()), {"m": config}, 1, demand)
    assert not f.valid and word in f.why_not


def test_capacity_counts_cores_that_stages_share():
    alone = profile(stage("a"), stage("b"))
    shared = profile(stage("a"), stage("b"), cores=1.0, request_cpu_s=0.001)
    config = {"a": ServingConfig(max_batch=1), "b": ServingConfig(max_batch=1)}
    assert q.capacity_rps(alone, config, constant(1.0)) == pytest.approx(200.0)
    assert q.capacity_rps(shared, config, constant(1.0)) == pytest.approx(1 / 0.011)
