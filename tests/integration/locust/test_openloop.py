"""Open loop against a real Triton: what was planned is what is sent, whatever the server does."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deployctl import share
from deployctl.adapters.locust import request_data
from deployctl.core import codec
from deployctl.core.arrivals import arrival_times_s
from deployctl.core.demand import Demand, RateStep, SizeShare
from deployctl.errors import ModelError, NotConverged, ProjectError
from deployctl.ports import LoadRequest

pytestmark = pytest.mark.triton


def _demand(rate_rps, law="constant", **more):
    return Demand(steps=(RateStep(start_s=0.0, rate_rps=rate_rps),), arrivals=law, **more)


def _request(server, bodies, demand, duration_s, *, protocol="http", **more):
    url = server.http_url if protocol == "http" else server.grpc_url
    more = {"warmup_s": 0.5, "seed": 5, **more}
    return LoadRequest(url=url.split("://")[-1], protocol=protocol, model="sleeper", bodies=bodies, demand=demand, duration_s=duration_s, **more)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_sends_exactly_what_was_planned(server, generator, bodies, protocol):
    demand = _demand(20.0, "poisson")
    before = server.stats().success["sleeper"]
    result = generator.run(_request(server, bodies(1.0, 2.0), demand, 3.0, protocol=protocol))
    samples = result.samples
    np.testing.assert_array_equal(samples.intended_s, arrival_times_s(demand, 3.0, np.random.default_rng(5)))
    assert samples.ok.all()
    assert samples.errors == ()
    assert (samples.latency_s >= 0.02).all()
    assert (samples.sent_s >= samples.intended_s).all()
    probes = 1 if protocol == "http" else 4
    assert server.stats().success["sleeper"] - before == samples.ok.size + result.warmup_requests + probes
    assert result.generator_cpu_ratio > 0


@pytest.mark.parametrize("protocol", ["http", pytest.param("grpc", marks=pytest.mark.full)])
def test_does_not_wait_for_answers(server, generator, bodies, protocol):
    # The model serves 50 a second and gets 100: a closed loop would slow down with it, an open one queues up.
    result = generator.run(_request(server, bodies(1.0), _demand(100.0), 1.5, protocol=protocol, warmup_s=0.0))
    samples = result.samples
    assert samples.ok.all()
    answered = samples.intended_s + samples.latency_s
    waiting = [(samples.sent_s <= t).sum() - (answered <= t).sum() for t in samples.sent_s]
    assert max(waiting) >= 40
    assert samples.latency_s[-10:].mean() > 10 * samples.latency_s[0]


def test_sizes_follow_the_mix_and_errors_are_misses_with_the_servers_words(server, generator, bodies):
    mix = (SizeShare(size=4, share_ratio=0.5), SizeShare(size=8, share_ratio=0.5))
    result = generator.run(_request(server, bodies(1.0, 2.0, 13.0, sizes=(4, 8, 8)), _demand(20.0, mix=mix), 3.0))
    samples = result.samples
    assert set(samples.size.tolist()) == {4, 8}
    assert (samples.size[~samples.ok] == 8).all()
    assert 0 < (~samples.ok).sum() < samples.ok.size
    assert np.isnan(samples.latency_s[~samples.ok]).all()
    assert len(samples.errors) == 1
    assert samples.errors[0].startswith("HTTP 500:")


def test_a_size_without_an_example_is_said_before_anything_is_sent(server, generator, bodies):
    mix = (SizeShare(size=64, share_ratio=1.0),)
    with pytest.raises(ProjectError, match="size 64") as caught:
        generator.run(_request(server, bodies(1.0), _demand(20.0, mix=mix), 3.0))
    assert caught.value.code == "loadtest-size-missing"


@pytest.mark.parametrize(("model", "first", "words"), [pytest.param("nobody", 1.0, "HTTP 4", marks=pytest.mark.full), ("sleeper", 13.0, "HTTP 500")])
def test_refused_examples_are_said_once(server, generator, bodies, model, first, words):
    request = dataclasses.replace(_request(server, bodies(first), _demand(20.0), 3.0), model=model)
    with pytest.raises(ModelError, match=words) as caught:
        generator.run(request)
    assert caught.value.code == "loadtest-refused"


@pytest.mark.parametrize("protocol", ["http", pytest.param("grpc", marks=pytest.mark.full)])
def test_nobody_listens(generator, bodies, protocol):
    request = LoadRequest(
        url="127.0.0.1:1", protocol=protocol, model="m", bodies=bodies(1.0), demand=_demand(5.0), duration_s=1.0, seed=0, timeout_s=3.0
    )
    with pytest.raises(ModelError) as caught:
        generator.run(request)
    assert caught.value.code == "loadtest-refused"


def test_cancel_leaves_no_generator(server, generator, bodies, tmp_path):
    class Cancel:
        def update(self, message):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generator.run(_request(server, bodies(1.0), _demand(10.0), 60.0), Cancel())
    assert not _processes_with(str(tmp_path))
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_killed_generator_is_an_error_with_its_signal(server, generator, bodies, tmp_path):
    class Kill:
        def update(self, message):
            for pid in _processes_with(str(tmp_path)):
                os.kill(pid, signal.SIGKILL)

    with pytest.raises(NotConverged, match="SIGKILL") as caught:
        generator.run(_request(server, bodies(1.0), _demand(10.0), 60.0), Kill())
    assert caught.value.code == "loadgen-failed"


def test_samples_survive_kill_9(server, bodies, tmp_path):
    child = _raw(tmp_path, _request(server, bodies(1.0), _demand(20.0), 60.0))
    for line in child.stdout:
        if json.loads(line).get("at_s", 0) > 1.5:
            break
    child.kill()
    child.wait()
    child.stdout.close()
    raw = np.frombuffer((tmp_path / "samples.bin").read_bytes(), dtype=np.uint8)
    n = raw.size // 32
    times = np.frombuffer(raw.tobytes(), dtype=np.float64, count=3 * n).reshape(3, n)
    sent = np.count_nonzero(np.isfinite(times[1]))
    assert sent >= 30
    assert sent - np.count_nonzero(np.isfinite(times[2])) <= 10


def test_the_bound_in_flight_counts_as_failed_and_is_said(server, bodies, tmp_path):
    child = _raw(tmp_path, _request(server, bodies(1.0), _demand(200.0), 1.0, warmup_s=0.0), max_in_flight=8)
    said = [json.loads(line) for line in child.stdout]
    child.wait()
    child.stdout.close()
    result = said[-1]["result"]
    assert result["requests"] == 200
    assert result["peak_in_flight"] == 8
    assert result["not_sent"] > 50
    assert result["errors"] == ["not sent: 8 requests were already waiting for an answer"]


def test_traced_requests_are_few(server, bodies, tmp_path):
    child = _raw(tmp_path, _request(server, bodies(1.0), _demand(40.0), 5.0, warmup_s=0.0, trace_ratio=1.0))
    result = [json.loads(line) for line in child.stdout][-1]["result"]
    child.wait()
    child.stdout.close()
    assert result["traced"] == 2  # 1 in 100 of 200, whatever was asked for


def _raw(tmp_path, request, **more):
    data = {**codec.to_data(request_data(request)), "bodies": str(request.bodies), **more}
    (tmp_path / "request.json").write_text(json.dumps(data))
    command = [sys.executable, str(share.folder("loadtests") / "run.py"), str(tmp_path / "request.json"), str(tmp_path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, cwd=tmp_path, stderr=subprocess.DEVNULL)


def _processes_with(text):
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if text.encode() in words and b"run.py" in words:
            found.append(int(entry.name))
    return found
