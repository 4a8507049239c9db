"""A model that imports what the server does not have, with its packages as one blob, on a real Triton."""

import dataclasses

import pytest

from deployctl import config, wiring
from deployctl.cli import main
from deployctl.core.packaging import ENVIRONMENT
from deployctl.errors import ModelError
from deployctl.flows import _gather
from deployctl.flows.package import package
from deployctl.testing.memory import NotedProgress

pytestmark = [pytest.mark.triton, pytest.mark.timeout(240)]

MODEL = """\
import numpy as np
import shout  # no server has this
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy()
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", (x * shout.FACTOR).astype(np.float32))]))
        return answers
"""
CONFIG = """\
name: "loud"
backend: "python"
max_batch_size: 8
input [{ name: "INPUT0" data_type: TYPE_FP32 dims: [2] }]
output [{ name: "OUTPUT0" data_type: TYPE_FP32 dims: [2] }]
instance_group [{ kind: KIND_CPU count: 2 }]
dynamic_batching { }
"""
DEPLOY = """\
name: loud
model: {source: "triton:repo"%s}
slo: {latency: {p99: 500ms}}
traffic: {rate: 5/s}
"""


@pytest.fixture
def folder(tmp_path):
    model = tmp_path / "repo" / "loud" / "1"
    model.mkdir(parents=True)
    (model / "model.py").write_text(MODEL)
    (model.parent / "config.pbtxt").write_text(CONFIG)
    packages = tmp_path / "packages" / "shout"
    packages.mkdir(parents=True)
    (packages / "__init__.py").write_text("FACTOR = 7\n")
    (tmp_path / "deploy.yaml").write_text(DEPLOY % ", environment: packages")
    return tmp_path


def tools_of(folder):
    return config.load(folder), wiring.LazyToolbox(folder)


def test_the_packages_travel_with_the_bundle(folder):
    project, tools = tools_of(folder)
    bundle = package(project, tools, NotedProgress())  # loads it in a real Triton and sends the sample
    (blob,) = [f for f in bundle.files if f.path == f"loud/{ENVIRONMENT}"]
    assert tools.blobs.path(blob.digest).stat().st_size == blob.size_bytes
    tools.repository.build(bundle, folder / "served")
    server = tools.launcher.start(folder / "served")
    try:
        assert server.infer("loud", {"inputs": {"INPUT0": {"dtype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}}})["OUTPUT0"] in (
            [[7.0, 14.0]],
            [7.0, 14.0],
        )
    finally:
        server.stop()
    # The same packages are the same blob; other ones are another bundle, which is seen without running anything.
    assert _gather.packaged(project, tools, _lock())[0] == bundle
    (folder / "packages/shout/__init__.py").write_text("FACTOR = 8\n")
    assert _gather.packaged(project, tools, _lock())[0].digest != bundle.digest


def test_without_them_the_proof_says_what_is_missing(folder):
    (folder / "deploy.yaml").write_text(DEPLOY % "")
    project, tools = tools_of(folder)
    with pytest.raises(ModelError) as refusal:
        package(project, tools, NotedProgress())
    assert "shout" in f"{refusal.value.message} {refusal.value.why}"


def test_what_cannot_be_an_environment_is_refused(folder, capsys):
    (folder / "packages/shout/link.py").symlink_to("/etc/hostname")
    assert main.run(["-C", str(folder), "package"]) == 1
    assert "link.py is a link" in capsys.readouterr().err
    (folder / "deploy.yaml").write_text(DEPLOY % ", environment: nowhere")
    assert main.run(["-C", str(folder), "package"]) == 2
    assert "nowhere" in capsys.readouterr().err


def _lock():
    from deployctl.core.lock import Lock

    return dataclasses.replace(Lock(env="local"))
