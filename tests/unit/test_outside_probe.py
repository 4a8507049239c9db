"""The probe of Triton's batcher thread: which rounds it sends, and what it concludes from the server's core-seconds."""

import threading
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from forecast_models import profile, stage

from deployctl.core.artifact import TensorSpec
from deployctl.core.demand import SizeShare, constant
from deployctl.core.serving import ModelSpec, ServingConfig
from deployctl.core.simulate import replay
from deployctl.flows import _outside
from deployctl.ports import CoreUse

REQUEST_S = {16: 0.0002, 32: 0.0003, 128: 0.0006}  # of the server process itself: protocol and copying, more for larger ones
MIX = tuple(SizeShare(size=s, share_ratio=1 / 3) for s in REQUEST_S)


class Server:
    """A server process that burns `polling_s` more a round of three shapes and `handover_s` more a round of several."""

    def __init__(self, *, polling_s, handover_s):
        self.more_s = {1: 0.0, 2: handover_s, 3: handover_s + polling_s}
        self.used_s, self.intervals, self._now, self._lock = 0.0, [], [], threading.Lock()

    def infer(self, model, request):
        with self._lock:
            self._now.append(request["size"])

    def core_use(self):
        shapes = Counter(self._now)
        rounds = max(shapes.values(), default=0)  # exact where shapes differ; a round of one shape costs nothing more
        self.used_s += sum(REQUEST_S[size] * n for size, n in shapes.items()) + self.more_s.get(len(shapes), 0.0) * rounds
        self.intervals.append(shapes)
        self._now = []
        return CoreUse(server={1: self.used_s}, backends={}, spent_s=self.used_s)


def model(*, dims=(-1,), tunable=True):
    tensor = TensorSpec(name="x", dtype="FP32", shape=dims)
    return ModelSpec(name="m", backend="python", inputs=(tensor,), outputs=(), tunable=tunable, parameters={})


@pytest.fixture
def probe(monkeypatch):
    """Runs the probe; what it configured is kept in `seen`."""
    seen = []
    monkeypatch.setattr(_outside, "_LOOP_S", 0.0)  # five rounds each, whatever the machine is doing
    monkeypatch.setattr(_outside, "configure_stage", lambda _, name, serving: seen.append((name, serving)))
    monkeypatch.setattr(_outside, "stage_requests", lambda _, spec, size: [{"size": size}])

    def run(server, *, spec=None, mix=MIX):
        monkeypatch.setattr(_outside, "stage_models", lambda _: [spec or model()])
        bench = SimpleNamespace(bundle=None, demand=constant(10.0, mix=mix))
        draft = profile(stage(sizes=(16, 32, 128)))  # the shortest execution takes 5 ms
        return _outside._batcher(SimpleNamespace(bench=bench, server=lambda: server), draft)

    run.seen = seen
    return run


def test_a_thread_that_polls_for_as_long_as_the_shortest_execution_is_found(probe):
    polls, handover_s = probe(Server(polling_s=0.005, handover_s=0.0015))
    assert polls and handover_s == pytest.approx(0.0015)
    assert probe.seen == [("m", ServingConfig(max_batch=3, warmup_batches=(), preferred_batches=()))]  # two of the three can wait in one batch


def test_a_thread_that_sleeps_is_not_taken_for_one_that_polls_because_several_shapes_meet_a_lock(probe):
    polls, handover_s = probe(Server(polling_s=0.0, handover_s=0.0009))
    assert not polls and handover_s == pytest.approx(0.0009)


@pytest.mark.parametrize(("polling_s", "found"), [(0.0012, False), (0.0024, True)])
def test_what_counts_as_polling_is_a_fifth_of_the_shortest_execution_beyond_three_of_the_largest(probe, polling_s, found):
    """Three of the largest cost 0.7 ms more than one of each, so here the border is at 1.7 ms."""
    assert probe(Server(polling_s=polling_s, handover_s=0.0))[0] is found


def test_pairs_of_the_ends_and_three_of_all_are_sent_and_the_first_round_of_each_does_not_count(probe):
    server = Server(polling_s=0.0, handover_s=0.0)
    probe(server)
    first, counted = ([dict(shapes) for shapes in server.intervals[i::2]] for i in (0, 1))
    assert first == [{16: 2}, {128: 2}, {16: 1, 128: 1}, {16: 1, 32: 1, 128: 1}, {128: 3}]
    assert counted == [{16: 10}, {128: 10}, {16: 5, 128: 5}, {16: 5, 32: 5, 128: 5}, {128: 15}]


@pytest.mark.parametrize("case", [{"spec": model(dims=(8,))}, {"spec": model(tunable=False)}, {"mix": MIX[:1]}])
def test_where_only_one_shape_can_come_or_no_batcher_is_ours_to_set_nothing_is_sent(probe, case):
    server = Server(polling_s=0.005, handover_s=0.001)
    assert probe(server, **case) == (False, 0.0) and not server.intervals and not probe.seen


class Loads:
    """Load tests by rate: below `carries_rps` each request finds the service idle, above it a queue builds up."""

    def __init__(self, carries_rps):
        self.carries_rps, self.asked_rps = carries_rps, []

    def run(self, _, rate_rps):
        self.asked_rps.append(round(rate_rps, 3))
        sent_s = np.arange(0.0, 12.0, 1 / rate_rps)
        late_s = 0.001 if rate_rps <= self.carries_rps else 0.002 + sent_s
        return SimpleNamespace(intended_s=sent_s, latency_s=np.zeros(sent_s.size) + late_s), 0.0


@pytest.mark.parametrize(
    ("carries_rps", "mean_s", "asked_rps"),
    [
        (1000.0, 0.01, [70.0]),  # a quiet machine: one run
        (40.0, 0.01, [70.0, 35.0]),
        (1.0, 0.01, [70.0, 35.0, 15.0]),  # nothing helps: the last one counts
        (1.0, 1.0, [2.0]),  # no slower than so many requests as it takes: asking again would ask the same
    ],
)
def test_a_machine_too_busy_for_the_load_is_asked_for_less(monkeypatch, carries_rps, mean_s, asked_rps):
    loads = Loads(carries_rps)
    monkeypatch.setattr(_outside, "_loaded", loads.run)
    known = profile(stage(base_s=mean_s, item_s=0.0))
    samples, _ = _outside._busiest_sound(SimpleNamespace(bench=SimpleNamespace(demand=constant(10.0))), known)
    assert loads.asked_rps == asked_rps and samples.intended_s.size == np.arange(0.0, 12.0, 1 / loads.asked_rps[-1]).size


@pytest.mark.parametrize("first", [1.0, 1.2])
def test_the_stages_are_scaled_until_a_backlog_is_answered_as_fast_as_it_was(monkeypatch, first):
    known = replace(profile(stage(base_s=0.008, item_s=0.0)), cores=1.0)
    rng = np.random.default_rng(5)
    samples = SimpleNamespace(intended_s=np.cumsum(rng.exponential(0.0125, 800)), size=np.ones(800, dtype=np.int64))

    def replayed(_, known, samples):
        return replay(known, {"m": ServingConfig(max_batch=1)}, 1, samples.intended_s, samples.size, seed=1)

    monkeypatch.setattr(_outside, "_replayed", replayed)
    samples.latency_s = replayed(None, replace(known, stages=_outside.in_traffic(known.stages, 1.1)), samples).latency_s
    assert _outside._in_backlog(None, known, samples, first) == pytest.approx(1.1, rel=1e-3)


def test_where_no_backlog_forms_core_seconds_stand():
    samples = SimpleNamespace(intended_s=np.arange(100.0), latency_s=np.full(100, 0.01), size=np.ones(100, dtype=np.int64))
    probes = SimpleNamespace(bench=SimpleNamespace(bundle=None))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_outside, "_replayed", lambda *_: SimpleNamespace(latency_s=np.full(100, 0.01)))
        assert _outside._in_backlog(probes, profile(stage(base_s=0.008, item_s=0.0)), samples, 1.07) == 1.07
