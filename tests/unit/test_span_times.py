"""Triton's span tree: each request counts once, and its time is split as the server reports it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployctl.core import spans as core
from deployctl.core.spans import Span, histogram, histograms, request_times

MS = 1_000_000


def tree(trace="t1", *, start_ms=0, parent="", cached=False):
    """embed > tokenizer > compute and embed > minilm > compute under one root, as Triton writes them."""

    def span(name, span_id, parent_id, begin, end, attributes=None, **events):
        times = {k: (start_ms + v) * MS for k, v in events.items()}
        return Span(
            trace_id=trace,
            span_id=span_id,
            parent_id=parent_id,
            name=name,
            start_ns=(start_ms + begin) * MS,
            end_ns=(start_ms + end) * MS,
            attributes=attributes or {},
            events=times,
        )

    def model(name):
        return {"triton.model_name": name}

    found = [
        span("InferRequest", "root", parent, 0, 30, None, HTTP_RECV_START=0, HTTP_RECV_END=1, HTTP_SEND_START=29, HTTP_SEND_END=30),
        span("embed", "e", "root", 1, 29, model("embed"), REQUEST_START=1, QUEUE_START=1, REQUEST_END=29),
        span("tokenizer", "tok", "e", 2, 6, model("tokenizer"), REQUEST_START=2, QUEUE_START=2, REQUEST_END=6),
        span("compute", "tc", "tok", 3, 6, None, COMPUTE_START=3, COMPUTE_INPUT_END=4, COMPUTE_OUTPUT_START=5, COMPUTE_END=6),
        span("minilm", "m", "e", 6, 28, model("minilm"), REQUEST_START=6, QUEUE_START=6, REQUEST_END=28),
    ]
    if not cached:
        found.append(span("compute", "mc", "m", 16, 28, None, COMPUTE_START=16, COMPUTE_INPUT_END=17, COMPUTE_OUTPUT_START=27, COMPUTE_END=28))
    return found


def test_an_ensemble_is_split_into_its_models():
    (row,) = request_times(tree())
    assert row.model == "embed" and [s.model for s in row.stages] == ["tokenizer", "minilm"]
    assert [s.queue_s for s in row.stages] == pytest.approx([0.001, 0.010])
    assert row.stages[1].infer_s == pytest.approx(0.010) and row.stages[1].batch_ns == 16 * MS
    assert (row.total_s, row.queue_s, row.compute_s) == pytest.approx((0.030, 0.011, 0.015))
    assert row.other_s == pytest.approx(0.004) and row.receive_s == pytest.approx(0.001) and row.send_s == pytest.approx(0.001)


def test_only_roots_count_however_many_spans_there_are():
    rows = request_times([*tree("a"), *tree("b", start_ms=100), *tree("c", start_ms=50)])
    assert [r.trace_id for r in rows] == ["a", "c", "b"]


def test_a_request_with_the_clients_trace_is_a_root_too():
    assert len(request_times(tree(parent="client-span"))) == 1


def test_a_cache_hit_has_no_compute_and_no_queue():
    (row,) = request_times(tree(cached=True))
    assert row.stages[1].queue_s is None and row.stages[1].compute_s == 0.0


def test_a_plain_model_is_its_own_stage():
    found = [s for s in tree() if s.name not in ("embed", "tokenizer") and s.span_id != "tc"]
    plain = [Span(**{f: getattr(s, f) for f in Span.__slots__} | {"parent_id": "root"}) if s.name == "minilm" else s for s in found]
    (row,) = request_times(plain)
    assert row.model == "minilm" and [s.model for s in row.stages] == ["minilm"]


def test_a_root_whose_children_are_late_waits():
    assert request_times(tree()[:1]) == []


@given(st.permutations(tree()))
def test_the_order_of_arrival_does_not_matter(shuffled):
    assert request_times(shuffled) == request_times(tree())


def test_histograms_have_upstreams_names_and_add():
    rows = request_times([*tree("a"), *tree("b", start_ms=100)])
    found = histograms(rows)
    assert found[(core.REQUEST_HISTOGRAM, "embed")].count == 2
    assert found[(core.QUEUE_HISTOGRAM, "minilm")].count == 2 and (core.QUEUE_HISTOGRAM, "embed") not in found
    assert core.REQUEST_HISTOGRAM == "nv_inference_request_duration_histogram_us"


@given(st.lists(st.floats(1e-4, 10.0), min_size=1), st.lists(st.floats(1e-4, 10.0), min_size=1))
def test_adding_histograms_is_counting_together(a, b):
    both, together = histogram(a) + histogram(b), histogram(a + b)
    assert both.counts == together.counts and both.sum_us == pytest.approx(together.sum_us)


@given(st.lists(st.floats(1e-3, 1.0), min_size=1, max_size=200))
def test_a_quantile_is_off_by_one_bucket_at_most(values):
    exact_us = sorted(values)[max(0, -(-len(values) * 99 // 100) - 1)] * 1e6
    bound_us = histogram(values).quantile_us(0.99)
    assert bound_us is not None and exact_us <= bound_us * (1 + 1e-9) and bound_us <= exact_us * 1.37
    assert histogram([]).quantile_us(0.99) is None
