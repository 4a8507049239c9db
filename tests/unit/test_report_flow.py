"""The loadtest flow over memory ports: what is asked of the generator, what is written, kept and reused."""

import dataclasses
import json

import numpy as np
import pytest

from deployctl.cli.loadtest import EXIT, _rate, _slo
from deployctl.core.contention import CoreReading
from deployctl.core.demand import Demand, RateStep, constant
from deployctl.core.load_samples import Samples
from deployctl.core.slo import Objective, Slo
from deployctl.errors import ClusterError, ProjectError
from deployctl.flows import _loadstore, _stages
from deployctl.flows.loadtest import Aim, Options, loadtest
from deployctl.ports import LoadResult, ServerStats, Workspace
from deployctl.testing.memory import MemoryTarget, NotedProgress


class FixedGenerator:
    """Answers every planned request after `latency_s`; each run starts a second later."""

    def __init__(self, latency_s=0.01):
        self.latency_s = latency_s
        self.asked = []

    def run(self, request, progress=None):
        self.asked.append(request)
        n = int(request.duration_s * request.demand.peak_rps)
        at = np.arange(n) / n * request.duration_s
        samples = Samples(
            intended_s=at,
            sent_s=at,
            latency_s=np.full(n, self.latency_s),
            ok=np.ones(n, dtype=bool),
            size=np.ones(n, dtype=np.int64),
            error=np.full(n, -1),
            errors=(),
        )
        return LoadResult(samples=samples, generator_cpu_ratio=0.9, late_sends=0, started_at_s=1.7e9 + len(self.asked), warmup_requests=0)


class Silent:
    def stats(self):
        raise ClusterError("no", hint="no")


class Tools:
    def __init__(self, root, generator):
        self.workspace = Workspace(root)
        self.loadgen = generator

    def client(self, url):
        return Silent()


SLO = Slo(objectives=(Objective(metric="latency", percentile=99.0, max=0.1),))


def an_aim(tmp_path, **more):
    values = {"name": "m", "url": "127.0.0.1:8000", "model": "m", "bodies": tmp_path / "b", "slo": SLO, "demand": constant(50.0)}
    return Aim(**{**values, "own": False, "environment": {}, **more})


def test_length_follows_the_percentile_and_reports_are_written(tmp_path):
    generator = FixedGenerator()
    outcome = loadtest(an_aim(tmp_path), Tools(tmp_path, generator), NotedProgress(), Options(report=tmp_path / "copy.html"))
    assert generator.asked[0].duration_s == 40.0
    assert outcome.verdict.result == "PASS"
    assert json.loads(outcome.json.read_text())["verdict"]["result"] == "PASS"
    assert (tmp_path / "copy.html").read_text().startswith("<!doctype html>")
    assert outcome.document["stages"][1]["name"] == "front door and server"  # no statistics: said as one part, not guessed
    assert any("saturated" in w for w in outcome.document["warnings"])


def test_rate_replaces_the_curve_and_max_rate_bounds_it(tmp_path):
    generator = FixedGenerator()
    curve = Demand(steps=(RateStep(start_s=0.0, rate_rps=10.0), RateStep(start_s=5.0, rate_rps=90.0)))
    tools = Tools(tmp_path, generator)
    loadtest(an_aim(tmp_path, demand=curve), tools, NotedProgress(), Options(max_rate_rps=40.0, duration_s=10.0))
    assert [s.rate_rps for s in generator.asked[-1].demand.steps] == [10.0, 40.0]
    loadtest(an_aim(tmp_path, demand=curve), tools, NotedProgress(), Options(rate_rps=60.0, duration_s=10.0))
    assert [s.rate_rps for s in generator.asked[-1].demand.steps] == [60.0]


def test_only_the_last_reports_are_kept(tmp_path):
    tools = Tools(tmp_path, FixedGenerator())
    for _ in range(_loadstore.KEPT + 3):
        last = loadtest(an_aim(tmp_path), tools, NotedProgress(), Options(duration_s=10.0))
    files = list(tools.workspace.reports.iterdir())
    assert len(files) == 2 * _loadstore.KEPT
    assert last.html in files


def test_reuse_only_of_the_same_passed_test(tmp_path):
    generator = FixedGenerator()
    tools = Tools(tmp_path, generator)
    first = loadtest(an_aim(tmp_path), tools, NotedProgress(), Options())
    again = loadtest(an_aim(tmp_path), tools, NotedProgress(), Options(reuse=True, report=tmp_path / "copy.html"))
    assert len(generator.asked) == 1
    assert (tmp_path / "copy.html").read_bytes() == first.html.read_bytes()
    assert again.verdict == first.verdict
    assert again.html == first.html
    for aim, options in ((an_aim(tmp_path, content="other"), Options(reuse=True)), (an_aim(tmp_path), Options(reuse=True, seed=1))):
        loadtest(aim, tools, NotedProgress(), options)
    assert len(generator.asked) == 3
    first.json.write_text("{")
    loadtest(an_aim(tmp_path), tools, NotedProgress(), Options(reuse=True))
    assert len(generator.asked) == 4


def test_a_missed_test_is_never_reused(tmp_path):
    generator = FixedGenerator(latency_s=0.5)
    tools = Tools(tmp_path, generator)
    assert EXIT[loadtest(an_aim(tmp_path), tools, NotedProgress(), Options()).verdict.result] == 99
    loadtest(an_aim(tmp_path), tools, NotedProgress(), Options(reuse=True))
    assert len(generator.asked) == 2


BEFORE = CoreReading(at_s=0.0, cores=2.0, busy_s=0.0, own_s={"server": 0.0})
BESIDE_OTHERS = CoreReading(at_s=40.0, cores=2.0, busy_s=78.0, own_s={"server": 30.0})  # they took 60 %, the load alone takes 38 %


@pytest.mark.parametrize(
    ("own", "after", "result"),
    [
        (True, BESIDE_OTHERS, "INCONCLUSIVE"),
        (True, dataclasses.replace(BESIDE_OTHERS, busy_s=31.0), "FAIL"),  # nobody else was there
        (True, dataclasses.replace(BESIDE_OTHERS, busy_s=200.0, own_s={"server": 90.0}), "FAIL"),  # too much for the cores alone
        (True, None, "FAIL"),  # a cluster's node: not known
        (False, BESIDE_OTHERS, "FAIL"),  # another's server
    ],
)
def test_a_miss_beside_other_work_on_the_services_cores_is_undecided(tmp_path, own, after, result):
    tools = Tools(tmp_path, FixedGenerator(latency_s=0.5))
    tools.target = MemoryTarget()
    tools.target.core_readings = [BEFORE, after]
    outcome = loadtest(an_aim(tmp_path, own=own), tools, NotedProgress(), Options())
    assert outcome.verdict.result == result and EXIT[result] == (98 if result == "INCONCLUSIVE" else 99)
    told = json.loads(outcome.json.read_text())["verdict"]
    assert told["result"] == result and ("other processes took 60%" in told["objectives"][0]["reason"]) is (result == "INCONCLUSIVE")


@pytest.mark.parametrize("booked_twice", [False, True], ids=["steps only", "the ensemble repeats its steps"])
def test_stages_add_up_to_the_clients_mean(booked_twice):
    def reading(n):
        return ServerStats(
            at_s=0.0,
            success={"all": n, "step": n},
            failure={},
            queue_s={"all": 0.0, "step": 0.002 * n},
            request_s={"all": 0.010 * n, "step": 0.009 * n},
            executions={"all": 0, "step": n // 2},
            batch_stats={
                "all": {1: (n, 0.0, 0.006 * n, 0.0)} if booked_twice else {},
                "step": {2: (n // 2, 0.0, 0.005 * (n // 2), 0.001 * (n // 2))},
            },
            cache_hits={"all": n // 10},
        )

    delta = _stages.between({"r1": reading(100)}, {"r1": reading(300), "r2": reading(100)})
    at = np.arange(300) / 100
    samples = Samples(
        intended_s=at,
        sent_s=at + 0.001,
        latency_s=np.full(300, 0.013),
        ok=np.ones(300, dtype=bool),
        size=np.ones(300, dtype=np.int64),
        error=np.full(300, -1),
        errors=(),
    )
    parts = {s.name: s.mean_s for s in _stages.stages(samples, delta, "all")}
    assert parts == pytest.approx(
        {
            "wait in the client": 0.001,
            "front door and network": 0.002,
            "queue and batch forming": 0.002,
            "compute": 0.006,
            "rest of the server": 0.002,
        }
    )
    assert _stages.mean_batch(delta, "all") == {"step": 2.0}
    assert _stages.cache_hit_ratio(delta, "all") == pytest.approx(0.1)


@pytest.mark.parametrize("text", ["p99", "99=100ms", "p0=1s", "100ms"])
def test_promises_that_are_none(text):
    with pytest.raises(ProjectError) as caught:
        _slo((text,))
    assert caught.value.code == "loadtest-usage"


def test_flags_as_people_write_them():
    assert _rate("40/s") == 40.0
    assert _rate("2.5") == 2.5
    with pytest.raises(ProjectError):
        _rate("fast")
    assert _slo(("p99.9<=250ms",)).latency.max == 0.25
    pieces = _slo(("p99=5s", "ttft.p99=200ms", "itl p50<=40ms")).objectives
    assert [(o.metric, o.percentile, o.max) for o in pieces[1:3]] == [("ttft", 99.0, 0.2), ("itl", 50.0, 0.04)]
