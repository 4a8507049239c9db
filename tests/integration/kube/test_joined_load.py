"""Whatever happens to replicas on purpose, no request is lost: roll-out, rollback, autoscaling, drain; and what a dead node costs."""

import re
import time
import urllib.request

import pytest
from joined_load import both
from metrics_api import MetricsApi

from deployctl.core.decision import RateLimit, ScalingPolicy

pytestmark = [pytest.mark.kube, pytest.mark.triton, pytest.mark.timeout(280)]


class Count:
    """How much is sent at least, and how the clients and the cluster are set.

    `quick`: gRPC clients look names up anew after a second, and the cluster knows it. Else both have their defaults.
    """

    def __init__(self, requests, rate_rps, quick):
        self.requests, self.rate_rps = requests, rate_rps
        self.resolve_ms = 1_000 if quick else 30_000
        self.cluster = {"address_age_s": 3.0} if quick else {"grpc_connection_age_s": 10.0}

    def load(self, project, **options):
        return both(project, self.rate_rps, resolve_ms=self.resolve_ms, **options)


# The full counts are 20,000 together.
ROLL_OUTS = [
    pytest.param(Count(1_000, 20.0, quick=True), id="quick"),
    pytest.param(Count(11_000, 60.0, quick=False), id="defaults", marks=pytest.mark.full),
]
FULL = Count(3_000, 40.0, quick=True)


def finish(project, loads, count):
    """Send the rest; nothing may be lost, and both protocols did their part."""
    project.plane.until(lambda: sum(load.sent for load in loads) >= count.requests, f"{count.requests} requests", limit_s=200)
    report(loads)
    assert [load.failures for load in loads] == [[], []]
    assert all(load.sent >= count.requests / 3 for load in loads)


def report(loads):
    http_load, grpc_load = loads
    print(f"HTTP {http_load.sent} sent, {len(http_load.failures)} lost; gRPC {grpc_load.sent} sent, {len(grpc_load.failures)} lost")


@pytest.mark.parametrize("count", ROLL_OUTS)
def test_a_roll_out_and_a_rollback_lose_nothing(project, count):
    project.release(project.plan(project.bundle(offset=1), **count.cluster))
    project.wait()
    with count.load(project) as loads:
        project.plane.until(lambda: all(load.sent > 50 for load in loads), "traffic")
        assert all(load.values(0) == {1.0} for load in loads)
        project.release(project.plan(project.bundle(offset=2), **count.cluster))
        settled(project)
        since_s = time.monotonic()
        project.roll_back()
        settled(project)
        settled_s = time.monotonic()
        finish(project, loads, count)
        project.plane.until(lambda: all(load.values(settled_s) for load in loads), "traffic after the rollback")
        assert all(load.values(since_s) == {1.0, 2.0} for load in loads)
        assert all(load.values(settled_s) == {1.0} for load in loads)


def settled(project):
    """Serving, and every pod of the former release has ended."""
    project.wait()
    project.plane.until(lambda: all("deletionTimestamp" not in p["metadata"] for p in project.pods()), "pods that have left", limit_s=120)


@pytest.fixture(scope="module")
def metrics(plane, tmp_path_factory):
    api = MetricsApi(plane, tmp_path_factory.mktemp("metrics") / "tls")
    yield api.start()
    api.stop()


AT_ONCE = (RateLimit(kind="percent", value=900, period_s=1.0),)
ONE_TO_FOUR = ScalingPolicy(
    min_replicas=1, max_replicas=4, target=10.0, signal="arrivals_rps", scale_down_window_s=0.0, up_limits=AT_ONCE, down_limits=AT_ONCE
)


@pytest.mark.full
def test_the_real_autoscaler_goes_to_four_and_back_and_loses_nothing(project, metrics):
    metrics.external["deployctl_arrivals_rps"] = 10.0
    project.release(project.plan(project.bundle(), scaling=ONE_TO_FOUR, replicas=1, **FULL.cluster))
    project.wait()
    with FULL.load(project) as loads:
        metrics.external["deployctl_arrivals_rps"] = 40.0
        project.plane.until(lambda: ready(project) == 4, "four ready replicas", limit_s=90)
        project.plane.until(lambda: served_by(project) == 4, "traffic at each of them", limit_s=90)
        metrics.external["deployctl_arrivals_rps"] = 10.0
        project.plane.until(lambda: len(project.pods()) == 1, "one pod", limit_s=120)
        finish(project, loads, FULL)


@pytest.mark.full
def test_the_drain_of_a_node_keeps_the_budget_and_loses_nothing(project, joined):
    project.release(project.plan(project.bundle(), replicas=4, **FULL.cluster))
    project.wait()
    name = max(joined.nodes, key=lambda n: len(on_node(project, n)))
    least = []
    with FULL.load(project) as loads:
        refused = drain(project, name, least)
        try:
            project.plane.until(lambda: not on_node(project, name), "an empty node", limit_s=150)
            project.plane.until(lambda: ready(project) == 4, "four ready replicas", limit_s=90)
            finish(project, loads, FULL)
        finally:
            schedulable(project, name, True)
    assert refused, "the budget let every pod go at once"
    assert min(least) >= 3


def drain(project, name, least):
    """What `kubectl drain` does: no new pods, then an eviction each, asked again while the budget refuses; how often it did."""
    schedulable(project, name, False)
    refused = 0
    for worker in on_node(project, name):
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": worker.name, "namespace": project.namespace}}

        def evicted(worker=worker, body=body):
            nonlocal refused
            code, text = project.plane.request("POST", f"{worker.path}/eviction", body)
            assert code in (201, 429), text
            refused += code == 429
            if code == 201:
                least.append(healthy(project))
            return code == 201

        project.plane.until(evicted, f"an eviction of {worker.name}", limit_s=90, step_s=0.5)
    return refused


def schedulable(project, name, value):
    body = {"spec": {"unschedulable": not value}}
    code, text = project.plane.request("PATCH", f"/api/v1/nodes/{name}", body, content="application/merge-patch+json")
    assert code == 200, text


def on_node(project, name):
    """The project's pods there."""
    return [w for w in project.joined.nodes[name].workers() if w.pod["metadata"]["namespace"] == project.namespace]


def healthy(project):
    """Ready pods that nobody has evicted: what the budget counts. The endpoints follow a moment later."""
    return sum(
        any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
        for pod in project.pods()
        if "deletionTimestamp" not in pod["metadata"]
    )


@pytest.mark.full
def test_a_dead_node_costs_at_most_what_was_in_flight_and_nothing_with_one_retry(project, joined):
    """Two replicas on each of two nodes: placed one node after the other, since the scheduler only prefers to spread them."""
    bundle, name = project.bundle(t0_s=0.2), joined.add_node()
    try:
        for replicas, node in ((2, "joined-0"), (4, name)):
            for other in joined.nodes:
                schedulable(project, other, other == node)
            project.release(project.plan(bundle, replicas=replicas, **FULL.cluster))
            project.wait()
        assert [len(on_node(project, node)) for node in ("joined-0", name)] == [2, 2]
        for other in joined.nodes:
            schedulable(project, other, other in ("joined-0", name))
        with FULL.load(project, retry=True) as loads:
            project.plane.until(lambda: served_by(project) == 4, "traffic at each replica", limit_s=90)
            answered_before = sum(load.sent for load in loads)
            joined.lose_node(name)
            in_flight = sum(load.begun for load in loads) - answered_before  # begun before the last process was gone
            finish(project, loads, FULL)
            print(f"in flight {in_flight}, sent twice {[load.retried for load in loads]}")
            assert 0 < sum(len(load.retried) for load in loads) <= in_flight
    finally:
        joined.nodes.pop(name, None)
        for other in joined.nodes:
            schedulable(project, other, True)


def ready(project):
    return len(project.joined.routes.ready(project.namespace, "echo"))


def served_by(project):
    """How many of the ready replicas have answered clients: more than their own probes can be."""
    return sum(answered(address) > 50 for address in project.joined.routes.ready(project.namespace, "echo"))


def answered(address):
    with urllib.request.urlopen(f"http://{address}:8002/metrics", timeout=5) as answer:
        found = re.search(r"^nv_inference_request_success\{[^}]*\} (\d+)", answer.read().decode(), re.MULTILINE)
    return int(found[1]) if found else 0
