"""What `status` says: unknown is said, never shown as zero or as kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployctl.core.demand import RateStep
from deployctl.core.project import Environment, ModelSource, Project, Traffic
from deployctl.core.release import History, next_release
from deployctl.core.slo import Objective, Slo
from deployctl.core.status_view import Live, lines, needed, view
from deployctl.testing.contracts import a_plan

NOW_S = 10_000.0
PROJECT = Project(
    name="svc",
    model=ModelSource(kind="onnx", value="m.onnx"),
    slo=Slo(objectives=(Objective(metric="latency", percentile=99.0, max=0.1),)),
    traffic=Traffic(steps=(RateStep(start_s=0.0, rate_rps=40.0),)),
    environments=(Environment(name="local"),),
)
RELEASE = next_release(History(), a_plan(), action="up", now_s=1.0)


def live(**changes):
    facts = {
        "alive": True,
        "url": "http://127.0.0.1:8000",
        "grpc_url": "127.0.0.1:8001",
        "revision_serving": 1,
        "revision_wanted": 1,
        "phase": "serving",
        "message": "1 of 1 replicas answer",
        "replicas": (),
        "replicas_wanted": 1,
        "policy_says": "fixed at 1",
        "recent": (),
    }
    return Live(**{**facts, **changes})


def rows(rate_rps, p99_s, count=12):
    return tuple({"at_s": NOW_S - count + i + 1, "arrivals_rps": rate_rps, "p99_s": p99_s, "core_seconds": float(i)} for i in range(count))


def shown(**changes):
    return view(PROJECT, "local", live(**changes), RELEASE, notices=(), now_s=NOW_S)


@pytest.mark.parametrize(
    ("facts", "health", "code"),
    [
        ({}, "healthy", 0),
        ({"phase": "rolling", "revision_wanted": 2}, "changing", 0),
        ({"phase": "starting", "revision_serving": None}, "changing", 9),
        ({"phase": "degraded"}, "degraded", 4),
        ({"phase": "failed"}, "failed", 4),
        ({"alive": False, "phase": "degraded"}, "unsupervised", 11),
        ({"alive": False, "phase": "stopped", "url": None, "revision_serving": None}, "stopped", 6),
    ],
)
def test_health_and_exit_code(facts, health, code):
    status = shown(**facts)
    assert (status.health, status.exit_code) == (health, code)
    assert lines(status)[0].startswith(f"svc in local: {health.upper()}")


def test_a_p99_of_enough_requests_is_judged_with_its_place():
    assert shown(recent=rows(40.0, 0.05)).slo_kept is True
    broken = shown(recent=rows(40.0, 0.2))
    assert broken.slo_kept is False and any("BROKEN at the front door" in line for line in lines(broken))
    assert broken.cost_core_s == 11.0


def test_too_few_requests_judge_nothing():
    status = shown(recent=rows(1.0, 0.05))
    assert status.slo_kept is None and status.p99_s == 0.05
    assert any("too few to judge p99" in line for line in lines(status))


def test_no_traffic_and_old_rows_are_unknown():
    for recent in ((), tuple({**r, "at_s": r["at_s"] - 500} for r in rows(40.0, 0.05)), tuple({"at_s": NOW_S - i} for i in range(5, 0, -1))):
        status = shown(recent=recent)
        assert status.p99_s is None and status.slo_kept is None and status.load_rps is None
        assert any("p99" in line and "unknown" in line for line in lines(status))


def test_an_overload_stays_on_the_screen_for_a_minute():
    recent = (*rows(40.0, 0.9)[:3], *rows(40.0, 0.05)[3:])
    assert shown(recent=recent).p99_worst_s == 0.9


@given(st.floats(1.0, 99.99))
def test_a_percentile_needs_one_request_beyond_it(percentile):
    assert needed(percentile) * (100.0 - percentile) / 100.0 >= 1.0 - 1e-6
