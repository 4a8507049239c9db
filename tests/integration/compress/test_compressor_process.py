"""The torch room as a process: what user code may do wrong, what it may print, and that it ends when we do."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deployctl.adapters.compressor import ProcessCompressor
from deployctl.adapters.files import FileBlobStore
from deployctl.errors import Bug, MachineError, ModelError, ProjectError
from deployctl.testing.memory import NotedProgress
from deployctl.testing.onnx_models import write_mlp, write_numbers


def run(root, *, code=None, value="mine:build", kind="python", progress=None, **changes):
    """One run in `root`, where `mine.py` holds `code`."""
    if code is not None:
        (root / "mine.py").write_text(code)
    if not (root / "samples.jsonl").exists():
        write_numbers(root / "samples.jsonl", lines=3)
    compressor = ProcessCompressor(FileBlobStore(root / "blobs"), root / "scratch")
    source = {"kind": kind, "value": value, "tokenizer": None, "pooling": None}
    request = {"root": str(root), "source": source, "sample": "samples.jsonl", "methods": ["fp32"], "gate": 0.98, **changes}
    try:
        return compressor.run(request, progress or NotedProgress())
    finally:
        assert list((root / "scratch").iterdir()) == [], "scratch must be gone however it ended"


BAD = {
    "no module": (None, "absent:build", ProjectError, "model-not-found", "there is no module absent"),
    "no function": ("def other(): pass\n", "mine:build", ProjectError, "model-not-found", "has no function build"),
    "syntax": ("def build(:\n", "mine:build", ModelError, "model-build-failed", "does not import"),
    "import inside": ("import not_there_at_all\n", "mine:build", ModelError, "model-build-failed", "does not import"),
    "raises": ("def build():\n    raise RuntimeError('no weights here')\n", "mine:build", ModelError, "model-build-failed", "failed"),
    "wrong type": ("def build():\n    return 7\n", "mine:build", ModelError, "model-build-failed", "returned int"),
    "exits": ("import os\ndef build():\n    os._exit(3)\n", "mine:build", ModelError, "compress-died", "ended with status 3"),
    "crashes": ("import os\ndef build():\n    os.abort()\n", "mine:build", ModelError, "compress-died", "SIGABRT"),
    "killed": ("import os\ndef build():\n    os.kill(os.getpid(), 9)\n", "mine:build", ModelError, "compress-died", "memory ran out"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_user_code_does_wrong_is_said_with_its_cause(tmp_path, name):
    code, value, kind, slug, words = BAD[name]
    with pytest.raises(kind, match=words) as found:
        run(tmp_path, code=code, value=value)
    assert found.value.code == slug
    assert found.value.hint
    if name == "raises":
        assert (found.value.where, found.value.why) == ("mine.py:2", "RuntimeError: no weights here")
    if name == "syntax":
        assert found.value.where == "mine.py:1"


def test_without_torch_the_extra_is_named(tmp_path, monkeypatch):
    """A torch that fails to import, as one without its CUDA libraries does, stands first on the path."""
    (tmp_path / "fake/torch").mkdir(parents=True)
    (tmp_path / "fake/torch/__init__.py").write_text("raise ImportError('libcublasLt.so.13: cannot open shared object file')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))
    with pytest.raises(MachineError) as found:
        run(tmp_path, code="import torch\ndef build(): pass\n")
    assert found.value.code == "torch-missing"
    assert "deployctl[compress]" in found.value.hint and "libcublasLt" in found.value.why


def test_an_onnx_source_needs_no_torch(tmp_path, monkeypatch):
    (tmp_path / "fake/torch").mkdir(parents=True)
    (tmp_path / "fake/torch/__init__.py").write_text("raise ImportError('no torch')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))
    write_mlp(tmp_path / "m.onnx")
    record = run(tmp_path, kind="onnx", value="m.onnx", methods=["fp32", "int8-dynamic", "int8-weights"])
    assert [v.name for v in record.variants] == ["fp32", "int8-dynamic", "int8-weights"]
    store = FileBlobStore(tmp_path / "blobs")
    assert all(store.has(d) for d in record.digests)


def test_a_recipe_goes_as_far_as_the_gate_and_the_record_says_for_which_gate(tmp_path):
    write_mlp(tmp_path / "m.onnx")
    write_numbers(tmp_path / "samples.jsonl", lines=300)
    record = run(tmp_path, kind="onnx", value="m.onnx", methods=["fp32", "prune", "prune+int8-dynamic", "low-rank+fp16"], gate=0.8)
    base, pruned, both, thin = record.variants
    assert [v.steps for v in record.variants] == [("fp32",), ("fp32", "prune"), ("fp32", "prune", "int8-dynamic"), ("fp32", "low-rank", "fp16")]
    assert all(v.fidelity.passed for v in record.variants)
    assert both.artifact.size_bytes < pruned.artifact.size_bytes < base.artifact.size_bytes > thin.artifact.size_bytes
    assert record.aimed_at == 0.8
    strict = run(tmp_path, kind="onnx", value="m.onnx", methods=["fp32", "prune"], gate=0.97)
    assert strict.variants[1].artifact.size_bytes > pruned.artifact.size_bytes and strict.variants[1].fidelity.passed
    plain = run(tmp_path, kind="onnx", value="m.onnx", methods=["fp32", "int8-weights"])
    assert plain.aimed_at is None


def test_the_gate_refuses_what_a_method_loses(tmp_path):
    write_mlp(tmp_path / "m.onnx")
    write_numbers(tmp_path / "samples.jsonl", lines=300)
    record = run(tmp_path, kind="onnx", value="m.onnx", methods=["fp32", "int8-static"], gate=0.999999)
    assert [v.fidelity.passed for v in record.variants] == [True, False]


def test_a_library_that_would_fetch_is_told_that_it_is_offline(tmp_path):
    code = "import os\ndef build():\n    raise RuntimeError(os.environ['HF_HUB_OFFLINE'] + os.environ['TRANSFORMERS_OFFLINE'])\n"
    with pytest.raises(ModelError) as found:
        run(tmp_path, code=code)
    assert found.value.why == "RuntimeError: 11"


MODULE = """
import torch
from deployctl.compress import Model
print("chatter on stdout " * 3)

class Two(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a = torch.nn.Linear(64, 8)
        self.b = torch.nn.Linear(64, 3)

    def forward(self, x, scale):
        print("more chatter")
        return {"logits": self.a(x) * scale, "aux": self.b(x).softmax(-1)}

def build():
    return Model(module=Two(), example_inputs={"x": torch.zeros(1, 64), "scale": torch.ones(1, 1)})
"""


@pytest.mark.torch
def test_a_module_with_two_named_inputs_and_outputs_goes_through_whatever_it_prints(tmp_path):
    rows = [{"x": [i / 7] * 64, "scale": [2.0]} for i in range(5)]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    record = run(tmp_path, code=MODULE)
    graph = record.variants[0].artifact
    assert [(t.name, t.shape) for t in graph.inputs] == [("x", (64,)), ("scale", (1,))]
    assert [(t.name, t.shape) for t in graph.outputs] == [("logits", (8,)), ("aux", (3,))]
    assert record.variants[0].fidelity.worst.minimum > 0.99999
    assert list(record.depends) == ["mine.py"]
    answers = FileBlobStore(tmp_path / "blobs").path(record.answers["fp32"]).read_text().splitlines()
    assert len(answers) == 5 and set(json.loads(answers[0])["outputs"]) == {"logits", "aux"}


DEEP = """
import torch
from deployctl.compress import Model

class Deep(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = torch.nn.ModuleList([torch.nn.Linear(64, 64) for _ in range(4)])

    def forward(self, x):
        for block in self.blocks:
            x = x + 0.5 * torch.tanh(block(x))
        return x

def build():
    return Model(module=Deep(), example_inputs={"x": torch.zeros(1, 64)})
"""


@pytest.mark.torch
def test_a_student_is_trained_once_for_all_its_recipes_and_judged_by_the_gate(tmp_path):
    write_numbers(tmp_path / "samples.jsonl", lines=160)
    progress = NotedProgress()
    spec = {"keep_ratio": 0.5, "steps": 20, "learning_rate": 0.003, "seed": 0, "limit_s": 60.0}
    record = run(tmp_path, code=DEEP, methods=["fp32", "distill", "distill+int8-dynamic"], gate=0.999999, distill=spec, progress=progress)
    base, student, both = record.variants
    assert both.steps == ("fp32", "distill", "int8-dynamic")
    assert both.artifact.size_bytes < student.artifact.size_bytes < 0.7 * base.artifact.size_bytes
    assert [v.fidelity.passed for v in record.variants] == [True, False, False] and student.fidelity.worst.lower95 > 0.9
    assert [text for kind, text in progress.said if kind == "update" and "step 20 of 20" in text], "progress is told"
    assert len([text for _, text in progress.said if "step 20 of 20" in text]) == 1, "it was trained once"
    assert record.aimed_at is None, "another gate judges the same student"
    with pytest.raises(ModelError) as found:
        write_numbers(tmp_path / "samples.jsonl", lines=100)
        run(tmp_path, code=DEEP, methods=["fp32", "distill"])
    assert found.value.code == "sample-small"


def test_a_student_that_cannot_be_is_refused_before_other_variants_are_made(tmp_path):
    write_mlp(tmp_path / "m.onnx")
    progress = NotedProgress()
    with pytest.raises(ModelError) as found:
        run(tmp_path, kind="onnx", value="m.onnx", methods=["fp32", "int8-weights", "distill"], progress=progress)
    assert found.value.code == "distill-impossible"
    assert [text for kind, text in progress.said if kind == "step" and text.startswith("variant")] == ["variant distill"]


@pytest.mark.torch
def test_a_forward_that_does_not_take_its_example_names_the_users_line(tmp_path):
    code = MODULE.replace('"scale": torch.ones(1, 1)', '"skale": torch.ones(1, 1)')
    with pytest.raises(ModelError) as found:
        run(tmp_path, code=code)
    assert found.value.code == "export-failed" and "skale" in found.value.why


def test_an_unknown_method_is_refused_before_any_user_code_runs(tmp_path):
    code = "import pathlib\npathlib.Path('ran').touch()\n"
    with pytest.raises(ProjectError) as found:
        run(tmp_path, code=code, methods=["fp64"])
    assert found.value.code == "method-unknown" and not (tmp_path / "ran").exists()


DRIVER = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs with SIGINT ignored
from pathlib import Path
from deployctl.adapters.compressor import ProcessCompressor
from deployctl.adapters.files import FileBlobStore
from deployctl.testing.memory import NotedProgress
root = Path(sys.argv[1])
source = {"kind": "python", "value": "mine:build", "tokenizer": None, "pooling": None}
request = {"root": str(root), "source": source, "sample": "samples.jsonl", "methods": ["fp32"], "gate": 0.98}
ProcessCompressor(FileBlobStore(root / "blobs"), root / "scratch").run(request, NotedProgress())
"""
WAITS = """
import os, pathlib, subprocess, time
def build():
    helper = subprocess.Popen(["sleep", "600"])
    pathlib.Path("pids").write_text(f"{os.getpid()} {helper.pid}")
    time.sleep(600)
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_user_code_ends_when_the_command_ends(tmp_path, end):
    (tmp_path / "mine.py").write_text(WAITS)
    write_numbers(tmp_path / "samples.jsonl", lines=3)
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path)], stderr=subprocess.DEVNULL)
    pids = wait_for(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text().split(), 60)
    child, helper = map(int, pids)
    driver.send_signal(end)
    try:
        driver.wait(timeout=60)
    finally:
        driver.kill()
    wait_for(lambda: not alive(child), 20)
    if end == signal.SIGINT:
        wait_for(lambda: not alive(helper), 20)
        assert list((tmp_path / "scratch").iterdir()) == []
    else:
        os.kill(helper, signal.SIGKILL)  # what user code started survives a kill -9 of ours; its folder is swept by the next run
        run(tmp_path, code=None, kind="onnx", value=write_mlp(tmp_path / "m.onnx").name)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come to that")


def test_a_defect_of_ours_is_called_one(tmp_path):
    with pytest.raises(Bug, match="KeyError"):
        run(tmp_path, code="", source={})
