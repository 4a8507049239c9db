"""Engines that are served as they are: packaged by digest, rendered with their backend, never compressed or tuned."""

import json

import pytest

from deployctl import config, wiring
from deployctl.core import manifests
from deployctl.core.manifests.workload import canary
from deployctl.errors import ModelError
from deployctl.flows._existing import existing_bundle
from deployctl.testing import kube
from deployctl.testing.memory import NotedProgress

DEPLOY = """\
name: chat
model: {source: "opaque:engine"}
slo: {latency: {p99: 5s}}
traffic: {rate: 1/s}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "deploy.yaml").write_text(DEPLOY)
    (tmp_path / "engine").mkdir()
    return tmp_path


def packed(folder):
    tools = wiring.LazyToolbox(folder)
    bundle = existing_bundle(config.load(folder), tools, NotedProgress())
    return bundle, tools


def vllm(folder, arguments):
    (folder / "engine/weights").mkdir()
    (folder / "engine/weights/model.safetensors").write_bytes(b"w" * 100)
    (folder / "engine/model.json").write_text(json.dumps(arguments))


def test_vllm_is_a_model_json_and_weights(folder):
    vllm(folder, {"model": "${MODEL_DIR}/weights", "max_model_len": 4096})
    bundle, tools = packed(folder)
    assert [f.path for f in bundle.files] == ["chat/1/model.json", "chat/1/weights/model.safetensors", "chat/config.pbtxt"]
    arguments = json.loads(tools.blobs.path(bundle.files[0].digest).read_text())
    assert arguments == {"model": "/models/repository/chat/1/weights", "max_model_len": 4096}
    spec = bundle.model("chat")
    assert (spec.backend, spec.tunable, spec.serving.max_batch) == ("vllm", False, 0)
    text = tools.repository.config_text(bundle, "chat", spec.serving, native=True)
    assert 'backend: "vllm"' in text and "decoupled: true" in text and "KIND_MODEL" in text and "dynamic_batching" not in text
    assert packed(folder)[0].digest == bundle.digest


def test_its_pods_are_asked_in_the_form_that_it_answers(folder):
    vllm(folder, {"model": "${MODEL_DIR}/weights"})
    bundle, tools = packed(folder)
    plan = kube.plan(bundle, settings={})
    text = tools.repository.config_text(bundle, "chat", bundle.model("chat").serving, native=True)
    inputs = manifests.Inputs(plan=plan, bundle=bundle, configs={"chat": text}, scripts=kube.inputs(bundle, plan).scripts)
    record = next(o for o in manifests.objects(inputs) if o["kind"] == "ConfigMap")
    request = json.loads(record["data"]["request.json"])
    assert request == canary(bundle, plan, plan.cluster) and request["generate"]["text_input"] and request["inputs"] == []
    assert json.loads(record["data"]["release.json"])["configs"]["chat"] == text


def test_tensorrt_llm_brings_its_config(folder):
    (folder / "engine/rank0.engine").write_bytes(b"e")
    (folder / "engine/config.json").write_text("{}")
    (folder / "engine/config.pbtxt").write_text(
        'name: "tensorrt_llm"\nbackend: "tensorrtllm"\nmax_batch_size: 4\n'
        'input [{ name: "input_ids" data_type: TYPE_INT32 dims: [-1] }]\noutput [{ name: "output_ids" data_type: TYPE_INT32 dims: [-1, -1] }]\n'
        'parameters { key: "gpt_model_path" value { string_value: "${MODEL_DIR}" } }\n'
    )
    bundle, _ = packed(folder)
    assert [f.path for f in bundle.files] == ["chat/1/config.json", "chat/1/rank0.engine", "chat/config.pbtxt"]
    spec = bundle.model("chat")
    assert (spec.name, spec.backend, spec.parameters) == ("chat", "tensorrtllm", {"gpt_model_path": "/models/repository/chat/1"})


@pytest.mark.parametrize("arguments", [{"model": "some-org/some-model"}, {"model": "${MODEL_DIR}/nowhere"}, {"model": "weights"}, {}, []])
def test_weights_that_no_digest_pins_are_refused(folder, arguments):
    vllm(folder, arguments)
    with pytest.raises(ModelError) as refusal:
        packed(folder)
    assert refusal.value.code == "engine-invalid" and "${MODEL_DIR}/weights" in refusal.value.hint


def test_a_folder_that_nothing_describes_is_refused(folder):
    (folder / "engine/rank0.engine").write_bytes(b"e")
    with pytest.raises(ModelError) as refusal:
        packed(folder)
    assert refusal.value.code == "engine-invalid" and "config.pbtxt" in refusal.value.hint
