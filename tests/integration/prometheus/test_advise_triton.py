"""advise on a real Prometheus that has watched a real Triton: requests, capacity and replicas are what they were."""

import json
import time

import pytest
from click.testing import CliRunner

from deployctl.adapters.triton import TritonLauncher
from deployctl.cli.advise import advise
from deployctl.errors import MachineError

pytestmark = [pytest.mark.triton, pytest.mark.full]

CONFIG = """
name: "slow"
backend: "python"
max_batch_size: 1
input { name: "X" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "Y" data_type: TYPE_FP32 dims: [ 1 ] }
instance_group { kind: KIND_CPU count: 1 }
"""
CODE = """
import time
import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        time.sleep(0.05 * len(requests))
        return [pb.InferenceResponse([pb.Tensor("Y", pb.get_input_tensor_by_name(r, "X").as_numpy())]) for r in requests]
"""
REQUEST = {"X": {"dtype": "FP32", "shape": [1, 1], "data": [[1.0]]}}


def test_a_real_tritons_history(prometheus_server, tmp_path) -> None:
    folder = tmp_path / "repository" / "slow" / "1"
    folder.mkdir(parents=True)
    (folder.parent / "config.pbtxt").write_text(CONFIG)
    (folder / "model.py").write_text(CODE)
    (tmp_path / "data").mkdir()
    try:
        server = TritonLauncher(tmp_path / "launcher").start(tmp_path / "repository")
    except MachineError as error:
        pytest.skip(f"no Triton on this machine: {error}")
    try:
        config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [{"job_name": "t", "static_configs": [{"targets": [server.metrics_url]}]}]}
        with prometheus_server(tmp_path, json.dumps(config)) as url:
            time.sleep(3)
            began, sent = time.monotonic(), 0
            while time.monotonic() - began < 40:
                server.infer("slow", REQUEST)
                sent += 1
                time.sleep(0.03)
            words = ["--prometheus", url, "--slo", "500ms", "--window", "36s", "--step", "2s", "--start-up", "5s", "-o", "json"]
            done = CliRunner().invoke(advise, words, catch_exceptions=False)
    finally:
        server.stop()
    document = json.loads(done.stdout)
    assert document["model"] == "slow"
    assert document["measured"]["requests"] == pytest.approx(sent * 36 / 40, rel=0.15)
    assert document["measured"]["replica_hours"] == pytest.approx(38 / 3600, rel=0.1)
    assert document["measured"]["windows_missed_ratio"] == 0.0
    assert 0.8 * 12 < document["replay"]["plant"]["capacity_rps"] < 0.8 * 21  # 50 ms a request and the stub's own time
