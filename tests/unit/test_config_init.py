"""init: what is proposed, what is never overwritten, and that the proposal can be read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deployctl.config import load, templates
from deployctl.core.artifact import TensorSpec
from deployctl.core.repocheck import RepositoryModel
from deployctl.errors import NotFound, ProjectError
from deployctl.flows import init as flow


class MemoryInspector:
    """Says what it was told to say."""

    def __init__(self, inputs=(), outputs=(), models=()):
        self.tensors = (tuple(inputs), tuple(outputs))
        self.models = tuple(models)

    def onnx(self, path):
        return self.tensors

    def triton(self, path):
        return self.models


def wish(root: Path, **more) -> flow.Wish:
    return flow.Wish(**{"root": root, "name": "search", "rate": "12/s", "p99": "250ms", **more})


def tensor(name: str, dtype: str, *shape: int) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


@pytest.mark.parametrize("template", list(templates.TEMPLATES))
def test_each_template_makes_a_valid_project(tmp_path, template):
    draft = flow.propose(wish(tmp_path, template=template), MemoryInspector())
    assert list(draft.files)[-1] == "deploy.yaml"
    assert not any(tmp_path.iterdir())
    flow.write(draft)
    made = load(tmp_path)
    assert (made.name, made.slo.latency.max, made.traffic.steps[0].rate_rps) == ("search", 0.25, 12.0)
    assert "@" not in draft.text
    assert 25 <= len(draft.text.splitlines()) <= 40


def test_every_template_folder_is_registered():
    folders = {p.name for p in Path(templates.__file__).parents[1].joinpath("templates").iterdir() if (p / "deploy.yaml").is_file()}
    assert folders == {*templates.TEMPLATES, *templates.EXISTING.values()}


def test_the_sample_is_many_different_sentences():
    rows = [json.loads(line) for line in templates.sample().decode().splitlines()]
    texts = [row["text"] for row in rows]
    words = [len(t.split()) for t in texts]
    assert all(set(row) == {"text"} for row in rows)
    assert len(set(texts)) == len(texts) >= 200
    assert min(words) <= 6
    assert max(words) >= 80
    assert all(any(low <= n < low + 15 for n in words) for low in range(5, 80, 15))


def test_the_second_run_has_nothing_to_do(tmp_path):
    flow.write(flow.propose(wish(tmp_path), MemoryInspector()))
    again = flow.propose(wish(tmp_path), MemoryInspector())
    assert set(again.same) == set(again.files)


@pytest.mark.parametrize("stopped_after", range(1, 5))
def test_a_run_that_was_killed_is_finished_by_the_next(tmp_path, stopped_after):
    draft = flow.propose(wish(tmp_path), MemoryInspector())
    for name in list(draft.files)[:stopped_after]:
        (tmp_path / name).write_bytes(draft.files[name])
    assert not (tmp_path / "deploy.yaml").exists() or stopped_after == len(draft.files)
    flow.write(flow.propose(wish(tmp_path), MemoryInspector()))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == draft.files


@pytest.mark.parametrize("name", ["deploy.yaml", "my_model.py", "samples.jsonl", "deployctl.schema.json"])
def test_no_file_is_overwritten_unasked(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ProjectError, match=name) as caught:
        flow.propose(wish(tmp_path), MemoryInspector())
    assert caught.value.code == "init-would-overwrite"
    assert [p.name for p in tmp_path.iterdir()] == [name]
    flow.write(flow.propose(wish(tmp_path, force=True), MemoryInspector()))
    assert (tmp_path / name).read_text() != "mine"


@pytest.mark.parametrize(
    ("before", "after"), [(None, ".deployctl/\n"), ("", ".deployctl/\n"), ("*.pyc", "*.pyc\n.deployctl/\n"), (".deployctl/\nx\n", ".deployctl/\nx\n")]
)
def test_gitignore_grows_by_one_line_once(tmp_path, before, after):
    if before is not None:
        (tmp_path / ".gitignore").write_text(before)
    flow.write(flow.propose(wish(tmp_path), MemoryInspector()))
    flow.write(flow.propose(wish(tmp_path), MemoryInspector()))
    assert (tmp_path / ".gitignore").read_text() == after


def test_an_onnx_file_is_described_by_its_graph(tmp_path):
    (tmp_path / "net.onnx").touch()
    inspector = MemoryInspector([tensor("x", "FP32", 3, -1)], [tensor("y", "FP32", 10)])
    draft = flow.propose(wish(tmp_path, source=tmp_path / "net.onnx"), inspector)
    assert "#   input x: FP32 [3, ?]\n#   output y: FP32 [10]\n" in draft.text
    flow.write(draft)
    made = load(tmp_path).model
    assert (made.kind, made.value, made.sample, made.tokenizer) == ("onnx", "net.onnx", None, None)


def test_token_inputs_beside_a_tokenizer_make_a_text_service(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "enc.onnx").touch()
    (tmp_path / "m" / "tokenizer.json").touch()
    inspector = MemoryInspector([tensor("input_ids", "INT64", -1), tensor("attention_mask", "INT64", -1)], [tensor("h", "FP32", -1, 384)])
    flow.write(flow.propose(wish(tmp_path, source=tmp_path / "m" / "enc.onnx"), inspector))
    made = load(tmp_path).model
    assert (made.value, made.sample, made.tokenizer, made.pooling) == ("m/enc.onnx", "samples.jsonl", "m/tokenizer.json", "mean")


def test_names_out_of_a_file_cannot_become_configuration(tmp_path):
    odd = tmp_path / 'a"b\\.onnx'
    odd.touch()
    inspector = MemoryInspector([tensor("x\nversion: 9", "FP32", 1)], [])
    flow.write(flow.propose(wish(tmp_path, source=odd), inspector))
    made = load(tmp_path)
    assert made.model.value == 'a"b\\.onnx'
    assert made.version == 1


def test_a_repository_is_kept_and_reported_on(tmp_path):
    (tmp_path / "repo").mkdir()
    inspector = MemoryInspector(models=[RepositoryModel(name="m", backend="python", max_batch=8, versions=())])
    draft = flow.propose(wish(tmp_path, source=tmp_path / "repo"), inspector)
    assert [f.severity for f in draft.findings] == ["fail", "warn", "warn"]
    assert all(f.remedy for f in draft.findings)
    flow.write(draft)
    assert (load(tmp_path).model.kind, load(tmp_path).model.value) == ("triton", "repo")
    assert not any((tmp_path / "repo").iterdir())


def test_a_missing_model_is_not_found(tmp_path):
    with pytest.raises(NotFound):
        flow.propose(wish(tmp_path, source=tmp_path / "no.onnx"), MemoryInspector())


def test_what_lies_in_the_folder_is_detected(tmp_path):
    assert flow.detect(tmp_path / "none") is None
    assert flow.detect(tmp_path) is None
    (tmp_path / "a.onnx").touch()
    assert flow.detect(tmp_path) == tmp_path / "a.onnx"
    (tmp_path / "b.onnx").touch()
    assert flow.detect(tmp_path) is None
    (tmp_path / "b.onnx").unlink()
    (tmp_path / "my_model.py").touch()
    assert flow.detect(tmp_path) is None


def test_a_repository_in_the_folder_is_detected(tmp_path):
    (tmp_path / "repo" / "m" / "1").mkdir(parents=True)
    (tmp_path / "repo" / "m" / "config.pbtxt").touch()
    assert flow.detect(tmp_path) == tmp_path / "repo"
