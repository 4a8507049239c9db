"""One signature, several methods: formula, simulation and an independent event simulation (SimPy) against each other."""

import dataclasses
import inspect

import batch_chain
import numpy as np
import pytest
import simpy

from deployctl.core import _station_kernel, queueing, simulate
from deployctl.core.demand import constant
from deployctl.core.profile import ServicePoint, ServiceProfile, StageProfile
from deployctl.core.serving import ServingConfig


def profile(base_s=0.004, item_s=0.001, cv=0.3):
    points = tuple(ServicePoint(batch=b, size=1, mean_s=base_s + item_s * b, std_s=cv * (base_s + item_s * b), count=9) for b in (1, 4, 16))
    stage = StageProfile(model="m", points=points)
    return ServiceProfile(stages=(stage,), overhead_s=0.001, device="cpu-2c", bundle="sha256:0", triton_version="2.51.0")


@pytest.mark.parametrize("method", [queueing.forecast, simulate.forecast], ids=["queueing", "simulation"])
class TestForecast:
    """What every method promises."""

    def test_signature(self, method):
        names = list(inspect.signature(method).parameters)
        assert names[:6] == ["profile", "config", "replicas", "demand", "slo_s", "seed"]

    @pytest.mark.parametrize("max_batch", [1, 16])
    def test_percentiles_are_ordered_and_rise_with_load(self, method, max_batch):
        config = {"m": ServingConfig(max_batch=max_batch)}
        found = [method(profile(), config, 1, constant(r), slo_s=0.05, seed=1) for r in (40.0, 110.0, 170.0)]
        assert all(f.valid and 0 < f.p50_s <= f.p95_s <= f.p99_s for f in found)
        assert found[0].p99_s < found[1].p99_s < found[2].p99_s
        assert all(f.bottleneck == "m" for f in found)

    def test_more_replicas_are_never_slower(self, method):
        one, two = (method(profile(), {"m": ServingConfig(max_batch=1)}, r, constant(120.0), seed=1) for r in (1, 2))
        assert two.p99_s <= one.p99_s * 1.02 and two.utilisation_ratio < one.utilisation_ratio

    def test_saturation_has_no_percentiles(self, method):
        f = method(profile(), {"m": ServingConfig(max_batch=1)}, 1, constant(300.0), slo_s=0.05, seed=1)
        assert f.p50_s is f.p95_s is f.p99_s is None and f.miss_ratio == pytest.approx(1.0, abs=0.05)

    def test_an_unmeasured_batch_is_not_valid(self, method):
        f = method(profile(), {"m": ServingConfig(max_batch=64)}, 1, constant(800.0), seed=1)
        assert not f.valid and "batch 64" in f.why_not


@pytest.mark.parametrize("rate", [60.0, 120.0, 160.0])
def test_formula_and_simulation_are_near_each_other(rate):
    config = {"m": ServingConfig(max_batch=1)}
    a, b = (m(profile(), config, 1, constant(rate), seed=1) for m in (queueing.forecast, simulate.forecast))
    for x, y in ((a.p50_s, b.p50_s), (a.p99_s, b.p99_s)):
        assert x == pytest.approx(y, rel=0.25)


@pytest.mark.parametrize("rate", [40.0, 150.0, 300.0, 500.0])
def test_the_bound_for_batching_is_near_the_simulation(rate):
    config = {"m": ServingConfig(max_batch=16)}
    a, b = (m(profile(cv=0.05), config, 1, constant(rate), seed=1) for m in (queueing.forecast, simulate.forecast))
    for x, y in ((a.p50_s, b.p50_s), (a.p99_s, b.p99_s)):
        assert x == pytest.approx(y, rel=0.45)


@pytest.mark.parametrize("load", [0.05, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("base_s", [0.001, 0.004, 0.03])
def test_inoues_bound_is_one_and_near_the_exact_chain(base_s, load):
    exact = batch_chain.mean_s(load / 0.001, base_s, 0.001)
    assert -1e-9 <= queueing.inoue_bound_s(load / 0.001, base_s, 0.001) / exact - 1 <= 0.09


@pytest.mark.parametrize(("base_s", "load"), [(0.001, 0.5), (0.004, 0.2), (0.010, 0.8)])
def test_the_simulated_batch_server_equals_its_exact_chain(base_s, load):
    points = tuple(ServicePoint(batch=b, size=1, mean_s=base_s + 0.001 * b, std_s=0.0, count=9) for b in (1, 512))
    one = dataclasses.replace(profile(), stages=(StageProfile(model="m", points=points),), overhead_s=0.0)
    found = simulate.simulate(
        one, {"m": ServingConfig(max_batch=512)}, 1, constant(load / 0.001), seed=3, scenario=simulate.Scenario(requests=300_000)
    )
    assert found.latency_s.mean() == pytest.approx(batch_chain.mean_s(load / 0.001, base_s, 0.001), rel=0.01)


def by_simpy(at_s, size, mean_s, *, max_batch, delay_s, instances):
    """The same batcher written as SimPy processes: a different author's event loop, the same rules."""
    env = simpy.Environment()
    waiting, done, idle = [], np.zeros(len(at_s)), [instances]

    def serve(members, length):
        yield env.timeout(length)
        done[members] = env.now
        idle[0] += 1
        dispatch()

    def ring(delay):
        yield env.timeout(delay)
        dispatch()

    def dispatch():
        while waiting and idle[0]:
            run = 1
            while run < min(max_batch, len(waiting)) and size[waiting[run]] == size[waiting[0]]:
                run += 1
            complete = run == max_batch or run < len(waiting)
            left = at_s[waiting[0]] + delay_s - env.now
            if not complete and left > 1e-12:
                env.process(ring(left))
                return
            members = waiting[:run]
            del waiting[:run]
            idle[0] -= 1
            env.process(serve(members, mean_s[run, size[members[0]]]))

    def arrive():
        for k, t in enumerate(at_s):
            yield env.timeout(t - env.now)
            waiting.append(k)
            dispatch()

    env.process(arrive())
    env.run()
    return done


@pytest.mark.parametrize(("max_batch", "delay_s", "instances", "rate"), [(1, 0.0, 1, 120), (8, 0.0, 2, 350), (8, 0.006, 1, 150), (4, 0.003, 4, 700)])
def test_equals_simpy_request_by_request(max_batch, delay_s, instances, rate):
    rng = np.random.default_rng(7)
    n = 3000
    at_s, size = np.cumsum(rng.exponential(1 / rate, n)), rng.integers(0, 2, n)
    mean_s = (0.004 + 0.001 * np.arange(max_batch + 1))[:, None] * np.array([1.0, 1.7])
    ours, _, _ = _station_kernel.run_station(
        *(np.array([max_batch, instances, 0]), np.array([delay_s, 0.0, 0.0]), 1, 0, mean_s, np.zeros_like(mean_s), np.ones(instances + 1)),
        *(at_s, size, np.zeros(4096), np.zeros(n)),
    )
    theirs = by_simpy(at_s, size, mean_s, max_batch=max_batch, delay_s=delay_s, instances=instances)
    np.testing.assert_allclose(ours, theirs, atol=1e-7)
