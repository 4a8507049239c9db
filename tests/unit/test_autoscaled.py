"""The autoscaler in the loop of the simulator: equal to the fluid replay in the limit, conserving, deterministic."""

from __future__ import annotations

import numpy as np
import pytest

from deployctl.core import replay
from deployctl.core.autoscaled import Simulated, Subject, arrival_times, simulate_policy
from deployctl.core.decision import ScalingPolicy
from deployctl.core.demand import constant
from deployctl.core.fluid import Plant
from deployctl.core.policies import POLICIES
from deployctl.core.profile import ServicePoint, ServiceProfile, StageProfile
from deployctl.core.serving import ServingConfig
from deployctl.core.simulate import Scenario, simulate
from deployctl.core.traces import Trace, poisson

RATE = 200.0
SERVICE_S = 1 / RATE
PLANT = Plant(capacity_rps=RATE, start_up_s=30, wait_s=0.5, admission=True)
CONFIG = {"m": ServingConfig(max_batch=1, queue_timeout_s=0.5)}
MOST = 30


def profile(std_s: float = 0.0, stages: int = 1) -> ServiceProfile:
    points = (ServicePoint(batch=1, size=1, mean_s=SERVICE_S, std_s=std_s, count=100),)
    names = ["m", "n"][:stages]
    return ServiceProfile(
        stages=tuple(StageProfile(model=n, points=points) for n in names), overhead_s=0.0, device="none", bundle="none", triton_version="none"
    )


def waves(seconds: int = 1500, seed: int = 1) -> Trace:
    t = np.arange(seconds)
    return Trace(name="waves", arrivals=poisson(5.3 * RATE + 3 * RATE * np.sin(t / 150) + 6 * RATE * ((t % 600) > 480), seed=seed))


def run(name: str = "hpa", *, seed: int = 1, trace: Trace | None = None, std_s: float = 0.0) -> Simulated:
    settings = replay.peer(name, PLANT, max_replicas=MOST)
    subject = Subject(profile=profile(std_s), config=CONFIG, limit_s=0.5 + SERVICE_S, most=MOST)
    return simulate_policy(trace or waves(), PLANT, settings, subject, seed=seed)


@pytest.mark.parametrize("name", ["slo", "keda"])
def test_many_short_requests_are_the_fluid(name: str) -> None:
    """Both scale on arrivals, which the two worlds share; misses differ only by what waits inside a second."""
    trace = waves()
    found = run(name, trace=trace).run
    fluid = replay.replay(trace, PLANT, replay.peer(name, PLANT, max_replicas=MOST))
    assert found.flow.wanted.tolist() == fluid.flow.wanted.tolist()
    assert found.flow.ready.tolist() == fluid.flow.ready.tolist()
    assert found.outcome.cost_s == fluid.outcome.cost_s
    assert name == "slo" or fluid.outcome.miss_ratio > 0.005  # the spikes are felt
    assert found.outcome.miss_ratio == pytest.approx(fluid.outcome.miss_ratio, rel=0.1, abs=0.002)


def test_a_policy_that_sees_the_queue_follows_about_the_same_way() -> None:
    trace = waves()
    found, fluid = run("hpa", trace=trace).run, replay.replay(trace, PLANT, replay.peer("hpa", PLANT, max_replicas=MOST))
    assert found.outcome.cost_s == pytest.approx(fluid.outcome.cost_s, rel=0.05)
    assert len(found.changes) > 5


@pytest.mark.parametrize("name", POLICIES)
def test_every_request_has_one_fate_and_replicas_stay_in_bounds(name: str) -> None:
    trace = waves(600)
    found = run(name, trace=trace, std_s=SERVICE_S / 2)
    assert found.arrival_s.shape == found.latency_s.shape == (int(trace.arrivals.sum()),)
    refused = int(np.isnan(found.latency_s).sum())
    late = int((found.latency_s > 0.5 + SERVICE_S).sum())
    assert found.run.flow.missed.sum() == refused + late
    assert found.latency_s[~np.isnan(found.latency_s)].min() > 0
    total = found.run.flow.ready + found.run.flow.starting
    assert total.max() <= MOST
    assert np.array_equal(total, found.run.flow.wanted)


def test_a_seed_gives_the_same_bytes_and_another_one_others() -> None:
    first, again, other = (run(seed=s, trace=waves(400), std_s=SERVICE_S / 2) for s in (1, 1, 2))
    assert first.latency_s.tobytes() == again.latency_s.tobytes()
    assert first.run.changes == again.run.changes
    assert first.latency_s.tobytes() != other.latency_s.tobytes()


def test_no_policy_in_the_loop_is_the_plain_simulation() -> None:
    """Fixed replicas, driven second by second, against one run from end to end."""
    trace = waves(200)
    fixed = ScalingPolicy(policy="hpa", min_replicas=9, max_replicas=9, target=1.0, signal="arrivals_rps")
    subject = Subject(profile=profile(SERVICE_S / 3, stages=2), config={}, limit_s=1.0, most=9)
    found = simulate_policy(trace, PLANT, fixed, subject, seed=4)
    times = tuple(arrival_times(trace, seed=4).tolist())
    demand = constant(trace.mean_rps)
    demand = type(demand)(steps=demand.steps, mix=demand.mix, arrivals="trace", times_s=times)
    plain = simulate(profile(SERVICE_S / 3, stages=2), {}, 9, demand, seed=5, scenario=Scenario())
    assert found.latency_s.shape == plain.latency_s.shape
    for q in (0.5, 0.95):
        assert np.quantile(found.latency_s, q) == pytest.approx(np.quantile(plain.latency_s, q), rel=0.05)


def test_replicas_drain_before_they_go() -> None:
    """A step down while every replica is busy: nothing that was accepted is lost."""
    trace = Trace(name="step", arrivals=np.repeat([8.0, 1.0, 1.0], 300) * RATE * 0.9)
    found = run("keda", trace=trace)
    assert found.run.flow.ready[-1] < found.run.flow.ready[250]
    assert not np.isnan(found.latency_s[found.arrival_s > 60]).any()
