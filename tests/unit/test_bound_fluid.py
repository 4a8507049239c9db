"""The bound and the fluid model, against cases worked out by hand and against each other."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployctl.core import _fluid_kernels, bound, fluid

LOADS = st.lists(st.integers(0, 400), min_size=5, max_size=120).map(lambda v: np.repeat(np.array(v, dtype=float), 5))


def least(arrivals, **more):
    return bound.clairvoyant(np.asarray(arrivals, dtype=float), **({"capacity_rps": 10.0, "start_up_s": 30.0, "miss_ratio": 0.0} | more))


def test_constant_load_costs_what_it_needs() -> None:
    assert least(np.full(100, 35.0)).cost_s == 400.0


def test_a_short_gap_is_kept_and_a_long_one_is_not() -> None:
    def two_bursts(gap: int) -> np.ndarray:
        return np.concatenate([np.full(50, 20.0), np.full(gap, 5.0), np.full(50, 20.0)])

    assert least(two_bursts(20)).cost_s == 120 + 120  # the second replica stays: 20 s idle is less than 30 s of starting
    assert least(two_bursts(100)).cost_s == 200 + 50 + 30 + 50


def test_misses_are_spent_where_they_save_most() -> None:
    arrivals = np.full(1000, 5.0)
    arrivals[500:502] = 15.0
    assert least(arrivals).cost_s == 1000 + 32
    assert least(arrivals, miss_ratio=0.01).cost_s == pytest.approx(1000, rel=0.005)


def test_without_foresight_costs_more_and_may_be_impossible() -> None:
    arrivals = np.tile(np.concatenate([np.full(300, 5.0), np.full(60, 95.0)]), 10)
    known = least(arrivals, miss_ratio=0.01)
    unseen = bound.without_foresight(arrivals, capacity_rps=10.0, start_up_s=30.0, miss_ratio=0.01)
    assert known.feasible and not unseen.feasible
    assert unseen.least_miss_ratio > 0.01
    loose = bound.without_foresight(arrivals, capacity_rps=10.0, start_up_s=30.0, miss_ratio=0.2)
    assert loose.feasible and loose.cost_s > least(arrivals, miss_ratio=0.2).cost_s


def plan_by_seconds(arrivals: np.ndarray, *, level: int, cycle_s: float, price: float, lag: int, first_lead: float) -> float:
    """Cost plus priced misses of one level, one second after the other."""
    on, off = first_lead, 0.0
    for t, load in enumerate(arrivals):
        used = min(max(load - 10.0 * level, 0.0), 10.0)
        may = lag < 0 or (t >= lag and arrivals[t - lag] > 10.0 * level)
        on, off = min(on, off + cycle_s if may else math.inf) + 1.0, min(on, off) + price * used
    return min(on, off)


@given(
    arrivals=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40)), min_size=1, max_size=12).map(
        lambda runs: np.repeat([float(load) for load, _ in runs], [seconds for _, seconds in runs])
    ),
    level=st.integers(0, 3),
    cycle_s=st.sampled_from([0.0, 3.5, 30.0]),
    price=st.floats(0.001, 20.0),
    lag=st.sampled_from([-1, 0, 8]),
    first_lead=st.sampled_from([0.0, math.inf]),
)
@settings(max_examples=200, deadline=None)
def test_runs_of_equal_seconds_cost_what_their_seconds_cost(
    arrivals: np.ndarray, level: int, cycle_s: float, price: float, lag: int, first_lead: float
) -> None:
    room, missed = np.empty((arrivals.shape[0], 4)), np.zeros(arrivals.shape[0] // 20 + 1)
    runs = room[: _fluid_kernels.segments(arrivals, 10.0, level, lag, 20, room)]
    cost = _fluid_kernels.on_off(runs, cycle_s, price, first_lead, missed)
    slow = plan_by_seconds(arrivals, level=level, cycle_s=cycle_s, price=price, lag=lag, first_lead=first_lead)
    assert cost + price * float(missed.sum()) == pytest.approx(slow, rel=1e-9)
    used = np.clip(arrivals - 10.0 * level, 0.0, 10.0)
    assert all(part <= whole + 1e-9 for part, whole in zip(missed, np.add.reduceat(used, np.arange(0, used.size, 20)), strict=False))
    assert runs[:, 1].sum() == arrivals.shape[0]


def test_without_foresight_a_new_height_breaks_its_window() -> None:
    def broken(*heights: float, running: int = 1) -> float:
        arrivals = np.full(300 * len(heights), 5.0)  # and 20 s of that height in the middle of each five minutes
        for i, height in enumerate(heights):
            arrivals[300 * i + 140 : 300 * i + 160] = height
        found = bound.without_foresight(arrivals, capacity_rps=10.0, start_up_s=30.0, miss_ratio=0.5, running=running)
        assert found.feasible
        return found.least_broken_ratio

    assert broken(15, 25, 35, 45) == 1.0
    assert broken(45, 15, 35, 45) == 0.25  # what the first one needed is kept
    assert broken(15, 25, 35, 45, running=5) == 0.0  # a reserve from before
    assert broken(15, 15, 15) == pytest.approx(1 / 3)
    assert least(np.full(200, 35.0)).least_broken_ratio == 0.0  # no whole window


@given(LOADS, st.sampled_from([0, 7, 30]), st.sampled_from([0.0, 0.01, 0.1]))
@settings(max_examples=40, deadline=None)
def test_no_plan_undercuts_the_bound(arrivals: np.ndarray, start_up: int, miss_ratio: float) -> None:
    """Plans that know the future, of any envelope: none is cheaper than the bound at its own misses."""
    plant = fluid.Plant(capacity_rps=40.0, start_up_s=start_up, wait_s=0.0)
    for ahead in (0, start_up, start_up + 20):
        need = np.ceil(arrivals / 40.0)
        padded = np.concatenate([need, np.full(ahead, need[-1])])
        wanted = np.lib.stride_tricks.sliding_window_view(padded, ahead + 1).max(axis=1)
        result = fluid.outcome(fluid.run(arrivals, wanted.astype(np.int64), plant))
        allowed = max(result.miss_ratio, miss_ratio)
        found = bound.clairvoyant(arrivals, capacity_rps=40.0, start_up_s=float(start_up), miss_ratio=allowed, min_replicas=0)
        assert result.cost_s >= found.cost_s - 1e-6 * max(found.cost_s, 1.0)


@given(LOADS)
@settings(max_examples=30, deadline=None)
def test_the_bound_falls_with_the_budget_and_never_below_the_floor(arrivals: np.ndarray) -> None:
    costs = [least(arrivals, miss_ratio=m, min_replicas=0).cost_s for m in (0.0, 0.01, 0.05, 0.2)]
    assert all(a >= b - 1e-6 for a, b in itertools.pairwise(costs))
    assert costs[0] >= arrivals.sum() / 10.0 - 1e-6


@given(LOADS, st.sampled_from([1, 3]))
@settings(max_examples=30, deadline=None)
def test_waiting_evens_the_load_and_keeps_its_sum(arrivals: np.ndarray, wait_s: int) -> None:
    even = bound.relaxed(arrivals, wait_s=wait_s)
    assert even.sum() == pytest.approx(arrivals.sum(), abs=1e-6)
    assert even.max(initial=0.0) <= arrivals.max(initial=0.0) + 1e-9
    served, came = np.cumsum(even), np.cumsum(arrivals)
    assert (served <= came + 1e-6).all()
    assert (served[wait_s:] >= came[:-wait_s] - 1e-6).all()


def test_nodes_are_packed_and_kept() -> None:
    replicas = np.array([1.0] * 10 + [5.0] * 10 + [1.0] * 30)
    assert bound.nodes_needed(replicas, per_node=4, node_start_s=100, node_removal_s=0) == 50 + 10 + 100
    assert bound.nodes_needed(replicas, per_node=4, node_start_s=100, node_removal_s=20) == 50 + 30 + 100
    one = bound.node_bound(np.full(100, 35.0), capacity_rps=10.0, per_node=4, start_up_s=5, node_start_s=60, node_removal_s=600, miss_ratio=0.0)
    assert one.cost_s == 100.0


def test_a_start_takes_its_time_and_is_paid() -> None:
    arrivals = np.full(100, 30.0)
    wanted = np.concatenate([np.full(50, 1), np.full(50, 3)])
    flow = fluid.run(arrivals, wanted, fluid.Plant(capacity_rps=20.0, start_up_s=10))
    assert flow.ready[59] == 1 and flow.ready[60] == 3
    assert fluid.outcome(flow).cost_s == 50 + 150
    assert flow.missed[70:].sum() == 0 and flow.missed[20] == 10.0


def test_those_on_their_way_go_first() -> None:
    wanted = np.array([2] * 5 + [6] * 5 + [3] * 30)
    flow = fluid.run(np.zeros(40), wanted, fluid.Plant(capacity_rps=1.0, start_up_s=10))
    assert flow.ready[14] == 2 and flow.ready[15] == 3 and flow.starting[9] == 4 and flow.starting[10] == 1


def test_refusing_the_excess_saves_the_rest() -> None:
    arrivals = np.concatenate([np.full(60, 20.0), np.full(30, 60.0), np.full(200, 15.0)])
    wanted = np.ones(arrivals.shape[0], dtype=np.int64)
    lost = {
        a: fluid.outcome(fluid.run(arrivals, wanted, fluid.Plant(capacity_rps=20.0, start_up_s=30, admission=a))).miss_ratio for a in (True, False)
    }
    assert lost[True] < 0.25 < lost[False]


def test_windows_and_breaches() -> None:
    came = np.full(900, 10.0)
    missed = np.zeros(900)
    missed[10:20] = 10.0
    missed[40:45] = 10.0
    missed[600] = 1.0
    assert fluid.windows_ok(came, missed) == pytest.approx(2 / 3)
    assert fluid.breaches(came, missed) == [(10, 44), (600, 600)]
    assert fluid.longest_breach(came, missed) == 35.0
    assert fluid.windows_ok(np.zeros(0), np.zeros(0)) == 1.0
    assert math.isclose(fluid.windows_ok(np.full(100, 10.0), np.zeros(100)), 1.0)
