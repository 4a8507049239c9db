"""Which misses other processes excuse: lateness that the server's own load does not explain, and nothing else."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployctl.core.contention import CoreReading, CoreShares, alone_ratio, between, excused
from deployctl.core.verdict import ObjectiveVerdict, Verdict

LATE = ObjectiveVerdict(metric="latency", percentile=99.0, max=0.1, estimate=0.5, result="FAIL", reason="even the lower end is 0.5 s")
ERRORS = ObjectiveVerdict(metric="errors", max=0.01, estimate=0.0, result="PASS", reason="none failed")
BUSY = CoreShares(cores=2.0, passed_s=100.0, busy_s=190.0, own_s=90.0)  # others took half of what was there
MISSED = Verdict(result="FAIL", objectives=(LATE, ERRORS), requests=1000, failed=0, late_sends=0, offered_rps=10.0, reached_rps=10.0)


def test_lateness_beside_others_is_undecided_and_says_whose_it_may_be():
    found = excused(MISSED, BUSY)
    assert found.result == "INCONCLUSIVE" and found.others_ratio == pytest.approx(0.5)
    assert found.objectives[1] == ERRORS
    assert found.objectives[0].reason.startswith(LATE.reason) and "took 50% of the server's cores" in found.objectives[0].reason


def test_a_load_that_fills_the_cores_alone_is_no_excuse():
    # Half of the requests were not answered in time: what each answer cost, at the offered rate, is more than there is.
    assert alone_ratio(MISSED, replace(BUSY, own_s=90.0)) == pytest.approx(0.45)
    assert excused(MISSED, replace(BUSY, own_s=200.0, busy_s=400.0)).result == "FAIL"
    twice = replace(MISSED, offered_rps=30.0)
    assert alone_ratio(twice, BUSY) == pytest.approx(1.35) and excused(twice, BUSY) == twice


def test_failed_requests_are_not_excused():
    failed = replace(MISSED, failed=20, objectives=(LATE, replace(ERRORS, result="FAIL", reason="20 failed")))
    assert excused(failed, BUSY).result == "FAIL"
    tolerated = replace(MISSED, failed=20)  # fewer than slo.errors allows, more than the percentile does
    assert excused(tolerated, BUSY).result == "FAIL"
    assert excused(replace(MISSED, failed=1000), BUSY).result == "FAIL"


@given(st.floats(0, 0.15), st.floats(0.0, 1.0))
def test_without_others_every_verdict_stands(others, own):
    shares = CoreShares(cores=1.0, passed_s=100.0, busy_s=100 * (own + others) * (1 - 1e-9), own_s=100 * own)
    assert excused(MISSED, shares) == MISSED


@given(st.floats(0, 1), st.floats(0, 1), st.sampled_from(["PASS", "INCONCLUSIVE"]))
def test_what_is_no_miss_stands(others, own, result):
    verdict = replace(MISSED, result=result, objectives=(replace(LATE, result=result),))
    assert excused(verdict, CoreShares(cores=1.0, passed_s=1.0, busy_s=own + others, own_s=own)) == verdict


FIRST = CoreReading(at_s=10.0, cores=2.0, busy_s=50.0, own_s={"server": 20.0, "door": 1.0})


def test_shares_are_what_was_used_from_one_reading_to_the_next():
    second = CoreReading(at_s=110.0, cores=2.0, busy_s=240.0, own_s={"server": 100.0, "door": 2.0, "backend": 9.0})  # one started meanwhile
    assert between(FIRST, second) == CoreShares(cores=2.0, passed_s=100.0, busy_s=190.0, own_s=90.0)


def test_without_a_reading_or_after_a_process_ended_or_moved_nobody_knows_and_a_miss_stays_one():
    ended = replace(FIRST, at_s=110.0, own_s={"server": 100.0})
    moved = replace(FIRST, at_s=110.0, cores=1.0)
    assert [between(None, FIRST), between(FIRST, None), between(FIRST, ended), between(FIRST, moved)] == [None] * 4
    assert excused(MISSED, None) == MISSED
