"""A real tritonserver: start, infer, explicit loads, closed admin API, reasons of failure, nothing left behind."""

import os
import signal
import socket
import subprocess
import sys
import textwrap

import pytest

from deployctl.adapters import processes
from deployctl.adapters.triton import TritonApi, TritonLauncher
from deployctl.errors import MachineError, ModelError

pytestmark = pytest.mark.triton

CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: 8
input {{ name: "X" data_type: TYPE_FP32 dims: [ 2 ] }}
input {{ name: "T" data_type: TYPE_STRING dims: [ 1 ] }}
output {{ name: "Y" data_type: TYPE_FP32 dims: [ 2 ] }}
output {{ name: "S" data_type: TYPE_STRING dims: [ 1 ] }}
instance_group {{ kind: KIND_CPU count: 1 }}
dynamic_batching {{}}
"""
CODE = """
import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        get = pb.get_input_tensor_by_name
        return [
            pb.InferenceResponse([pb.Tensor("Y", get(r, "X").as_numpy() * 2), pb.Tensor("S", get(r, "T").as_numpy())])
            for r in requests
        ]
"""


def write_model(repo, name, code=CODE):
    folder = repo / name / "1"
    folder.mkdir(parents=True)
    (repo / name / "config.pbtxt").write_text(CONFIG.format(name=name))
    (folder / "model.py").write_text(code)
    return repo


REQUEST = {
    "X": {"dtype": "FP32", "shape": [2, 2], "data": [[1.5, 2.0], [3.0, 4.0]]},
    "T": {"dtype": "BYTES", "shape": [2, 1], "data": ["a", "ü"]},
}


@pytest.fixture(scope="module")
def launcher(tmp_path_factory):
    return TritonLauncher(tmp_path_factory.mktemp("launcher"))


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("repo"), "double")


@pytest.fixture(scope="module")
def server(launcher, repo):
    with launcher.start(repo, explicit=True) as running:
        yield running


def test_answers_numbers_and_strings(server):
    answer = server.infer("double", {"inputs": REQUEST})
    assert answer == {"Y": [[3.0, 4.0], [6.0, 8.0]], "S": [["a"], ["ü"]]}


def test_statistics_count_executions_by_batch_size(server):
    before = server.stats()
    server.infer("double", REQUEST)
    assert processes.wait_for(lambda: server.stats().success["double"] == before.success["double"] + 1, 10)
    after = server.stats()
    assert after.batch_stats["double"][2][0] == before.batch_stats["double"].get(2, (0,))[0] + 1
    assert after.batch_stats["double"][2][2] > 0


def test_apply_changes_the_configuration_without_a_restart(server):
    server.apply("double", CONFIG.format(name="double").replace("max_batch_size: 8", "max_batch_size: 3"))
    assert b'"max_batch_size":3' in server.api.request("GET", "/v2/models/double/config")[2]
    assert server.infer("double", REQUEST)["Y"][0] == [3.0, 4.0]


def test_a_bad_request_is_the_models_error(server):
    with pytest.raises(ModelError, match="unexpected shape") as raised:
        server.infer("double", {**REQUEST, "X": {"dtype": "FP32", "shape": [2, 3], "data": [1, 2, 3, 4, 5, 6]}})
    assert raised.value.code == "inference-failed"


def test_admin_calls_are_closed_without_the_secret(launcher, repo):
    with launcher.start(repo) as closed:
        stranger = TritonApi(closed.http_url)
        for method, path in (
            ("GET", "/v2/models/stats"),
            ("POST", "/v2/repository/index"),
            ("GET", "/v2/models/double/config"),
            ("GET", "/v2/logging"),
        ):
            assert stranger.request(method, path)[0] == 403, path
        assert stranger.infer("double", REQUEST)["Y"][1] == [6.0, 8.0]
        assert closed.stats().success.keys() == {"double"}


def test_a_model_that_does_not_load_says_why(launcher, tmp_path):
    write_model(tmp_path, "broken", "import not_there_at_all\n")
    with pytest.raises(ModelError, match=r"broken does not load.*No module named 'not_there_at_all'") as raised:
        launcher.start(tmp_path)
    assert raised.value.code == "triton-load-failed"


def test_a_model_that_crashes_the_stub_says_so(launcher, tmp_path):
    write_model(tmp_path, "crash", "import os\nos._exit(3)\n")
    with pytest.raises(ModelError, match=r"crash does not load: (the process of a Python model ended|.*Stub process)"):
        launcher.start(tmp_path)


def test_a_taken_port_means_another_try(repo, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        chosen = []

        def choose(count):
            ports = processes.free_ports(count)
            chosen.append(ports if chosen else (taken.getsockname()[1], *ports[1:]))
            return chosen[-1]

        with TritonLauncher(tmp_path, choose_ports=choose).start(repo) as running:
            assert running.infer("double", REQUEST)["S"] == [["a"], ["ü"]]
        assert len(chosen) == 2


def test_stop_leaves_no_process_and_no_shared_memory(launcher, repo):
    running = launcher.start(repo)
    prefix = running.command.shm_prefix
    assert processes.shared_memory(prefix)
    running.stop()
    running.stop()
    assert not processes.alive(running.process)
    assert not processes.members(running.pid)
    assert not processes.shared_memory(prefix)


def test_the_next_start_ends_what_a_killed_caller_left(launcher, repo, tmp_path):
    script = tmp_path / "caller.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys, time
        from pathlib import Path
        from deployctl.adapters.triton import TritonLauncher
        server = TritonLauncher(Path({str(tmp_path)!r})).start(Path({str(repo)!r}))
        print(server.pid, server.command.shm_prefix, flush=True)
        time.sleep(600)
        """)
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as caller:
        pid, prefix = caller.stdout.readline().split()
        left = processes.identify(int(pid))
        os.kill(caller.pid, signal.SIGKILL)
    assert left is not None
    assert processes.alive(left)
    TritonLauncher(tmp_path).sweep()
    assert not processes.alive(left)
    assert not processes.members(left.pid)
    assert not processes.shared_memory(prefix)


def test_python_without_the_wheel_is_told_what_to_install(tmp_path):
    from deployctl.adapters.triton.install import Installation

    class Bare(Installation):
        @property
        def wheel(self):
            return "0.0.1"

    with pytest.raises(MachineError) as raised:
        Bare(tmp_path).version()
    assert raised.value.code == "triton-missing"
    assert "deployctl[local]" in raised.value.hint
