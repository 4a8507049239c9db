"""`call --snippet` for a model that answers in pieces, on a real Triton behind the front door: what is printed is run as it stands."""

import ast
import json
import subprocess
import sys

import pytest

from deployctl.cli import main

pytestmark = [pytest.mark.triton, pytest.mark.timeout(240)]

MODEL = """\
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            said = pb_utils.get_input_tensor_by_name(request, "text_input").as_numpy().reshape(-1)[0].decode()
            for word in said.split():
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("text_output", np.array([word], dtype=np.object_))]))
            if word == "wrong":
                sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError("out of words")))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
CONFIG = """\
name: "chat"
backend: "python"
max_batch_size: 0
model_transaction_policy { decoupled: true }
input { name: "text_input" data_type: TYPE_STRING dims: [ 1 ] }
output { name: "text_output" data_type: TYPE_STRING dims: [ -1 ] }
instance_group { kind: KIND_CPU count: 1 }
"""
YAML = """\
version: 1
name: chat
model: {source: "triton:repo", sample: samples.jsonl}
slo: {latency: {p99: 5s}, errors: 1%}
traffic: {rate: 1/s}
environments:
  local: {ports: {http: 0, grpc: 0}}
"""


def test_a_snippet_asks_for_pieces(tmp_path, capsys):
    def run(*words):
        code = main.run(["-C", str(tmp_path), *words])
        told = capsys.readouterr()
        assert code == 0, told
        return told.out

    version = tmp_path / "repo/chat/1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(MODEL)
    (version.parent / "config.pbtxt").write_text(CONFIG)
    (tmp_path / "deploy.yaml").write_text(YAML)
    (tmp_path / "samples.jsonl").write_text('{"text_input": ["one two"]}\n')
    try:
        run("up", "--yes")
        words = ["it's", "all", "said"]
        told = json.loads(run("call", " ".join(words), "-o", "json"))
        assert told["outputs"] == {"text_output": words} and told["pieces"] == 3
        python = subprocess.run([sys.executable, "-c", run("call", " ".join(words), "--snippet", "python")], capture_output=True, text=True)
        assert python.returncode == 0, python.stderr
        assert [ast.literal_eval(line)["text_output"] for line in python.stdout.splitlines()] == words
        curl = subprocess.run(["bash", "-c", run("call", " ".join(words), "--snippet", "curl")], capture_output=True, text=True)
        lines = [json.loads(line[5:]) for line in curl.stdout.splitlines() if line.startswith("data:")]
        assert [line["text_output"] for line in lines] == words
        refused = subprocess.run([sys.executable, "-c", run("call", "all wrong", "--snippet", "python")], capture_output=True, text=True)
        assert refused.returncode == 1 and "out of words" in refused.stderr
    finally:
        run("down", "--yes")
