"""Answers of the back end that will serve, against the variant's own: inside the gate, outside it, or with nothing to compare."""

import dataclasses
import json

import numpy as np
import pytest

from deployctl.core import agreement
from deployctl.core.compressed import Compressed
from deployctl.core.project import CompressSpec
from deployctl.errors import ModelError, SloUnreachable
from deployctl.flows import _recheck
from deployctl.testing import builders
from deployctl.testing.memory import FixedLauncher, MemoryToolbox, NotedProgress


class Server:
    def __init__(self, bend):
        self.bend, self.stopped = bend, False

    def infer(self, model, request, *, timeout_s=30.0):
        value = np.array(request["INPUT0"]["data"])
        return {"OUTPUT0": [(value + self.bend * np.array([1, -1, 1, -1])).tolist()]}

    def stop(self):
        self.stopped = True


class Launcher(FixedLauncher):
    def __init__(self, bend):
        super().__init__(device="L4")
        self.bend, self.servers = bend, []

    def start(self, repository, *, explicit=False, cpus=()):
        self.servers.append(Server(self.bend))
        return self.servers[-1]


class Repository:
    def build(self, bundle, into, **_):
        into.mkdir(parents=True)


@dataclasses.dataclass
class Source:
    kind: str = "onnx"


@dataclasses.dataclass
class Project:
    model: Source
    compress: CompressSpec


@pytest.fixture
def lab(tmp_path, monkeypatch):
    def make(bend, reference=True):
        tools = MemoryToolbox(tmp_path)
        bundle = builders.sleep_bundle(tools.blobs, tools.bundles)
        lines = [json.loads(line) for line in tools.blobs.path(bundle.sample).read_text().splitlines()]
        answers = tools.blobs.put_bytes("".join(json.dumps({"outputs": {"OUTPUT0": x["inputs"]["INPUT0"]["data"]}}) + "\n" for x in lines).encode())
        record = object.__new__(Compressed)
        object.__setattr__(record, "answers", {bundle.variant: answers})
        monkeypatch.setattr(_recheck, "remembered", lambda *_: record if reference else None)
        tools.launcher, tools.repository = Launcher(bend), Repository()
        return tools, bundle

    return make


def project(gate=0.98):
    return Project(model=Source(), compress=CompressSpec(gate=gate))


def test_answers_inside_the_gate_pass_and_are_not_asked_twice(lab):
    tools, bundle = lab(0.01)
    first = _recheck.recheck(project(), tools, NotedProgress(), bundle)
    assert (first.compared, first.lowest_cosine > 0.9999, first.lowest_cosine < 1.0) == (1, True, True)
    assert _recheck.recheck(project(), tools, NotedProgress(), bundle) == first
    assert len(tools.launcher.servers) == 1
    _recheck.recheck(project(), tools, NotedProgress(), bundle, fresh=True)
    assert len(tools.launcher.servers) == 2
    assert all(s.stopped for s in tools.launcher.servers)


def test_answers_outside_the_gate_are_refused_and_forgotten(lab):
    tools, bundle = lab(0.5)
    for _ in range(2):
        with pytest.raises(SloUnreachable, match="answers on L4 are outside the fidelity gate") as caught:
            _recheck.recheck(project(), tools, NotedProgress(), bundle)
        assert (caught.value.code, caught.value.exit_code) == ("fidelity-gate", 97)
    assert len(tools.launcher.servers) == 2
    assert _recheck.recheck(project(gate=0.8), tools, NotedProgress(), bundle).lowest_cosine == pytest.approx(1 / 1.25**0.5)


def test_without_a_reference_nothing_is_claimed(lab):
    tools, bundle = lab(0.5, reference=False)
    found = _recheck.recheck(project(), tools, NotedProgress(), bundle)
    assert (found.requests, found.compared) == (1, 0)


@pytest.mark.parametrize("answer", [{"x": [1.0]}, {"y": [1.0, 2.0]}, {"y": [float("nan")]}])
def test_a_wrong_shape_is_no_matter_of_degree(answer):
    with pytest.raises(ModelError):
        agreement.cosines([answer], [{"y": [1.0]}])
