"""The Machine and ModelInspector ports on this real machine."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from deployctl.adapters.inspect import FileInspector
from deployctl.adapters.machine import ThisMachine
from deployctl.core.artifact import TensorSpec
from deployctl.errors import ModelError
from deployctl.ports import Machine, ModelInspector


def test_the_adapters_are_the_ports():
    machine: Machine = ThisMachine()
    inspector: ModelInspector = FileInspector()
    assert machine.python() == sys.version_info[:3]
    assert inspector is not None


def test_a_port_that_is_listened_on_is_not_free():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not ThisMachine().port_free(port)
    assert ThisMachine().port_free(port)


def test_a_place_that_takes_no_files_is_not_writable(tmp_path):
    assert ThisMachine().writable(tmp_path)
    assert ThisMachine().writable(tmp_path / "not" / "there")
    assert not ThisMachine().writable(Path("/proc/1"))
    assert list(tmp_path.iterdir()) == []


def test_amounts_are_positive_and_absent_things_are_none(tmp_path):
    machine = ThisMachine()
    assert machine.free_disk_bytes(tmp_path / "not" / "there") > 0
    assert machine.free_memory_bytes() > 0
    assert machine.open_files()[0] != 0
    assert machine.system()[0] == os.uname().sysname
    assert machine.package("no-such-distribution") is None
    assert machine.package("click")
    assert machine.program("no-such-program") is None
    assert machine.program("sh")


def test_triton_and_the_library_that_its_stub_loads_are_found():
    pytest.importorskip("pytriton", reason="the local extra is not installed")
    parts = ThisMachine().triton_parts()
    assert parts["server"]
    assert parts["stub"]
    assert ThisMachine().libpython()


def test_an_unknown_context_is_a_problem_and_not_an_exception():
    assert ThisMachine().cluster_problem("deployctl-no-such-context")


def test_a_real_graph_gives_its_tensors(tmp_path):
    onnx = pytest.importorskip("onnx", reason="the compress extra is not installed")
    tensor, types = onnx.helper.make_tensor_value_info, onnx.TensorProto
    weight = onnx.helper.make_tensor("w", types.FLOAT, [1], [1.0])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Mul", ["x", "w"], ["y"]), onnx.helper.make_node("Identity", ["s"], ["t"])],
        "g",
        [tensor("x", types.FLOAT, ["batch", 3, "n"]), tensor("s", types.STRING, [None, 1]), tensor("w", types.FLOAT, [1])],
        [tensor("y", types.FLOAT, ["batch", 3, "n"]), tensor("t", types.STRING, [None, 1])],
        [weight],
    )
    onnx.save(onnx.helper.make_model(graph), tmp_path / "g.onnx")
    inputs, outputs = FileInspector().onnx(tmp_path / "g.onnx")
    assert inputs == (TensorSpec(name="x", dtype="FP32", shape=(3, -1)), TensorSpec(name="s", dtype="BYTES", shape=(1,)))
    assert [t.name for t in outputs] == ["y", "t"]


@pytest.mark.parametrize("content", [b"", b"\x08", b"no model at all", b"\xff" * 100])
def test_what_is_no_graph_is_refused_in_one_line(tmp_path, content):
    pytest.importorskip("onnx", reason="the compress extra is not installed")
    (tmp_path / "g.onnx").write_bytes(content)
    with pytest.raises(ModelError) as caught:
        FileInspector().onnx(tmp_path / "g.onnx")
    assert caught.value.code == "onnx-unreadable"
    assert "\n" not in caught.value.message


def test_config_texts_are_read_by_the_official_protobuf(tmp_path):
    model = tmp_path / "m"
    (model / "2").mkdir(parents=True)
    (model / "10").mkdir()
    (model / "notes").mkdir()
    (tmp_path / ".git").mkdir()
    (model / "config.pbtxt").write_text(
        'platform: "onnxruntime_onnx" max_batch_size: 4 dynamic_batching {} instance_group [{count: 2}]'
        ' input [{name: "x" data_type: TYPE_STRING dims: [-1]}]'
    )
    (found,) = FileInspector().triton(tmp_path)
    assert (found.name, found.backend, found.max_batch, found.versions) == ("m", "onnxruntime_onnx", 4, ("2", "10"))
    assert (found.dynamic_batching, found.sequence_batching, found.warmup, found.instances) == (True, False, False, 2)
    assert found.inputs == (TensorSpec(name="x", dtype="BYTES", shape=(-1,)),)
    (model / "config.pbtxt").write_text("colour: 1")
    with pytest.raises(ModelError) as caught:
        FileInspector().triton(tmp_path)
    assert caught.value.code == "config-pbtxt-invalid"
