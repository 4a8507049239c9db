"""Preferred batch sizes: sequences worked out by hand, and the thread's own rounds in plain Python, against the compiled loop."""

import dataclasses
import math

import numpy as np
import preferred_reference
import pytest
from forecast_models import profile, stage
from hypothesis import given, settings
from hypothesis import strategies as st

from deployctl.core import _cluster_kernel, codec, plan_view, queueing, tuner
from deployctl.core.demand import constant
from deployctl.core.serving import ServingConfig
from deployctl.core.simulate import Scenario, replay, simulate

P = profile(stage(base_s=0.099, item_s=0.001, batches=(1, 8)))  # a batch of b takes 99 + b ms


def served(at_ms, *, preferred, delay_ms=0.0, max_batch=8, sizes=None, joins=False, **more):
    """(batches in the order in which they end, latencies in ms)."""
    serving = ServingConfig(max_batch=max_batch, queue_delay_s=delay_ms / 1e3, preferred_batches=preferred, **more)
    kinds = np.array(sizes or [1] * len(at_ms))
    p = profile(dataclasses.replace(stage(base_s=0.099, item_s=0.001, sizes=tuple(sorted(set(kinds.tolist()))), batches=(1, 8)), joins_sizes=joins))
    run = replay(p, {"m": serving}, 1, np.array(at_ms) / 1e3, kinds, seed=1)
    ends = np.round((run.arrival_s + run.latency_s) * 1e3, 6)
    return [int((ends == e).sum()) for e in sorted(set(ends[~np.isnan(ends)]))], [pytest.approx(v) for v in run.latency_s * 1e3]


def test_a_preferred_size_is_sent_at_once_and_what_is_short_of_one_waits_for_the_delay():
    assert served([0, 10], preferred=(2, 4), delay_ms=50) == ([2], [111, 101])  # the second makes two: nobody waits for four
    assert served([0], preferred=(2, 4), delay_ms=50) == ([1], [150])
    assert served([0, 10, 20], preferred=(4,), delay_ms=50) == ([3], [152, 142, 132])
    assert served([0, 10, 20, 30], preferred=None, delay_ms=50) == ([4], [153, 143, 133, 123])  # none named: the largest alone


def test_without_a_delay_a_preferred_size_is_closed_and_less_than_one_still_grows():
    burst = [0, 1, 2, 3, 4, 5, 6]  # the first executes; pairs are formed ahead while it does, the third pair when a place is free
    assert served(burst, preferred=(2,))[0] == [1, 2, 2, 2]
    assert served(burst, preferred=None)[0] == [1, 6]
    assert served(burst[:3], preferred=(4,))[0] == [1, 2]  # two of four grew together and are taken as they are


def test_two_batches_an_instance_are_formed_ahead_and_what_then_waits_is_formed_to_the_largest_size():
    """1 executes; [2, 3] and [4] wait, and there is no place to let the second grow until the first is done: then it takes 5, 6 and 7."""
    assert served(list(range(9)), preferred=(2, 4))[0] == [1, 2, 4, 2]


def test_beyond_the_largest_preferred_size_a_batch_that_waits_grows_by_one_and_closes():
    """With a delay a preferred batch stays open: the fifth joins the four that wait for the instance, the sixth begins anew."""
    assert served([0, *range(101, 107)], preferred=(4,), delay_ms=100)[0] == [1, 5, 1]


def test_a_batch_of_no_preferred_size_that_waits_is_topped_up_by_whoever_comes():
    """The first executes from 20 ms on; two others are sent after their 20 ms at 50 ms and wait for the instance; the last joins them."""
    assert served([0, 30, 31, 60], preferred=(8, 4), delay_ms=20) == ([1, 3], [120, 192, 191, 162])


def test_with_fixed_shapes_only_a_next_preferred_size_wakes_the_thread_so_the_batch_is_not_topped_up():
    assert served([0, 30, 31, 60], preferred=(8, 4), delay_ms=20, joins=True)[0] == [1, 2, 1]


def test_that_holds_where_none_are_named_too_and_only_with_a_delay():
    assert served([0, 30, 31, 60], preferred=None, delay_ms=20, joins=True)[0] == [1, 2, 1]
    assert served([0, 30, 31, 60], preferred=None, delay_ms=20)[0] == [1, 3]
    assert served([0, 30, 31, 60], preferred=None, joins=True)[0] == [1, 3]


def test_an_instance_adds_batches_whose_oldest_has_waited_longer_than_the_delay():
    """Behind the first wait [2, 3], which grew by one beyond its size and closed, and [4]; of 10 ms of delay both have seen the end."""
    assert served([0, 1, 2, 3], preferred=(1,), delay_ms=10) == ([1, 3], [100, 201, 200, 199])
    assert served([0, 1, 2, 95], preferred=(1,), delay_ms=10) == ([1, 2, 1], [100, 200, 199, 206])


def test_another_shape_sends_what_stands_before_it():
    assert served([0, 1, 2], preferred=(4,), delay_ms=50, sizes=[1, 1, 2])[0] == [2, 1]


def test_the_largest_batch_named_alone_is_what_triton_does_anyway():
    p, demand = profile(stage(cv=0.2)), constant(300.0)
    config = ServingConfig(max_batch=4, queue_delay_s=0.003)
    plain, named = (simulate(p, {"m": dataclasses.replace(config, preferred_batches=b)}, 2, demand, seed=1) for b in (None, (4, 16)))
    assert plain.latency_s.tobytes() == named.latency_s.tobytes()


@settings(max_examples=250, deadline=None)
@given(
    data=st.data(),
    max_batch=st.integers(2, 8),
    delay_ms=st.sampled_from([0.0, 3.0, 20.0]),
    timeout_ms=st.sampled_from([0.0, 0.0, 15.0]),
    instances=st.integers(1, 2),
    shapes=st.integers(1, 3),
    fixed=st.booleans(),
    rate=st.floats(80, 900),
    seed=st.integers(0, 9999),
)
def test_equals_the_threads_own_rounds_request_by_request(data, max_batch, delay_ms, timeout_ms, instances, shapes, fixed, rate, seed):
    preferred = tuple(sorted(data.draw(st.sets(st.integers(1, max_batch), min_size=1, max_size=3))))
    rng = np.random.default_rng(seed)
    at_s, size = np.cumsum(rng.exponential(1 / rate, 80)), rng.integers(0, 1 if fixed else shapes, 80)
    mean_s = (0.009 + 0.001 * np.arange(max_batch + 1))[:, None] * np.array([1.0, 2.0, 3.0])
    row = np.zeros((1, max_batch + 2), np.int64)
    row[0, list(preferred)] = 1
    row[0, 0], row[0, -1] = max(preferred), fixed
    done, executions, *_ = _cluster_kernel.run_cluster(
        *(np.array([[max_batch, instances, 0]]), np.array([[delay_ms / 1e3, timeout_ms / 1e3, 0.0]]), mean_s[None], np.zeros((1, *mean_s.shape))),
        *(np.ones((1, instances + 1)), np.zeros(1, np.int64), np.array([1e9]), np.zeros(2), -1.0, (0.0, 1.0), 0, np.zeros(1), np.array([[0, 1]])),
        *(at_s, size[None], np.zeros(4096), np.zeros(80)),
        preferred=row,
    )
    batcher = preferred_reference.Batcher(
        preferred=preferred, max_batch=max_batch, delay_s=delay_ms / 1e3, instances=instances, timeout_s=timeout_ms / 1e3, fixed=fixed
    )
    expected, batches = preferred_reference.serve(list(at_s), list(size), lambda b, s: float(mean_s[b, s]), batcher)
    assert done == pytest.approx(expected, abs=1e-9)
    assert {b: int(n) for b, n in enumerate(executions[0]) if n} == {b: batches.count(b) for b in sorted(set(batches))}


def test_every_request_of_an_ensemble_on_shared_cores_is_answered_once():
    stages = (stage("a", cv=0.2, cpu_ratio=0.5), stage("b", cv=0.2))
    p = profile(*stages, cores=2.0, polls=True, poll_handover_s=0.001)
    config = {m: ServingConfig(max_batch=8, queue_delay_s=0.004, preferred_batches=(2, 4)) for m in "ab"}
    run = simulate(p, config, 2, constant(250.0), seed=3, scenario=Scenario(requests=5000, schedule=((0.0, 2), (5.0, 1))))
    assert not np.isnan(run.latency_s).any() and run.latency_s.min() > 0
    for model in "ab":
        assert sum(b * n for b, n in run.executions[model].items()) == run.latency_s.size


def test_a_queue_limit_counts_who_is_in_no_batch_yet():
    """One executes, two and one are formed ahead, three are queued: the other three of ten are refused."""
    _, latency_ms = served(list(range(10)), preferred=(2,), queue_size=3)
    assert sum(math.isnan(v.expected) for v in latency_ms) == 3


def test_formulas_say_that_they_do_not_cover_it():
    found = queueing.forecast(P, {"m": ServingConfig(preferred_batches=(2,))}, 1, constant(5.0))
    assert not found.valid and "preferred" in found.why_not


def test_a_record_of_before_keeps_its_bytes_and_a_named_size_comes_back():
    assert "preferred" not in codec.dumps(ServingConfig())
    for named in (None, (), (2, 4)):
        serving = ServingConfig(preferred_batches=named)
        assert codec.loads(ServingConfig, codec.dumps(serving)) == serving


def test_candidates_keep_the_named_sizes_that_a_batch_limit_allows_and_a_plan_says_them():
    axes = tuner.Axes(max_batch=(1, 4, 8), queue_delay_s=(0.0,), instances=(1,), preferred_batches={"m": (2, 4)})
    found = tuner.candidates(axes, ["m", "other"])
    assert [(c["m"].max_batch, c["m"].preferred_batches, c["m"].named_batches) for c in found] == [
        (1, (), ()),
        (4, (2, 4), (2, 4)),
        (8, (2, 4), (2, 4)),
    ]
    assert {c["other"].preferred_batches for c in found} == {None}
    assert tuner.variations(found[2], "m", axes)[0]["m"].preferred_batches == ()
    assert "sends 2, 4 at once" in plan_view.settings_text(found[2]["m"]) and "at once" not in plan_view.settings_text(found[0]["m"])
