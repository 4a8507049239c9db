"""Ask and tell: what is proposed after what was seen, and when it ends."""

import dataclasses

import pytest
from forecast_models import profile, stage

from deployctl.core import sizing, tuner
from deployctl.core.demand import constant
from deployctl.core.serving import ServingConfig
from deployctl.core.simulate import Scenario
from deployctl.core.slo import Objective, Slo
from deployctl.core.verdict import Verdict

SLO = Slo(objectives=(Objective(metric="latency", max=0.05, percentile=99.0),))


@pytest.fixture(scope="module")
def estimates():
    p = profile(stage(cv=0.1, batches=(1, 2, 4, 8, 16), cpu_ratio=0.0), cores=1.0)
    quick = Scenario(requests=4000, cores_shared=True)
    return [sizing.size(p, c, constant(150.0), SLO, limit=2, seed=1, scenario=quick) for c in tuner.candidates(tuner.Axes(), ["m"])]


def verdict(result):
    return Verdict(result=result, objectives=(), requests=100, failed=0, late_sends=0, offered_rps=1.0, reached_rps=1.0)


def outcome(estimate, result, factor=1.0):
    return tuner.Tested(estimate=estimate, verdict=verdict(result), measured_s=estimate.percentile_s * factor)


def test_candidates_cover_the_axes_without_a_delay_that_makes_no_sense():
    found = tuner.candidates(tuner.Axes(max_batch=(1, 4), queue_delay_s=(0.0, 0.01), instances=(1,)), ["a", "b"])
    assert len(found) == 3 and all(set(c) == {"a", "b"} for c in found)
    assert all(c["a"].max_batch > 1 for c in found if c["a"].queue_delay_s)


def test_the_cheapest_comes_first(estimates):
    step = tuner.propose([], estimates, limit_s=0.05)
    assert isinstance(step, tuner.Trial)
    assert step.estimate.cost == min(e.cost for e in estimates if e.keeps)


def test_a_pass_ends_the_search(estimates):
    first = tuner.propose([], estimates, limit_s=0.05).estimate
    end = tuner.propose([outcome(first, "PASS")], estimates, limit_s=0.05)
    assert isinstance(end, tuner.Done) and end.chosen.estimate is first


def test_a_miss_rules_out_what_is_tight_by_the_same_error(estimates):
    first = tuner.propose([], estimates, limit_s=0.05).estimate
    second = tuner.propose([outcome(first, "FAIL", 1.5)], estimates, limit_s=0.05)
    assert isinstance(second, tuner.Trial) and second.estimate is not first
    assert second.estimate.percentile_s * 1.5 <= 0.05
    hopeless = tuner.propose([outcome(first, "FAIL", 50.0)], estimates, limit_s=0.05)
    assert isinstance(hopeless, tuner.Done) and hopeless.chosen is None and "50.00 times" in hopeless.reason


def test_a_failed_probe_is_data_and_trials_are_bounded(estimates):
    first = tuner.propose([], estimates, limit_s=0.05).estimate
    broken = tuner.Tested(estimate=first, verdict=None, measured_s=None, error="does not load")
    assert tuner.propose([broken], estimates, limit_s=0.05).estimate is not first
    assert isinstance(tuner.propose([broken, broken, broken], estimates, limit_s=0.05), tuner.Done)


def test_a_pass_far_below_its_forecast_is_too_dear_unless_nothing_is_cheaper(estimates):
    dear = max((e for e in estimates if e.percentile_s is not None), key=lambda e: e.cost)
    cheap = min((e for e in estimates if e.percentile_s is not None), key=lambda e: e.cost)
    assert dear.cost > cheap.cost
    assert tuner.too_dear(outcome(dear, "PASS", 0.5), estimates)
    assert not tuner.too_dear(outcome(dear, "PASS", 0.9), estimates)
    assert not tuner.too_dear(outcome(cheap, "PASS", 0.5), estimates)


def test_infeasible_names_the_closest(estimates):
    assert "at most 2 replicas" in tuner.infeasible(estimates, 2).reason
    dead = [dataclasses.replace(e, percentile_s=None) for e in estimates]
    assert tuner.infeasible(dead, 2).best is None


def test_settings_in_words():
    assert tuner.settings_text({"m": ServingConfig(max_batch=4, queue_delay_s=0.002, instances=2)}) == "m: batch 4, wait 2 ms, 2 instances"
    named = ServingConfig(max_batch=8, queue_delay_s=0.002, preferred_batches=(2, 4, 16))
    assert tuner.settings_text({"m": named}) == "m: batch 8 (sends 2, 4 at once), wait 2 ms, 1 instance"  # 16 never comes
    assert "sends" not in tuner.settings_text({"m": ServingConfig(max_batch=8, preferred_batches=(8,))})  # what Triton does anyway
