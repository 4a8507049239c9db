"""What a real tritonserver executes together, by preferred batch sizes and without a batcher, against the simulator on the same arrivals."""

import shutil
import threading
import time

import numpy as np
import pytest

from deployctl import share
from deployctl.adapters.repository import parse_config
from deployctl.adapters.triton import TritonLauncher
from deployctl.core.profile import ServicePoint, ServiceProfile, StageProfile
from deployctl.core.simulate import replay

pytestmark = pytest.mark.triton

_TRIES = 5  # a machine that stands still for longer than the sequences bear shows batches of other arrivals
T0_S = 0.4  # of every execution, so that a machine that stands still for some hundredths changes no batch
CONFIG = """name: "nap" backend: "python" max_batch_size: 8 instance_group {{ kind: KIND_CPU count: 1 }}
input {{ name: "INPUT0" data_type: TYPE_FP32 dims: [ {dims} ] }} output {{ name: "OUTPUT0" data_type: TYPE_FP32 dims: [ {dims} ] }}
parameters {{ key: "t0_s" value {{ string_value: "0.4" }} }} {batcher}"""


def config_of(batching, dims=4):
    return CONFIG.format(dims=dims, batcher=f"dynamic_batching {{ {batching} }}")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    repository = tmp_path_factory.mktemp("repository")
    shutil.copytree(share.folder("model_repo") / "sleep", repository / "nap")
    (repository / "nap" / "config.pbtxt").write_text(config_of(""))
    running = TritonLauncher(tmp_path_factory.mktemp("launcher")).start(repository, explicit=True)
    yield running
    running.stop()


def executed(server, text, at_ms):
    """Batch sizes and how often each was executed, of requests that are sent at these times."""
    server.apply("nap", text)
    request = {"INPUT0": {"dtype": "FP32", "shape": [1, 4], "data": [[0.0, 1.0, 2.0, 3.0]]}}
    server.infer("nap", request)
    before = server.stats().batch_stats.get("nap", {})
    begun = time.monotonic() + 0.1

    def client(at_s):
        time.sleep(max(begun + at_s - time.monotonic(), 0.0))
        server.infer("nap", request)

    threads = [threading.Thread(target=client, args=(at / 1e3,)) for at in at_ms]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = server.stats().batch_stats["nap"]
    return {b: n for b in after if (n := after[b][0] - before.get(b, (0,))[0])}


def simulated(text, at_ms):
    """The same by the simulator, with the settings that the config names."""
    points = tuple(ServicePoint(batch=b, size=1, mean_s=T0_S, std_s=0.0, count=9) for b in (1, 8))
    stage = StageProfile(model="nap", points=points, joins_sizes="dims: [ 4 ]" in text)
    profile = ServiceProfile(stages=(stage,), overhead_s=0.0, device="none", bundle="none", triton_version="none")
    run = replay(profile, {"nap": parse_config(text).as_executed}, 1, np.array(at_ms) / 1e3, np.ones(len(at_ms), dtype=np.int64), seed=1)
    return run.executions["nap"]


CASES = {
    "pairs without a delay": ("preferred_batch_size: [ 2 ]", [0, 50, 100, 150, 200, 250, 300]),
    "the largest that fits": ("preferred_batch_size: [ 2, 4 ]", [0, 40, 80, 120, 160, 200, 240, 280, 320]),
    "short of one, then the delay": ("preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 150000", [0, 50, 100]),
    "one beyond the largest": ("preferred_batch_size: [ 2 ] max_queue_delay_microseconds: 1000000", [0, 50, 100, 150, 200, 250]),
    "batches that an instance joins": ("preferred_batch_size: [ 1 ] max_queue_delay_microseconds: 20000", [0, 60, 120, 180]),
    "none named, batches that wait": ("max_queue_delay_microseconds: 50000", [0, 150, 250, 330]),
    "a batch that waits": ("preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 50000", [0, 150, 250, 330]),
}


@pytest.mark.parametrize("dims", ["4", "-1"])
@pytest.mark.parametrize("case", CASES)
def test_the_simulator_forms_the_batches_that_triton_forms(server, case, dims):
    batching, at_ms = CASES[case]
    text = config_of(batching, dims)
    expected, seen = simulated(text, at_ms), []
    while expected not in seen and len(seen) < _TRIES:
        seen.append(executed(server, text, at_ms))
    assert expected in seen


def test_a_model_without_a_batcher_executes_each_request_alone_here_and_in_the_simulator(server):
    """Its config allows batches of eight; eight requests wait for one instance."""
    text, at_ms = CONFIG.format(dims=4, batcher=""), [0] * 8
    assert parse_config(text).serving.max_batch == 8
    assert executed(server, text, at_ms) == simulated(text, at_ms) == {1: 8}
    beside = config_of("")
    assert max(executed(server, beside, at_ms)) > 1 and max(simulated(beside, at_ms)) > 1  # the batcher alone makes the difference
