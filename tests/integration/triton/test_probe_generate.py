"""The probe of an engine that answers in pieces, on a real Triton: a decoupled Python model stands in for vLLM, which needs a GPU."""

import json
import subprocess
import sys

import pytest

from deployctl import share, wiring
from deployctl.core import packaging

pytestmark = [pytest.mark.triton, pytest.mark.timeout(240)]

MODEL = """\
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            said = pb_utils.get_input_tensor_by_name(request, "text_input").as_numpy()[0].decode()
            asked = pb_utils.get_input_tensor_by_name(request, "sampling_parameters").as_numpy()[0].decode()
            sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("text_output", np.array([said + asked], dtype=np.object_))]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""


def test_an_engine_that_answers_in_pieces_gets_ready(tmp_path):
    model = tmp_path / "repository/chat/1"
    model.mkdir(parents=True)
    (model / "model.py").write_text(MODEL)
    text = packaging.engine_config("chat", {"model.json"}).replace('backend: "vllm"', 'backend: "python"').replace("KIND_MODEL", "KIND_CPU")
    (model.parent / "config.pbtxt").write_text(text)
    server = wiring.LazyToolbox(tmp_path).launcher.start(tmp_path / "repository")
    try:
        request = {"model": "chat", "inputs": [], "timeout_s": 10, "metrics_port": 1, "http_port": int(server.http_url.rpartition(":")[2])}
        request["generate"] = {"text_input": "1", "stream": False, "sampling_parameters": '{"max_tokens": 1}'}
        assert probe(tmp_path, request).returncode == 0
        refused = probe(tmp_path, {k: v for k, v in request.items() if k != "generate"})
        assert refused.returncode == 1 and "decoupled" in refused.stderr  # what the usual probe would have met
    finally:
        server.stop()


def probe(folder, request):
    (folder / "request.json").write_text(json.dumps(request))
    (folder / "probe.py").write_text(share.text("kube/probe.py"))
    return subprocess.run([sys.executable, "-I", folder / "probe.py", "start", folder], capture_output=True, text=True, timeout=60)
