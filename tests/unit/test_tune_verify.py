"""The parts of a proof that are pure: shares of traffic, and samples of tests that ran side by side."""

from types import SimpleNamespace

import numpy as np
import pytest

from deployctl.core.demand import Demand, RateStep, constant
from deployctl.core.load_samples import Samples
from deployctl.core.slo import Objective, Slo
from deployctl.flows._probe import Bench
from deployctl.flows._profile import measured_sizes
from deployctl.flows._verify import _run, merged, share_of
from deployctl.ports import LoadResult, Workspace
from deployctl.testing.memory import NotedProgress

SLO = Slo(objectives=(Objective(metric="latency", max=0.1, percentile=99.0),))


def samples(times, errors=(), codes=None):
    n = len(times)
    t = np.array(times, dtype=float)
    code = np.array(codes if codes is not None else [-1] * n)
    return Samples(intended_s=t, sent_s=t, latency_s=t * 0 + 0.01, ok=code < 0, size=np.ones(n, dtype=np.int64), error=code, errors=tuple(errors))


def test_one_share_is_tested_at_the_peak_in_legs():
    steps = Demand(steps=(RateStep(start_s=0.0, rate_rps=10.0), RateStep(start_s=60.0, rate_rps=90.0)))
    share = share_of(steps, 3, SLO)
    assert share.demand.peak_rps == pytest.approx(30.0) and len(share.demand.steps) == 1
    assert share.legs > 1


def test_a_trace_is_tested_once_where_it_is_busiest():
    times = (*np.linspace(0, 100, 20), *np.linspace(200, 210, 500))
    trace = Demand(steps=(RateStep(start_s=0.0, rate_rps=100.0),), arrivals="trace", times_s=tuple(float(t) for t in times))
    share = share_of(trace, 2, SLO)
    assert share.legs == 1 and len(share.demand.times_s) == 250
    assert 0 <= min(share.demand.times_s) < 1 and max(share.demand.times_s) < share.leg_s


def test_side_by_side_samples_are_in_order_and_keep_their_errors():
    both = merged([samples([0.0, 2.0], ["late", "gone"], [1, -1]), samples([1.0, 3.0], ["gone"], [-1, 0])])
    assert list(both.intended_s) == [0.0, 1.0, 2.0, 3.0]
    assert [both.errors[c] if c >= 0 else "" for c in both.error] == ["gone", "", "", "gone"]
    assert list(both.ok) == [False, True, True, False]


def test_many_sizes_are_measured_at_the_ends_and_in_the_mass():
    from deployctl.core.demand import SizeShare

    mix = tuple(SizeShare(size=16 * (i + 1), share_ratio=0.125) for i in range(8))
    found = measured_sizes(constant(1.0, mix=mix))
    assert found[0] == 16 and found[-1] == 128 and 3 <= len(found) <= 4
    assert measured_sizes(constant(1.0, mix=mix[:3])) == [16, 32, 48]


class Scripted:
    """A load generator that answers each leg with the next share of late requests, and a launcher that counts its servers."""

    def __init__(self, *late):
        self.late, self.asked, self.started, self.stopped = list(late), [], 0, 0
        self.passed_s, self.own_ratio, self.others_ratio = 0.0, 0.0, 0.0

    def run(self, request, progress=None):
        self.asked.append(request)
        self.passed_s += request.duration_s
        at_s = np.arange(0.0, request.duration_s, 1 / request.demand.peak_rps)
        latency_s = np.where(np.random.default_rng(request.seed).random(at_s.size) < self.late.pop(0), 0.5, 0.01)
        ones = np.ones(at_s.size, dtype=np.int64)
        found = Samples(intended_s=at_s, sent_s=at_s, latency_s=latency_s, ok=ones > 0, size=ones, error=-ones, errors=())
        return LoadResult(samples=found, generator_cpu_ratio=0.1, late_sends=0, started_at_s=0.0, warmup_requests=0)

    def start(self, folder, *, explicit=False, cpus=()):
        self.started += 1
        use = lambda: SimpleNamespace(spent_s=self.passed_s * self.own_ratio)  # noqa: E731
        return SimpleNamespace(http_url="127.0.0.1:1", stop=self.stop, core_use=use)

    def stop(self):
        self.stopped += 1

    def busy_s(self, cpus):
        return self.passed_s * (self.own_ratio + self.others_ratio)

    def monotonic_s(self):
        return self.passed_s

    def build(self, bundle, into, **_):
        into.mkdir(parents=True)


def run(tmp_path, script, rate_rps=60.0, replicas=1, server_cpus=()):
    tools = SimpleNamespace(
        workspace=Workspace(tmp_path),
        repository=script,
        launcher=script,
        loadgen=script,
        clock=script,
        blobs=SimpleNamespace(path=lambda digest: tmp_path),
    )
    bench = Bench(
        tools=tools, progress=NotedProgress(), bundle=SimpleNamespace(entry="m", sample="s"), demand=constant(rate_rps), limit_s=0.1,
        server_cpus=server_cpus, client_cpus=(),
    )  # fmt: skip
    return _run(bench, {}, replicas, share_of(bench.demand, replicas, SLO), SLO)


def test_a_clear_test_ends_after_its_first_leg_and_an_unclear_one_goes_on(tmp_path):
    good, bad, unclear = Scripted(0.0), Scripted(0.2), Scripted(0.011, 0.0, 0.0, 0.0, 0.0, 0.0)
    assert run(tmp_path, good).result == "PASS" and len(good.asked) == 1
    assert run(tmp_path, bad).result == "FAIL" and len(bad.asked) == 1
    assert run(tmp_path, unclear).result == "PASS" and 1 < len(unclear.asked) < 6
    assert len({request.seed for request in unclear.asked}) == len(unclear.asked) and unclear.started == unclear.stopped == 1


def test_what_stays_unclear_ends_inconclusive_after_the_last_leg(tmp_path):
    script = Scripted(*[0.011] * 12)
    verdict = run(tmp_path, script, rate_rps=12.0, replicas=2)
    assert verdict.result == "INCONCLUSIVE" and len(script.asked) == 12 and script.stopped == 2
    assert verdict.requests == 90 * 12


@pytest.mark.parametrize(
    ("own_ratio", "others_ratio", "cpus", "result"),
    [
        (0.5, 0.0, (0,), "FAIL"),  # nobody else was there
        (0.5, 0.1, (0,), "FAIL"),  # hardly anybody
        (0.5, 0.4, (0,), "INCONCLUSIVE"),
        (0.8, 0.2, (0,), "INCONCLUSIVE"),
        (1.0, 0.0, (0,), "FAIL"),  # its own load fills the core
        (0.9, 0.1, (0,), "FAIL"),
        (0.5, 0.4, (), "FAIL"),  # the cores are not the server's alone: nobody knows who was late for whom
    ],
)
def test_a_miss_while_others_took_the_servers_cores_is_undecided(tmp_path, own_ratio, others_ratio, cpus, result):
    script = Scripted(0.2)
    script.own_ratio, script.others_ratio = own_ratio, others_ratio
    verdict = run(tmp_path, script, server_cpus=cpus)
    assert verdict.result == result and len(script.asked) == 1
    said = verdict.objectives[0].reason
    assert (f"other processes took {others_ratio:.0%} of the server's cores" in said) == (result == "INCONCLUSIVE")
    assert ("repeat the command on a quieter machine" in said) == (result == "INCONCLUSIVE")


def test_a_pass_beside_others_stands(tmp_path):
    script = Scripted(0.0)
    script.own_ratio, script.others_ratio = 0.3, 0.6
    assert run(tmp_path, script, server_cpus=(0,)).result == "PASS"
