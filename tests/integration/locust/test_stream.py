"""Answers in pieces on a real Triton: a decoupled Python model that says a given number of words, 30 ms apart."""

import dataclasses
import json

import numpy as np
import pytest

from deployctl.adapters.triton import TritonLauncher
from deployctl.core.demand import constant
from deployctl.core.judging import assess
from deployctl.core.slo import Objective, Slo
from deployctl.errors import ModelError
from deployctl.ports import LoadRequest

pytestmark = [pytest.mark.triton, pytest.mark.timeout(240)]

GAP_S = 0.03
MODEL = f"""\
import time
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            count = int(pb_utils.get_input_tensor_by_name(request, "text_input").as_numpy()[0])
            for number in range(abs(count)):
                time.sleep({GAP_S})
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("text_output", np.array([f"word data: {{number}} "], dtype=np.object_))]))
            if count < 0:
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
instance_group { kind: KIND_CPU count: 2 }
"""


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    root = tmp_path_factory.mktemp("chat")
    (root / "repo/chat/1").mkdir(parents=True)
    (root / "repo/chat/1/model.py").write_text(MODEL)
    (root / "repo/chat/config.pbtxt").write_text(CONFIG)
    with TritonLauncher(root / "triton").start(root / "repo") as running:
        yield running


def words(count):
    return {"text_input": {"dtype": "BYTES", "shape": [1], "data": [str(count)]}}


def load(chat, tmp_path, *counts, protocol="stream"):
    bodies = tmp_path / "bodies.jsonl"
    bodies.write_text("".join(json.dumps({"size": 1, "inputs": words(n)}) + "\n" for n in counts))
    return LoadRequest(
        url=chat.http_url, protocol=protocol, model="chat", bodies=bodies, demand=constant(4.0), duration_s=6.0, seed=1, timeout_s=30.0, grace_s=30.0
    )


def test_each_piece_has_its_time_and_infer_joins_them(chat):
    pieces = chat.api.pieces("chat", words(4))
    assert [p.outputs["text_output"] for p in pieces] == [[f"word data: {i} "] for i in range(4)]
    times = [p.after_s for p in pieces]
    assert times == sorted(times) and times[-1] - times[0] >= 2 * GAP_S
    assert chat.infer("chat", words(2)) == {"text_output": ["word data: 0 ", "word data: 1 "]}
    with pytest.raises(ModelError, match="out of words"):
        chat.infer("chat", words(-1))


def test_a_load_test_sees_first_pieces_and_gaps(chat, generator, tmp_path):
    samples = generator.run(load(chat, tmp_path, 4)).samples
    assert samples.ok.all() and samples.ok.size > 5
    assert (samples.pieces == 4).all()  # one event may come in parts and two in one segment: the count is exact
    assert (samples.first_s >= GAP_S * 0.9).all() and (samples.latency_s - samples.first_s >= 2.5 * GAP_S).all()
    latency = Objective(metric="latency", percentile=50.0, max=20.0)
    slo = Slo(objectives=(latency, *(dataclasses.replace(latency, metric=m, max=limit) for m, limit in (("ttft", 20.0), ("itl", GAP_S / 2)))))
    judged = assess(samples, slo, rng=np.random.default_rng(0), offered_rps=4.0, duration_s=6.0).objectives
    assert [o.estimate is not None for o in judged] == [True] * 3
    assert judged[1].estimate < judged[0].estimate and judged[2].estimate >= GAP_S * 0.8 and judged[2].result != "PASS"


def test_an_error_inside_the_stream_is_a_failure(chat, generator, tmp_path):
    with pytest.raises(ModelError, match="out of words"):  # the test before the test
        generator.run(load(chat, tmp_path, -1))
    samples = generator.run(load(chat, tmp_path, 1, -2)).samples
    assert 0 < samples.ok.sum() < samples.ok.size
    assert samples.errors == ("in the stream: out of words",)


def test_the_ordinary_protocol_is_refused_with_the_way_out(chat, generator, tmp_path):
    with pytest.raises(ModelError, match="decoupled") as error:
        generator.run(load(chat, tmp_path, 1, protocol="http"))
    assert error.value.code == "loadtest-refused" and "--protocol stream" in error.value.hint
