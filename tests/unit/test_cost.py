"""What nodes cost: whole machines, the floor on demand, unknown is unknown, and a limit is a limit."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployctl.core import cost, diff, review
from deployctl.core.decision import ScalingPolicy
from deployctl.core.plan_view import planned_cost_text
from deployctl.core.planner import Planned
from deployctl.core.platform import GIB, InstanceType, NodePool, Platform, Pool, Price
from deployctl.core.project import Environment, Limits
from deployctl.errors import Refused, SloUnreachable
from deployctl.testing import kube

MACHINE = InstanceType(name="m.4", cloud="eks", device="L4", gpus=4, cpu=48, memory_bytes=192 * GIB, source="a table", as_of="2026-11-01")
PRICE = Price(instance="m.4", on_demand_per_hour=4.0, spot_per_hour=1.0, source="a list", as_of="2026-11-02")
NODES = NodePool(name="gpu", device="L4", cpu=9.0, memory_bytes=36 * GIB)
POOL = Pool(nodes=NODES, instance=MACHINE, price=PRICE)


def place(pool=POOL, **limits):
    platform = Platform(name="p", pools=(pool,))
    return Environment(name="prod", on="kubernetes", pool="gpu", platform=platform, limits=Limits(**limits))


@pytest.mark.parametrize(
    ("share", "fits"), [({}, 4), ({"gpus": 2}, 2), ({"cpu": 20.0}, 2), ({"memory_bytes": 100 * GIB}, 1), ({"gpu_resource": None, "cpu": 4.0}, 5)]
)
def test_the_scarcest_resource_says_how_many_replicas_fit(share, fits):
    assert cost.replicas_per_node(dataclasses.replace(POOL, nodes=dataclasses.replace(NODES, **share))) == fits


def test_whole_machines_are_paid():
    assert [cost.of_replicas(POOL, n).per_day for n in (1, 4, 5)] == [96.0, 96.0, 192.0]


def test_the_floor_of_a_spot_pool_is_paid_on_demand():
    spot = dataclasses.replace(POOL, nodes=dataclasses.replace(NODES, spot=True), on_demand_nodes=1)
    assert [cost.of_nodes(spot, n).per_day for n in (0, 1, 3)] == [0.0, 96.0, 96.0 + 2 * 24.0]


def test_unknown_is_never_zero():
    bare = dataclasses.replace(POOL, price=None)
    assert (cost.of_nodes(bare, 0).per_day, cost.of_nodes(bare, 3).per_day) == (None, None)
    assert "pricing:" in cost.of_nodes(bare, 3).why_unknown
    spot = dataclasses.replace(POOL, nodes=dataclasses.replace(NODES, spot=True), price=dataclasses.replace(PRICE, spot_per_hour=None))
    assert "no spot price" in cost.of_nodes(spot, 1).why_unknown
    assert "names no instance" in cost.of_replicas(dataclasses.replace(POOL, instance=None), 1).why_unknown


@given(st.floats(min_value=0, max_value=5000), st.integers(min_value=1, max_value=4), st.booleans(), st.integers(min_value=0, max_value=3))
def test_the_most_replicas_within_a_limit_fit_and_one_more_does_not(limit, gpus, spot, floor):
    pool = dataclasses.replace(POOL, nodes=dataclasses.replace(NODES, gpus=gpus, spot=spot), on_demand_nodes=floor)
    most = cost.most_replicas(pool, limit)
    assert cost.of_replicas(pool, most).per_day <= limit
    assert cost.of_replicas(pool, most + 1).per_day > limit


def test_a_broken_limit_is_refused_with_the_number_that_fits():
    with pytest.raises(Refused) as caught:
        cost.within_limit(place(cost_per_day=200.0), 1, 1, 12, [])
    assert caught.value.code == "over-cost"
    assert "..8 " in caught.value.hint
    with pytest.raises(SloUnreachable) as caught:
        cost.within_limit(place(cost_per_day=90.0), 1, 1, 1, [])
    assert (caught.value.code, caught.value.exit_code) == ("slo-over-cost", 96)


def test_a_limit_that_cannot_be_checked_is_told():
    notices: list[str] = []
    span = cost.within_limit(place(dataclasses.replace(POOL, price=None), cost_per_day=90.0), 1, 1, 1, notices)
    assert span.start.per_day is None
    assert "cannot be checked" in notices[0]
    cost.within_limit(place(cost_per_day=90.0, currency="EUR"), 1, 1, 1, notices)
    assert "prices are in USD" in notices[1]


def test_the_bounds_of_a_platform():
    pools = (dataclasses.replace(POOL, nodes=dataclasses.replace(NODES, min_nodes=1, max_nodes=3)), dataclasses.replace(POOL, nodes=NODES))
    rows = cost.of_platform(Platform(name="p", pools=pools))
    assert (rows[0].lowest.per_day, rows[0].highest.per_day, rows[1].highest) == (96.0, 288.0, None)


def test_a_broken_budget_is_refused_and_an_open_end_is_told():
    bounded = dataclasses.replace(POOL, nodes=dataclasses.replace(NODES, max_nodes=3))
    with pytest.raises(Refused) as caught:
        cost.check_budget(Platform(name="p", pools=(bounded,), budget_per_day=200.0))
    assert caught.value.code == "over-budget"
    assert cost.check_budget(Platform(name="p", pools=(bounded,), budget_per_day=288.0)) == []
    assert "cannot be checked for gpu" in cost.check_budget(Platform(name="p", pools=(POOL,), budget_per_day=1.0))[0]


def planned(pool):
    span = cost.CostSpan(lowest=cost.of_replicas(pool, 1), start=cost.of_replicas(pool, 2), highest=cost.of_replicas(pool, 9))
    return Planned(plan=kube.plan(None), notices=(), proven=False, cores=2, cost=span)


def test_the_plan_shows_cost_with_its_source_or_why_it_is_unknown():
    assert planned_cost_text(planned(POOL)) == "96.00 USD/day for 1 node, at most 288.00 (a list, 2026-11-02)"
    assert planned_cost_text(planned(dataclasses.replace(POOL, price=None))).startswith("unknown: no price is known for m.4")
    assert "core-seconds" in planned_cost_text(dataclasses.replace(planned(POOL), cost=None))


def planned_for(replicas, pool="gpu"):
    scaling = ScalingPolicy(min_replicas=replicas, max_replicas=replicas)
    return kube.plan(None, replicas=replicas, scaling=scaling, cluster={"pool": NodePool(name=pool)})


def test_two_plans_are_compared_in_money_at_the_prices_of_today():
    platform = Platform(name="p", pools=(POOL,))
    found = diff.compare(planned_for(4), planned_for(5), platform)
    assert found.cost_texts == ("96.00 USD/day for 1 node (a list, 2026-11-02)", "192.00 USD/day for 2 nodes (a list, 2026-11-02)")
    assert diff.compare(None, planned_for(5), platform).cost_texts[0] == "nothing"
    gone = diff.compare(planned_for(1, pool="old"), planned_for(1), platform)
    assert gone.cost_texts[0] == "unknown: platform.yaml has no pool old"
    assert diff.compare(planned_for(1), planned_for(2)).cost_texts[1] == "unknown: no platform.yaml describes the pool"


def test_a_review_shows_what_the_nodes_cost():
    rows = {r.fact: (r.before, r.after) for r in review.rows(planned_for(4), planned_for(5), Platform(name="p", pools=(POOL,)))}
    assert [text.split(" (")[0] for text in rows["cost"]] == ["96.00 USD/day for 1 node", "192.00 USD/day for 2 nodes"]
