"""What arrived is kept for weeks, read back by a policy that starts anew, and replayed."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from deployctl.adapters.spanstore import LOAD_STEP_S, SpanStore
from deployctl.core.decision import Observation, ScalingPolicy
from deployctl.core.policies import slo
from deployctl.flows.replay import Question
from deployctl.flows.replay import replay as replay_flow
from deployctl.hosts.local.meter import DoorMeter
from deployctl.hosts.local.past import Past, StoredLoad
from deployctl.hosts.local.scaler import Scaler
from deployctl.ports import Workspace
from deployctl.testing.memory import NotedProgress

NOW_S = 1_700_000_000.0


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


@pytest.fixture
def store(workspace: Workspace):
    opened = SpanStore(workspace.env("local") / "spans.db")
    yield opened
    opened.close()


def door(requests: float, *, answers: bool = True) -> DoorMeter:
    return DoorMeter(requests=requests, in_flight=0.0 if answers else None)


def test_steps_that_were_watched_whole_are_kept(store: SpanStore) -> None:
    past = Past(store)
    for second in range(62):
        silent = 20 <= second < 33
        past.note(NOW_S + second, door(7.0 * second, answers=not silent))
    kept = {round(at - NOW_S): requests for at, requests in store.load()}
    assert kept == {5: 35.0, 10: 35.0, 35: 35.0, 40: 35.0, 45: 35.0, 50: 35.0, 55: 35.0}  # not the first, nor those around the silence


def test_the_oldest_load_goes_when_it_is_older_than_two_weeks(tmp_path: Path) -> None:
    store = SpanStore(tmp_path / "s.db", load_age_s=1000.0)
    store.add_loads([(NOW_S + i * LOAD_STEP_S, 1.0) for i in range(1000)])
    at = [at for at, _ in store.load()]
    assert at[-1] - at[0] <= 1000.0 and store.counts()["load"] <= 201
    store.close()


def filled(store: SpanStore, seconds: int, end_s: float = NOW_S) -> None:
    rows = [(end_s - seconds + i * LOAD_STEP_S, 500.0 + 300.0 * math.sin(i / 40)) for i in range(int(seconds / LOAD_STEP_S))]
    store.add_loads(rows)


def test_a_policy_that_starts_anew_knows_what_arrived(store: SpanStore) -> None:
    filled(store, 7200)
    settings = ScalingPolicy(policy="slo", capacity_rps=40.0, start_up_s=30.0, max_replicas=50)
    past = list(Past(store).readings(settings.sync_s, NOW_S))
    assert len(past) == 480
    state = slo.initial_state()
    for i, readings in enumerate(past):
        seen = Observation(at_s=i * 15.0, readings=readings, replicas_ready=3, replicas_wanted=3)
        _, state = slo.decide(seen, state, settings, i * 15.0)
    scaler = Scaler(7200.0, lambda sync_s, _now_s: Past(store).readings(sync_s, NOW_S))
    scaler.decide(settings, [], DoorMeter(), ready=3, starting=0, wanted=3, now_s=7200.0)
    learned = scaler._state
    assert learned.scores.tolist() == state.scores.tolist()
    assert learned.load.over(slo.SUM_KNOWN, 10_000) == 480


def test_a_tick_with_a_hole_is_not_known(store: SpanStore) -> None:
    filled(store, 60, NOW_S - 30)
    filled(store, 25, NOW_S)
    known = [bool(readings) for readings in Past(store).readings(15.0, NOW_S)]
    assert known == [True] * 4 + [False, True]
    assert list(Past(SpanStore(store._path.with_name("none.db"))).readings(15.0, NOW_S)) == []


def test_the_largest_short_rate_of_a_tick() -> None:
    meter = DoorMeter()
    for second in range(30):
        burst = 40.0 * min(max(second - 20, 0), 5)
        meter._points.append((float(second), 10.0 * second + burst, 0.0, {}))
    assert meter.peak_rps(15.0) == pytest.approx(50.0)
    assert DoorMeter().peak_rps(15.0) is None


def test_what_the_service_saw_is_replayed_also_when_it_is_down(workspace: Workspace, store: SpanStore) -> None:
    filled(store, 3600, NOW_S - 1800)
    filled(store, 900)
    progress = NotedProgress()
    source = StoredLoad(workspace, "local", end_s=NOW_S, window_s=86_400.0)
    asked = Question(trace="recent", capacity_rps=40.0, start_up_s=30.0)
    done = replay_flow(None, None, progress, asked, source=source)
    assert done.document["trace"]["duration_s"] == 5400
    assert done.document["trace"]["requests"] == pytest.approx(4500 * 100, rel=0.1)
    assert ("note", "15 of 90 minutes are not known; they count as no load") in progress.said
    short = StoredLoad(workspace, "local", end_s=NOW_S, window_s=600.0).history("recent")
    assert len(short) == 120
    assert StoredLoad(workspace, "other", end_s=NOW_S, window_s=600.0).history("recent") == []
    assert not (workspace.env("other") / "spans.db").exists()  # looking makes nothing
