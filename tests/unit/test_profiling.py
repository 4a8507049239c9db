"""Counters to service times: differences, resets, spread, laws, and what is not known."""

import numpy as np
import pytest
from forecast_models import profile, stage
from hypothesis import given
from hypothesis import strategies as st

from deployctl.core import profiling as p
from deployctl.core.profile import Interference, ServicePoint
from deployctl.ports import CoreUse


def test_differences_count_only_what_is_new():
    before = {1: (3, 0.3, 1.0, 0.1), 4: (2, 0.1, 1.0, 0.1)}
    after = {1: (5, 0.4, 2.0, 0.2), 4: (2, 0.1, 1.0, 0.1), 8: (1, 0.1, 0.7, 0.2)}
    assert p.executions(before, after) == [
        p.Execution(batch=1, count=2, total_s=pytest.approx(1.2)),
        p.Execution(batch=8, count=1, total_s=pytest.approx(1.0)),
    ]


def test_a_counter_that_fell_starts_from_zero():
    assert p.executions({1: (9, 1.0, 9.0, 1.0)}, {1: (2, 0.1, 0.2, 0.1)}) == [p.Execution(batch=1, count=2, total_s=pytest.approx(0.4))]


def test_a_point_that_was_never_executed_is_absent():
    assert p.point(4, 16, [p.Execution(batch=1, count=1, total_s=0.1)]) is None


def test_spread_is_that_of_single_executions_also_from_means_of_several():
    singles = [p.Execution(batch=2, count=1, total_s=t) for t in (0.010, 0.012, 0.014)]
    found = p.point(2, 16, singles)
    assert (found.mean_s, found.std_s, found.count) == (pytest.approx(0.012), pytest.approx(0.002), 3)
    assert p.point(2, 16, [p.Execution(batch=2, count=3, total_s=0.036)]).std_s == 0.0
    rng = np.random.default_rng(1)
    several = [p.Execution(batch=2, count=4, total_s=float(rng.normal(0.012, 0.002, 4).sum())) for _ in range(400)]
    assert p.point(2, 16, several).std_s == pytest.approx(0.002, rel=0.1)


def test_trimming_drops_the_longest():
    singles = [p.Execution(batch=1, count=1, total_s=t) for t in (0.01, 0.01, 0.01, 0.01, 0.5)]
    assert p.point(1, 1, singles, trim_ratio=0.2).mean_s == pytest.approx(0.01)
    assert p.point(1, 1, singles).mean_s > 0.1


def test_pooling_keeps_mean_and_total_variance():
    a = ServicePoint(batch=1, size=8, mean_s=1.0, std_s=0.0, count=1)
    b = ServicePoint(batch=1, size=8, mean_s=3.0, std_s=0.0, count=1)
    (pooled,) = p.merge([a, b])
    assert (pooled.mean_s, pooled.std_s, pooled.count) == (2.0, 1.0, 2)


@given(base=st.floats(1e-4, 0.1), item=st.floats(1e-5, 0.05))
def test_an_affine_law_is_found_again(base, item):
    law = p.affine(stage(base_s=base, item_s=item).points)
    assert law.base_s == pytest.approx(base, rel=1e-6, abs=1e-9)
    assert law.per_item_s == pytest.approx(item, rel=1e-6)
    assert law.residual_ratio < 1e-6


def test_one_point_never_flatters_batching():
    law = p.affine(stage(batches=(4,)).points)
    assert law.base_s == 0.0 and law.at(8) == pytest.approx(2 * law.at(4))


def test_table_interpolates_inside_and_names_what_is_outside():
    s = stage(sizes=(16, 64), batches=(1, 4))
    inside = p.service_table(s, [16, 40, 64], 4)
    assert inside.unknown == ()
    assert inside.mean_s[2, 0] == pytest.approx(0.006)
    assert inside.mean_s[1, 1] == pytest.approx((inside.mean_s[1, 0] + inside.mean_s[1, 2]) / 2)
    outside = p.service_table(s, [128], 8)
    assert any("size 128" in u for u in outside.unknown) and any("batch 8" in u for u in outside.unknown)
    assert outside.mean_s[8, 0] > outside.mean_s[4, 0] > 0


def test_a_stage_without_points_is_refused():
    with pytest.raises(ValueError, match="no measured point"):
        p.service_table(stage(batches=()), [1], 1)


def test_slowdown_is_measured_interpolated_or_unknown():
    one = profile(stage(), interference=(Interference(model="m", instances=4, slowdown_ratio=2.5),))
    table, measured = p.slowdowns(one, "m", 4)
    assert measured and list(table[1:]) == pytest.approx([1.0, 1.5, 2.0, 2.5])
    assert not p.slowdowns(one, "m", 5)[1]
    assert not p.slowdowns(profile(stage()), "m", 2)[1]
    assert p.slowdowns(profile(stage(), cores=1.0), "m", 2) == (pytest.approx([1, 1, 1]), True)


def test_disturbed_executions_count_only_where_there_are_no_others():
    calm, late = p.Execution(batch=1, count=1, total_s=0.010), p.Execution(batch=1, count=1, total_s=0.020)
    assert p.net([(calm, 0.0001), (late, 0.009), (calm, 0.0), (calm, 0.0)]) == [calm] * 3
    assert [e.total_s for e in p.net([(calm, 0.0), (late, 0.008), (late, 0.5)])] == pytest.approx([0.010, 0.012, 0.002])
    assert p.net([]) == []


def test_the_wait_is_that_of_the_thread_that_computed_most():
    before = CoreUse(server={1: 1.0}, backends={7: (1.0, 0.2), 8: (0.5, 0.1)}, spent_s=2.5)
    after = CoreUse(server={1: 1.5}, backends={7: (1.9, 0.3), 8: (0.6, 3.0), 9: (5.0, 5.0)}, spent_s=9.0)
    assert after.busiest_wait_s(before) == pytest.approx(0.1)  # 9 is new, 8 mostly slept


def test_what_a_server_used_does_not_fall_when_a_model_that_was_loaded_anew_loses_its_threads():
    before = CoreUse(server={1: 1.0, 2: 40.0}, backends={7: (70.0, 0.2)}, spent_s=111.0)
    after = CoreUse(server={1: 1.5}, backends={8: (0.6, 0.0)}, spent_s=112.2)
    assert after.server_since_s(before) == pytest.approx(0.5)
    assert after.total_since_s(before) == pytest.approx(1.1)
    assert after.spent_s - before.spent_s == pytest.approx(1.2)  # with what the ended ones used to their end


def test_core_seconds_outside_the_stages_are_what_does_not_grow_with_the_work():
    assert p.outside_cpu_s([(0.002, 0.0023), (0.012, 0.0143)]) == pytest.approx(0.0)  # all of it grows: a factor of 1.2
    assert p.outside_cpu_s([(0.002, 0.0027), (0.012, 0.0147)]) == pytest.approx(0.0003)
    assert p.outside_cpu_s([(0.002, 0.0027)]) == pytest.approx(0.0007)  # one size: the plain difference
    assert p.outside_cpu_s([(0.002, 0.0010), (0.012, 0.0147)]) == 0.0
    assert p.outside_cpu_s([(0.0, 0.0), (0.0, 0.0)]) == 0.0  # a server whose core use cannot be read


def test_the_traffic_ratio_is_what_the_stages_used_over_what_they_should():
    assert p.traffic_ratio(0.005, 0.001, 0.0065) == pytest.approx(1.1)
    assert p.traffic_ratio(0.005, 0.001, 0.0) == 1.0  # not known
    assert p.traffic_ratio(0.0001, 0.001, 0.002) == 1.0  # they hardly compute
    assert p.traffic_ratio(0.005, 0.001, 0.02) == p.TRAFFIC_RATIOS[1]


def test_what_the_model_does_not_explain_is_taken_from_requests_that_met_an_idle_service():
    sent_s = np.arange(100) * 0.1
    latency_s = np.full(100, 0.012)
    latency_s[50:80] = 2.0 - 0.05 * np.arange(30)  # something else ran, and a queue built up and went away
    latency_s[90] = np.nan
    middle, spread = p.unexplained(sent_s, latency_s, np.full(100, 0.010))
    assert (middle, spread) == (pytest.approx(0.002), pytest.approx(0.0, abs=1e-9))
    assert p.unexplained(sent_s[:30], np.full(30, 5.0), np.full(30, 0.010))[0] == pytest.approx(4.99)  # all queued: the least tenth
    assert p.met_idle(sent_s[:4], np.array([0.05, 0.15, 0.05, np.nan])).tolist() == [True, True, False, False]
    assert p.unexplained(sent_s[:2], np.full(2, np.nan), np.full(2, 0.01)) == (0.0, 0.0)


PAUSES_S = (0.004, 0.012, 0.03)


@given(w=st.floats(1e-4, 0.02), tau=st.floats(0.0015, 0.05))
def test_the_wake_law_finds_the_law_that_made_the_readings(w, tau):
    found_w, found_tau = p.wake_law([(t, w * (1 - np.exp(-t / tau))) for t in PAUSES_S])
    assert found_tau == pytest.approx(tau, rel=0.06)  # the steps of its grid are 11 % apart
    at = np.array(PAUSES_S)
    assert found_w * (1 - np.exp(-at / found_tau)) == pytest.approx(w * (1 - np.exp(-at / tau)), rel=0.03)


@given(more=st.lists(st.floats(-0.005, 0.02), min_size=3, max_size=3), w=st.floats(0.0, 0.03), tau=st.floats(0.001, 0.06))
def test_no_other_law_is_nearer_to_noisy_readings_and_it_never_saves_work(more, w, tau):
    at = np.array(PAUSES_S)

    def miss(w, tau):
        return float(np.sum((np.array(more) - w * (1 - np.exp(-at / tau))) ** 2))

    found = p.wake_law(list(zip(PAUSES_S, more, strict=True)))
    assert found[0] >= 0 and 0.001 <= found[1] <= 0.06
    assert miss(*found) <= miss(w, tau) + 0.02 * float(np.sum(np.square(more))) + 1e-12


@given(more=st.lists(st.floats(1e-4, 0.02), min_size=3, max_size=3))
def test_the_wake_law_knows_no_units(more):
    one, thousand = (p.wake_law([(t * k, m * k) for t, m in zip(PAUSES_S, more, strict=True)]) for k in (1, 1000))
    assert thousand == pytest.approx((one[0] * 1000, one[1] * 1000), rel=1e-6)


def test_pauses_that_cost_nothing_or_less_wake_nothing():
    assert p.wake_law([(t, 0.0) for t in PAUSES_S])[0] == 0.0
    assert p.wake_law([(t, -0.001) for t in PAUSES_S])[0] == 0.0


def fifo(sent_s: np.ndarray, service_s: np.ndarray) -> np.ndarray:
    """Latencies of one server, first come first served."""
    done_s, free_s = np.empty_like(sent_s), 0.0
    for i, (at_s, takes_s) in enumerate(zip(sent_s, service_s, strict=True)):
        free_s = done_s[i] = max(at_s, free_s) + takes_s
    return done_s - sent_s


def backlogged(*, load: float = 0.7, count: int = 1500) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Send times, sizes, and what the service of each should take."""
    rng = np.random.default_rng(3)
    size = rng.choice(np.array([16, 32, 128]), count, p=[0.5, 0.4, 0.1])
    service_s = size * 1e-4
    return np.cumsum(rng.exponential(service_s.mean() / load, count)), size, service_s


def test_a_backlog_tells_how_much_slower_the_stages_are_in_traffic_and_pauses_do_not_count():
    sent_s, size, service_s = backlogged()
    told_s = fifo(sent_s, service_s)
    assert p.backlog_ratio(sent_s, fifo(sent_s, 1.08 * service_s), told_s, size) == pytest.approx(1.08, rel=1e-3)
    assert p.backlog_ratio(sent_s, told_s + 0.003, told_s, size) == pytest.approx(1.0, rel=1e-3)  # a time outside is no service
    woken_s = fifo(sent_s, service_s + 0.001 * (np.concatenate(([True], sent_s[1:] > (sent_s + told_s)[:-1]))))
    assert p.backlog_ratio(sent_s, woken_s, told_s, size) == pytest.approx(1.0, rel=1e-3)


def test_a_backlog_tells_the_same_where_some_requests_were_disturbed_or_not_answered():
    sent_s, size, service_s = backlogged()
    told_s = fifo(sent_s, service_s)
    rng = np.random.default_rng(4)
    disturbed_s = fifo(sent_s, 1.05 * service_s + np.where(rng.random(size.size) < 0.1, 0.004, 0.0))
    disturbed_s[rng.random(size.size) < 0.03] = np.nan
    assert p.backlog_ratio(sent_s, disturbed_s, told_s, size) == pytest.approx(1.05, rel=0.02)


def test_without_a_backlog_nothing_is_told():
    sent_s, size, service_s = backlogged(load=0.02, count=200)
    told_s = fifo(sent_s, service_s)
    assert p.backlog_ratio(sent_s, told_s, told_s, size) is None
    assert p.backlog_ratio(sent_s[:1], told_s[:1], told_s[:1], size[:1]) is None
    assert p.backlog_ratio(sent_s, np.full(sent_s.size, np.nan), told_s, size) is None
