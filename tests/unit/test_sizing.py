"""Replicas, costs and targets from a profile; and what cannot be kept."""

import pytest
from forecast_models import profile, stage

from deployctl.core import sizing
from deployctl.core.demand import Demand, RateStep, constant
from deployctl.core.serving import ServingConfig
from deployctl.core.simulate import Scenario
from deployctl.core.slo import Objective, Slo

SLO = Slo(objectives=(Objective(metric="latency", max=0.05, percentile=99.0),))
QUICK = Scenario(requests=6000)
ONE = {"m": ServingConfig(max_batch=1)}


def test_costs_are_cores_here_and_replicas_elsewhere():
    settings = {"a": ServingConfig(instances=2), "b": ServingConfig(instances=1)}
    assert sizing.cost(settings, 3, shared_machine=True) == 9.0
    assert sizing.cost(settings, 3, shared_machine=False) == 3.0


def test_the_fewest_replicas_that_keep_the_slo():
    p = profile(stage(cv=0.2))
    found = sizing.size(p, ONE, constant(500.0), SLO, limit=8, seed=1, scenario=QUICK)
    fewer = sizing.estimate(p, ONE, found.replicas - 1, constant(500.0), SLO, seed=1, scenario=QUICK)
    assert found.keeps and found.replicas in (3, 4) and not fewer.keeps


def test_a_limit_is_a_limit():
    found = sizing.size(profile(stage()), ONE, constant(500.0), SLO, limit=2, seed=1, scenario=QUICK)
    assert not found.keeps and found.replicas == 2 and "saturates" in found.why


def test_replicas_that_share_the_machine_s_cores_do_not_add_up():
    p = profile(stage(), cores=1.0)
    apart = sizing.size(p, ONE, constant(300.0), SLO, limit=4, seed=1, scenario=QUICK)
    together = sizing.size(p, ONE, constant(300.0), SLO, limit=4, seed=1, scenario=Scenario(requests=6000, cores_shared=True))
    assert apart.keeps and not together.keeps and together.forecast.bottleneck == "cores"


def test_refused_requests_are_misses():
    limited = {"m": ServingConfig(max_batch=1, queue_size=1)}
    found = sizing.estimate(profile(stage(cv=0.5)), limited, 1, constant(150.0), SLO, seed=1, scenario=QUICK)
    assert not found.keeps and "refused" in found.why and found.forecast.miss_ratio > 0.1


def test_a_correction_scales_the_forecast():
    plain, worse = (sizing.estimate(profile(stage()), ONE, 1, constant(50.0), SLO, seed=1, scenario=QUICK, correction=c) for c in (1.0, 10.0))
    assert worse.percentile_s == pytest.approx(10 * plain.percentile_s)
    assert plain.keeps and not worse.keeps


def test_the_busy_target_keeps_the_slo_and_a_little_more_does_not():
    p = profile(stage(cv=0.3))
    target, rate = sizing.busy_target(p, ONE, "m", constant(10.0), SLO, seed=1, scenario=QUICK)
    assert 0.4 < target < 0.98
    assert sizing.estimate(p, ONE, 1, constant(rate * 0.9), SLO, seed=9, scenario=QUICK).keeps
    assert not sizing.estimate(p, ONE, 1, constant(rate * 1.2), SLO, seed=9, scenario=QUICK).keeps


def test_a_tighter_slo_never_raises_the_target():
    p = profile(stage(cv=0.3))
    tight = Slo(objectives=(Objective(metric="latency", max=0.02, percentile=99.0),))
    loose_rate, tight_rate = (sizing.busy_target(p, ONE, "m", constant(10.0), slo, seed=1, scenario=QUICK)[1] for slo in (SLO, tight))
    assert tight_rate <= loose_rate


def test_upper_bound_of_replicas():
    steps = Demand(steps=(RateStep(start_s=0.0, rate_rps=10.0), RateStep(start_s=60.0, rate_rps=90.0)))
    assert sizing.largest_replicas(steps, 40.0, 3, None) == 5
    assert sizing.largest_replicas(steps, 40.0, 3, 4) == 4
