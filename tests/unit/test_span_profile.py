"""Spans to points and splits: batches by their common start, sizes by trace, and what is left out."""

import pytest
from forecast_models import stage

from deployctl.core import span_profile
from deployctl.core.profile import ServicePoint, StageSplit
from deployctl.core.spans import RequestTimes, StageTimes


def times(trace, model="m", *, queue_s=0.001, compute_s=0.005, batch_ns=1, server="s1"):
    part = StageTimes(model=model, queue_s=queue_s, input_s=0.0, infer_s=compute_s, output_s=0.0, batch_ns=batch_ns)
    return RequestTimes(
        trace_id=trace, at_s=0.0, model="all", total_s=0.1, receive_s=None, send_s=None, stages=(part,), resource={"service.name": server}
    )


def test_requests_that_began_at_the_same_moment_on_one_server_were_one_batch():
    seen = [times("a", batch_ns=5), times("b", batch_ns=5, compute_s=0.006), times("c", batch_ns=9), times("d", batch_ns=9, server="s2")]
    found = span_profile.points(seen, dict.fromkeys("abcd", 16))["m"]
    assert found == (
        ServicePoint(batch=1, size=16, mean_s=pytest.approx(0.005), std_s=pytest.approx(0.0), count=2),
        ServicePoint(batch=2, size=16, mean_s=pytest.approx(0.006), std_s=pytest.approx(0.0), count=1),
    )


def test_mixed_batches_and_unknown_traces_say_nothing_about_a_size():
    seen = [times("a", batch_ns=5), times("b", batch_ns=5), times("x", batch_ns=7)]
    assert span_profile.points(seen, {"a": 16, "b": 32})["m"] == ()
    assert [s.requests for s in span_profile.splits(seen, {"a": 16, "b": 32})] == [1, 1]


def test_queue_and_compute_are_split_by_size_with_medians():
    seen = [times(f"a{i}", queue_s=0.001 * i, batch_ns=i) for i in range(5)] + [times("b", compute_s=0.020, batch_ns=99)]
    seen.append(RequestTimes(trace_id="hit", at_s=0.0, model="all", total_s=0.1, receive_s=None, send_s=None, stages=(
        StageTimes(model="m", queue_s=None, input_s=None, infer_s=None, output_s=None, batch_ns=None),)))  # fmt: skip
    found = span_profile.splits(seen, {**{f"a{i}": 16 for i in range(5)}, "b": 64, "hit": 64})
    assert found == (
        StageSplit(model="m", size=16, requests=5, queue_s=pytest.approx(0.002), compute_s=pytest.approx(0.005)),
        StageSplit(model="m", size=64, requests=1, queue_s=pytest.approx(0.001), compute_s=pytest.approx(0.020)),
    )


def test_a_size_that_leaves_the_curve_is_told_but_not_a_common_factor():
    measured = stage(sizes=(16, 64))
    even = [StageSplit(model="m", size=s, requests=3, queue_s=0.0, compute_s=0.005 * s / 16 * 1.4) for s in (16, 32, 48, 64)]
    assert span_profile.surprises(measured, even) == []
    even[2] = StageSplit(model="m", size=48, requests=3, queue_s=0.0, compute_s=0.005 * 3 * 1.4 * 2)
    assert span_profile.surprises(measured, even) == ["m at size 48 takes +100% of what its neighbours say"]
