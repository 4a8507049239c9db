"""Judging: the interval covers, the verdict is three-valued, and lateness can only void."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployctl.core import codec
from deployctl.core.judging import assess
from deployctl.core.load_samples import Samples
from deployctl.core.slo import Objective, Slo
from deployctl.core.verdict import (
    Verdict,
    clean_requests,
    late_limit_s,
    least_duration_s,
    least_requests,
    planned_duration_s,
    provable,
    too_little,
    worst,
)


def _slo(max_s=0.1, percentile=99.0, at="client", errors=0.01):
    return Slo(objectives=(Objective(metric="latency", percentile=percentile, max=max_s, at=at), Objective(metric="errors", max=errors)))


def _samples(latency_s, *, duration_s=20.0, ok=None, late_s=0.0):
    n = len(latency_s)
    at = np.arange(n) / n * duration_s
    ok = np.ones(n, dtype=bool) if ok is None else ok
    return Samples(
        intended_s=at,
        sent_s=at + late_s,
        latency_s=np.where(ok, latency_s, np.nan),
        ok=ok,
        size=np.ones(n, dtype=np.int64),
        error=np.where(ok, -1, 0),
        errors=("refused",),
    )


def _judge(samples, slo=None, *, seed=0, duration_s=20.0):
    n = samples.ok.size
    return assess(samples, slo or _slo(), rng=np.random.default_rng(seed), offered_rps=n / duration_s, duration_s=duration_s, rounds=400)


def _spread(n, scale, seed=1):
    return np.random.default_rng(seed).gamma(4.0, scale / 4.0, size=n)


def test_fast_service_passes_and_says_why():
    verdict = _judge(_samples(_spread(2000, 0.01)))
    assert verdict.result == "PASS"
    latency = verdict.objectives[0]
    assert latency.interval.low <= latency.estimate <= latency.interval.high <= 0.1
    assert "keeps 100 ms" in latency.reason
    assert "none of 2000" in verdict.objectives[1].reason


def test_slow_service_fails():
    verdict = _judge(_samples(_spread(2000, 0.5)))
    assert verdict.result == "FAIL"
    assert verdict.objectives[0].interval.low > 0.1


def test_limit_inside_the_interval_is_inconclusive():
    latency = _spread(2000, 0.05)
    limit = float(np.quantile(latency, 0.99))
    verdict = _judge(_samples(latency), _slo(limit))
    assert verdict.objectives[0].result == "INCONCLUSIVE"
    assert "send for longer" in verdict.objectives[0].reason


def test_too_few_requests_cannot_bound_a_p99():
    verdict = _judge(_samples(_spread(200, 0.001)))
    assert verdict.result == "INCONCLUSIVE"
    assert "at least 368" in verdict.objectives[0].reason


def test_too_short_and_empty_are_inconclusive():
    assert _judge(_samples(_spread(2000, 0.001), duration_s=3.0), duration_s=3.0).result == "INCONCLUSIVE"
    empty = _judge(_samples(np.empty(0)))
    assert empty.result == "INCONCLUSIVE"
    assert empty.objectives[0].reason == "no request was sent"


def test_failures_are_misses_of_the_percentile_too():
    ok = np.arange(2000) % 20 != 0  # 5 % fail
    verdict = _judge(_samples(_spread(2000, 0.001), ok=ok))
    assert verdict.result == "FAIL"
    assert verdict.objectives[0].estimate is None
    assert verdict.objectives[0].interval.open_above
    assert verdict.objectives[1].result == "FAIL"
    assert verdict.failed == 100


def test_one_failure_of_many_is_inconclusive_for_a_tight_budget():
    ok = np.arange(2000) != 7
    verdict = _judge(_samples(_spread(2000, 0.001), ok=ok), _slo(errors=0.001))
    assert [o.result for o in verdict.objectives] == ["PASS", "INCONCLUSIVE"]
    assert "1 of 2000" in verdict.objectives[1].reason and "send at least 5,572" in verdict.objectives[1].reason


@pytest.mark.parametrize(
    ("n", "errors", "result"), [(367, 0.01, "INCONCLUSIVE"), (368, 0.01, "PASS"), (3687, 0.001, "INCONCLUSIVE"), (3688, 0.001, "PASS")]
)
def test_no_failure_passes_only_when_enough_was_sent_to_bound_the_share(n, errors, result):
    judged = _judge(_samples(_spread(n, 0.001)), _slo(percentile=90.0, errors=errors)).objectives[1]
    assert judged.result == result and (judged.interval.high <= errors) == (result == "PASS")
    assert clean_requests(errors) == (368 if errors == 0.01 else 3688)
    assert result == "PASS" or f"send at least {clean_requests(errors):,}" in judged.reason


def test_no_test_can_show_that_none_ever_fails():
    judged = _judge(_samples(_spread(5000, 0.001)), _slo(errors=0.0)).objectives[1]
    assert judged.result == "INCONCLUSIVE" and "promise a share" in judged.reason
    assert not provable(_slo(errors=0.0), 1e9) and too_little(_slo(errors=0.0), 1e12) == "no test can show errors of at most 0 %"


def test_lateness_voids_a_fail_that_it_caused():
    real, late = _spread(2000, 0.005), np.full(2000, 0.2)
    verdict = _judge(_samples(real + late, late_s=late))
    assert verdict.objectives[0].result == "INCONCLUSIVE"
    assert "late" in verdict.objectives[0].reason
    assert verdict.late_sends == 2000


def test_lateness_does_not_save_a_service_that_is_slow_by_itself():
    late = np.full(2000, 0.02)
    assert _judge(_samples(_spread(2000, 0.5) + late, late_s=late)).result == "FAIL"


def test_lateness_leaves_a_pass_alone_unless_less_was_sent():
    late = np.full(2000, 0.02)
    assert _judge(_samples(_spread(2000, 0.005) + late, late_s=late)).result == "PASS"
    slipping = np.linspace(0, 3.0, 2000)  # the last sends fall behind the end of the test
    verdict = _judge(_samples(_spread(2000, 0.005), late_s=slipping))
    assert verdict.result == "INCONCLUSIVE"
    assert "less load" in verdict.objectives[0].reason


def test_promised_elsewhere_can_pass_but_not_fail_at_the_client():
    assert _judge(_samples(_spread(2000, 0.005)), _slo(at="gateway")).result == "PASS"
    assert _judge(_samples(_spread(2000, 0.5)), _slo(at="gateway")).result == "INCONCLUSIVE"


def test_unmeasured_metric_is_inconclusive():
    slo = Slo(objectives=(*_slo().objectives, Objective(metric="ttft", percentile=99.0, max=1.0)))
    assert _judge(_samples(_spread(2000, 0.005)), slo).result == "INCONCLUSIVE"


def _streamed(first_s, gap_s, pieces):
    samples = _samples(first_s + gap_s * (pieces - 1))
    return dataclasses.replace(samples, first_s=first_s, pieces=pieces)


def _on(metric, limit_s):
    return Slo(objectives=(*_slo(max_s=60.0).objectives, Objective(metric=metric, percentile=99.0, max=limit_s)))


def test_pieces_are_judged_by_the_first_and_by_the_gaps():
    pieces = np.full(2000, 11)
    samples = _streamed(_spread(2000, 0.05), _spread(2000, 0.01, seed=2), pieces)
    for metric, usual_s in (("ttft", 0.05), ("itl", 0.01)):
        assert _judge(samples, _on(metric, 10 * usual_s)).objectives[-1].result == "PASS"
        assert _judge(samples, _on(metric, usual_s)).objectives[-1].result == "FAIL"
    late = dataclasses.replace(samples, sent_s=samples.intended_s + 0.2, first_s=samples.first_s + 0.2, latency_s=samples.latency_s + 0.2)
    assert _judge(late, _on("ttft", 0.2)).objectives[-1].result == "INCONCLUSIVE"  # the generator's lateness
    assert _judge(late, _on("itl", 0.01)).objectives[-1].result == "FAIL"  # lengthens no gap


def test_answers_of_one_piece_say_nothing_about_gaps_and_failed_ones_miss_both():
    whole = _streamed(_spread(2000, 0.05), np.zeros(2000), np.ones(2000, dtype=np.int64))
    judged = _judge(whole, _on("itl", 1.0)).objectives[-1]
    assert judged.result == "INCONCLUSIVE" and judged.reason == "no answer had two pieces"
    ok = np.arange(2000) % 20 != 0
    failed = dataclasses.replace(_samples(_spread(2000, 0.05), ok=ok), first_s=np.full(2000, 0.01), pieces=np.full(2000, 5))
    assert [_judge(failed, _on(m, 1.0)).objectives[-1].result for m in ("ttft", "itl")] == ["FAIL", "FAIL"]


def test_a_verdict_is_a_record():
    ok = np.arange(2000) % 20 != 0
    verdict = _judge(_samples(_spread(2000, 0.001), ok=ok))
    assert codec.loads(Verdict, codec.dumps(verdict)) == verdict


def test_same_seed_same_verdict():
    samples = _samples(_spread(2000, 0.03))
    assert _judge(samples, seed=3) == _judge(samples, seed=3)


ORDER = {"PASS": 0, "INCONCLUSIVE": 1, "FAIL": 2}


@given(seed=st.integers(0, 1000), factor=st.floats(1.0, 50.0))
@settings(max_examples=40, deadline=None)
def test_slower_is_never_judged_better(seed, factor):
    latency = _spread(800, 0.02, seed)
    before, after = _judge(_samples(latency)).objectives[0], _judge(_samples(latency * factor)).objectives[0]
    assert ORDER[after.result] >= ORDER[before.result]
    assert after.interval.low >= before.interval.low - 1e-12


@given(failures=st.lists(st.integers(0, 799), max_size=40), more=st.lists(st.integers(0, 799), min_size=1, max_size=40))
@settings(max_examples=25, deadline=None)
def test_more_failures_never_turn_into_a_pass(failures, more):
    # A further failure elsewhere may widen the interval (fewer bursts, more scatter), so FAIL may become INCONCLUSIVE, never PASS.
    ok = np.ones(800, dtype=bool)
    ok[failures] = False
    fewer_ok = ok.copy()
    fewer_ok[more] = False
    latency = _spread(800, 0.02)
    before, after = (_judge(_samples(latency, ok=o)) for o in (ok, fewer_ok))
    for one, other in zip(before.objectives, after.objectives, strict=True):
        assert other.result != "PASS" or one.result == "PASS"


@given(results=st.lists(st.sampled_from(["PASS", "FAIL", "INCONCLUSIVE"]), max_size=5))
def test_worst(results):
    assert worst(results) == ("FAIL" if "FAIL" in results else "PASS" if results and set(results) == {"PASS"} else "INCONCLUSIVE")


def test_late_limit_and_planned_duration():
    assert late_limit_s(_slo(0.1)) == pytest.approx(0.005)
    assert late_limit_s(_slo(0.01)) == 0.002
    assert planned_duration_s(_slo(), 40.0) == 50.0
    assert planned_duration_s(_slo(), 1000.0) == 20.0
    assert planned_duration_s(_slo(), 1.0) == least_duration_s(_slo(), 1.0) > 300.0  # what can be shown is sent for as long as it takes
    assert planned_duration_s(_slo(), 0.1) == 300.0 and not provable(_slo(), 0.1)  # and what cannot be shown is not waited for
    assert planned_duration_s(_slo(errors=0.001), 40.0) * 40.0 > 3688
    assert math.isfinite(planned_duration_s(_slo(), 0.0))


@given(rate_rps=st.floats(0.01, 1e4), errors=st.sampled_from([0.0, 0.0005, 0.001, 0.01, 0.1]), percentile=st.sampled_from([50.0, 95.0, 99.0, 99.9]))
def test_a_planned_test_can_pass_where_any_can(rate_rps, errors, percentile):
    slo = _slo(percentile=percentile, errors=errors)
    sent = rate_rps * planned_duration_s(slo, rate_rps)
    assert not provable(slo, rate_rps) or (sent >= least_requests(slo) and too_little(slo, sent) is None)


def test_a_promise_on_latency_implies_one_on_errors():
    latency = (Objective(metric="latency", percentile=50.0, max=0.1), Objective(metric="latency", percentile=99.9, max=0.3))
    assert Slo(objectives=latency).error_max_ratio == pytest.approx(0.001)
    assert Slo(objectives=latency[:1]).error_max_ratio == 0.01
