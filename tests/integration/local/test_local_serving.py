"""One release on real Triton behind real Envoy: start, answers, what is closed, clean end."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from local_kit import WAIT_S, Quiet, ask_http, supervisors

from deployctl.adapters import processes
from deployctl.adapters.triton import TritonApi
from deployctl.core import contention
from deployctl.core.plan import Ports
from deployctl.errors import MachineError, NotFound

pytestmark = pytest.mark.triton


def test_serves_http_and_grpc_and_keeps_the_rest_closed(project):
    import tritonclient.grpc as grpc_client

    project.release(project.bundle(offset=5), replicas=2)
    status = project.serving(1, 2)
    address = status.url.removeprefix("http://")
    assert ask_http(address, 2.0) == 7.0
    client = grpc_client.InferenceServerClient(status.grpc_url)
    tensor = grpc_client.InferInput("INPUT0", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.full((1, 4), 3.0, np.float32))
    assert client.infer("sleeper", [tensor]).as_numpy("OUTPUT0")[0, 0] == 8.0
    assert client.is_server_live() and client.is_model_ready("sleeper")
    for call in (client.get_model_repository_index, client.get_inference_statistics, lambda: client.get_model_config("sleeper")):
        with pytest.raises(Exception, match="only inference, metadata and health"):
            call()
    client.close()
    api = TritonApi(address)
    for path in ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/sleeper", "/v2/models/sleeper/versions/1/ready"):
        assert api.request("GET", path)[0] == 200, path
    closed = ["/v2/models/stats", "/v2/models/sleeper/stats", "/v2/models/sleeper/config", "/metrics", "/v2/logging", "/v2/trace/setting"]
    for path in (*closed, "/v2/models/%2e%2e/repository/index"):
        assert api.request("GET", path)[0] == 404, path
    assert api.request("POST", "/v2/repository/index")[0] == 404
    direct = TritonApi(f"127.0.0.1:{status.replicas[0].http_port}")
    assert direct.request("POST", "/v2/repository/index")[0] == 403
    # every replica reads a private copy that nobody may write to
    copies = [p for p in project.folder.replicas.glob("*/repo/sleeper/1/model.py")]
    assert len(copies) == 2
    assert all(p.stat().st_mode & 0o222 == 0 for p in copies)
    assert len({p.stat().st_ino for p in copies}) == 2


BURN = """import pathlib, sys, time
while time.process_time() < 2.0: pass
pathlib.Path(sys.argv[1]).touch()
time.sleep(600)"""


def test_the_cores_say_what_the_service_used_and_what_another_process_used(project, tmp_path):
    project.release(project.bundle())
    project.serving(1, 1)
    before = project.target.core_reading()
    pids = {int(name.split("-")[0]) for name in before.own_s}
    assert pids == {p.pid for p in project.processes()} | {*supervisors(project), os.getpid()}
    other = subprocess.Popen([sys.executable, "-c", BURN, str(tmp_path / "burnt")])
    try:
        for _ in range(20):
            project.ask()
        assert processes.wait_for((tmp_path / "burnt").exists, WAIT_S)
        shares = contention.between(before, project.target.core_reading())
    finally:
        other.kill()
        other.wait()
    assert shares.own_s > 0 and shares.busy_s - shares.own_s > 1.8  # what the other one burnt, to some ticks of the clock
    project.target.down(Quiet())
    assert project.target.core_reading() is None


def test_status_and_logs_tell_what_happened(project):
    project.release(project.bundle())
    project.serving(1, 1)
    for _ in range(5):
        project.ask()
    status = project.wait(lambda s: sum(r.get("arrivals_rps", 0.0) for r in s.recent) > 0 and any("p99_s" in r for r in s.recent))
    assert status.recent[-1]["core_seconds"] > 0
    assert status.replicas[0].reason == "answers"
    assert status.policy_says == "fixed at 1"
    sources = {line.split("]")[0] for line in project.lines()}
    assert sources >= {"[replica-1", "[supervisor"}
    assert all(x.startswith("[replica-1]") for x in project.target.logs(replica="replica-1", since_s=None, follow=False))
    with pytest.raises(NotFound, match="there is no replica replica-99") as caught:
        project.target.logs(replica="replica-99", since_s=None, follow=False)
    assert caught.value.why == "there are replica-1"
    last = project.lines()[-1]
    follow = project.target.logs(replica=None, since_s=None, follow=True)
    assert processes.wait_for(lambda: next(follow) == last, WAIT_S)
    json.dumps(status.recent)


def test_down_leaves_nothing_and_up_again_works(project):
    release = project.release(project.bundle())
    status = project.serving(1, 1)
    prefix = project.folder.load().replicas[0].shm_prefix
    assert processes.shared_memory(prefix)
    project.target.down(Quiet())
    assert project.processes() == []
    assert project.supervisor() is None
    assert not processes.shared_memory(prefix)
    assert list(project.folder.replicas.iterdir()) == []
    assert project.target.status().phase == "stopped"
    assert project.records.history().current == release
    project.target.down(Quiet())
    project.target.apply(release)
    again = project.serving(1, 1)
    assert again.replicas[0].pid != status.replicas[0].pid


def test_a_taken_port_is_a_clear_error(project, make_project):
    project.release(project.bundle())
    port = int(project.serving(1, 1).url.rsplit(":", 1)[1])
    other = make_project("other")
    with pytest.raises(MachineError) as raised:
        other.release(other.bundle(), ports=Ports(http=port, grpc=0))
    assert raised.value.code == "port-taken"
    assert str(port) in raised.value.message
    assert other.supervisor() is None


def test_a_damaged_blob_is_never_served(project):
    bundle = project.bundle()
    place = project.blobs.path(bundle.files[0].digest)
    place.chmod(0o644)
    place.write_text(place.read_text().replace("+ self.offset", "+ 666"))
    project.release(bundle)
    status = project.wait(lambda s: s.phase == "failed")
    assert "damaged" in status.message
    assert not list(project.folder.replicas.glob("*/repo"))
    assert all(r.pid is None for r in status.replicas)


def test_a_model_that_does_not_load_fails_with_its_own_reason(project):
    project.release(project.bundle(fail_at_load="raise"))
    status = project.wait(lambda s: s.phase == "failed")
    assert "fail_at_load: this model was told to fail" in status.message
