"""What every scaling policy promises; a new entry in POLICIES inherits these."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployctl.core import replay, traces
from deployctl.core.decision import Observation, Reading, ScaleTo, Unknown
from deployctl.core.fluid import Plant
from deployctl.core.policies import POLICIES, policy
from deployctl.errors import ProjectError

PLANT = Plant(capacity_rps=40.0, start_up_s=30)
ALL = pytest.mark.parametrize("name", POLICIES)


def constant(rate: float, seconds: int = 3600) -> traces.Trace:
    return traces.Trace(name="constant", arrivals=np.full(seconds, rate))


def settings_of(name: str, **more):
    return replace(replay.peer(name, PLANT, max_replicas=50), capacity_rps=40.0, start_up_s=30.0, **more)


@ALL
@given(
    loads=st.lists(st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), st.floats(0, 1e6)), min_size=1, max_size=25),
    low=st.integers(1, 5),
)
@settings(max_examples=40, deadline=None)
def test_never_outside_the_bounds_whatever_is_read(name: str, loads: list[float | None], low: int) -> None:
    rule, chosen = policy(name), settings_of(name, min_replicas=low)
    state, replicas = rule.initial_state(), low
    for i, value in enumerate(loads):
        readings = {key: Reading(value=value, samples=replicas) for key in ("arrivals_rps", "busy_ratio", "concurrency")}
        seen = Observation(at_s=i * 15.0, readings=readings, replicas_ready=replicas, replicas_wanted=replicas)
        decision, state = rule.decide(seen, state, chosen, i * 15.0)
        if isinstance(decision, ScaleTo):
            assert low <= decision.replicas <= 50
            assert value is not None and math.isfinite(value) and value >= 0
            replicas = decision.replicas


@ALL
@pytest.mark.parametrize("value, age_s", [(None, 0.0), (float("nan"), 0.0), (-5.0, 0.0), (100.0, 3600.0)], ids=["missing", "nan", "reset", "old"])
def test_unknown_changes_nothing(name: str, value: float | None, age_s: float) -> None:
    readings = {key: Reading(value=value, age_s=age_s) for key in ("arrivals_rps", "busy_ratio", "concurrency")}
    seen = Observation(at_s=0.0, readings=readings, replicas_ready=7, replicas_wanted=7)
    decision, _ = policy(name).decide(seen, policy(name).initial_state(), settings_of(name), 0.0)
    assert isinstance(decision, Unknown)


@ALL
@pytest.mark.parametrize("rate", [10.0, 100.0, 399.0, 400.0])
def test_constant_load_settles_and_never_flaps(name: str, rate: float) -> None:
    run = replay.replay(constant(rate), PLANT, settings_of(name))
    late = [at for at, _, _ in run.changes if at > 1200]
    assert late == []


@ALL
def test_the_same_inputs_give_the_same_decisions(name: str) -> None:
    rate = 200 + 150 * np.sin(np.arange(3600) / 300)
    runs = [replay.replay(traces.Trace(name="sine", arrivals=traces.poisson(rate, seed=5)), PLANT, settings_of(name)) for _ in range(2)]
    assert runs[0].changes == runs[1].changes
    assert runs[0].flow.missed.tobytes() == runs[1].flow.missed.tobytes()


@ALL
def test_a_step_up_is_followed(name: str) -> None:
    trace = traces.Trace(name="step", arrivals=np.repeat([40.0, 300.0], 1200))
    run = replay.replay(trace, PLANT, settings_of(name))
    assert run.flow.ready[-1] >= 8
    assert run.flow.missed[-300:].sum() == 0


def wave(seconds: int = 9000, seed: int = 1) -> traces.Trace:
    t = np.arange(seconds)
    rate = 260 + 160 * np.sin(t / 2000) + 300 * ((t % 3600) < 200)
    return traces.Trace(name="wave", arrivals=traces.poisson(rate, seed=seed))


def distorted(kind: str) -> replay.Distort:
    """From 3600 s to 7200 s metrics are broken in one way; `late` and `lost` all the time."""
    rng = np.random.default_rng(7)
    kept: dict[int, Observation] = {}

    def change(at_s: int, seen: Observation) -> Observation:
        broken, readings = 3600 <= at_s < 7200, seen.readings
        if kind == "late":
            kept[at_s] = seen
            old = next((kept[t] for t in range(at_s - 45, at_s - 61, -1) if t in kept), None)
            return replace(seen, readings={k: replace(r, age_s=45.0) for k, r in (old.readings if old else {}).items()})
        if kind == "lost" and rng.random() < 0.2:
            return replace(seen, readings={})
        if kind == "missing" and broken:
            return replace(seen, readings={})
        if kind == "nan" and broken:
            return replace(seen, readings={k: replace(r, value=math.nan) for k, r in readings.items()})
        if kind == "reset" and broken and rng.random() < 0.3:
            return replace(seen, readings={k: replace(r, value=-1e6) for k, r in readings.items()})
        if kind == "stuck" and broken:
            kept.setdefault(0, seen)
            return replace(seen, readings={k: replace(r, age_s=at_s - 3600.0) for k, r in kept[0].readings.items()})
        return seen

    return change


@ALL
@pytest.mark.parametrize("kind", ["late", "missing", "nan", "stuck", "reset", "lost"])
def test_broken_metrics_never_take_replicas_away_nor_outside_the_bounds(name: str, kind: str) -> None:
    chosen = settings_of(name, min_replicas=2)
    run = replay.replay(wave(), PLANT, chosen, distort=distorted(kind))
    assert run.flow.wanted.min() >= 2 and run.flow.wanted.max() <= 50
    if kind in ("missing", "nan", "stuck"):
        blind = run.flow.wanted[3600 + 75 : 7200]  # a reading may be believed for a minute
        assert (np.diff(blind) >= 0).all()


@pytest.mark.parametrize("kind", ["late", "missing", "nan", "stuck", "reset", "lost"])
def test_ours_asks_for_little_and_misses_little_whatever_is_broken(kind: str) -> None:
    """At most 1.5 times what the largest second needs and two more; less than 5 % missed."""
    trace = wave()
    run = replay.replay(trace, PLANT, settings_of("slo"), distort=distorted(kind))
    assert run.outcome.peak <= 1.5 * math.ceil(trace.arrivals.max() / PLANT.capacity_rps) + 2
    assert run.outcome.miss_ratio < 0.05


def test_ours_neither_takes_away_nor_piles_up_replicas_that_never_become_ready() -> None:
    trace = wave(7200)
    run = replay.replay(trace, replace(PLANT, start_up_s=10**6), settings_of("slo"), first=1)
    assert (np.diff(run.flow.wanted) >= 0).all()
    assert run.outcome.peak <= 1.5 * math.ceil(trace.arrivals.max() / PLANT.capacity_rps) + 2


@ALL
@given(low=st.floats(0, 1500), more=st.floats(0, 1500), replicas=st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_more_load_never_means_fewer_replicas(name: str, low: float, more: float, replicas: int) -> None:
    """One decision of a policy that has just begun, on a load and on a larger one."""
    wanted = []
    for rate in (low, low + more):
        each = rate / (replicas * PLANT.capacity_rps)
        values = {"arrivals_rps": rate, "busy_ratio": min(each, 1.0), "concurrency": each * replicas}
        readings = {key: Reading(value=value, samples=replicas) for key, value in values.items()}
        seen = Observation(at_s=0.0, readings=readings, replicas_ready=replicas, replicas_wanted=replicas)
        decision, _ = policy(name).decide(seen, policy(name).initial_state(), settings_of(name), 0.0)
        wanted.append(decision.replicas if isinstance(decision, ScaleTo) else replicas)
    assert wanted[0] <= wanted[1]


def test_an_unknown_name_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ProjectError) as caught:
        policy("magic")
    assert caught.value.code == "policy-unknown"
    assert "slo" in caught.value.hint
