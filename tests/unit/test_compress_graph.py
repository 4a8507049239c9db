"""Reading graphs, adding pooling, feeding samples: on tiny real models, without torch."""

import json

import numpy as np
import pytest

from deployctl.compress import graph, inputs, measure, methods, verify
from deployctl.compress.model import Model
from deployctl.compress.room import pooled
from deployctl.compress.workbench import Calibration, Settings
from deployctl.core.artifact import Artifact, TensorSpec
from deployctl.errors import ModelError
from deployctl.testing.onnx_models import write_encoder, write_mlp, write_numbers, write_texts, write_tokenizer


def test_tensors_are_read_without_the_batch(tmp_path):
    x, y, batched = graph.tensors(write_mlp(tmp_path / "m.onnx"))
    assert batched
    assert (x, y) == ((TensorSpec(name="x", dtype="FP32", shape=(64,)),), (TensorSpec(name="y", dtype="FP32", shape=(10,)),))


def test_a_fixed_first_dimension_is_no_batch(tmp_path):
    x, _, batched = graph.tensors(write_mlp(tmp_path / "m.onnx", batch=1))
    assert not batched and x[0].shape == (1, 64)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07"])
def test_no_model_is_refused_with_its_name(tmp_path, content):
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"broken\.onnx") as found:
        graph.tensors(path)
    assert found.value.code == "onnx-invalid"


def encode(tmp_path, pooling, *, normalize):
    """Answers of the pooled graph and of pooling done in numpy on the plain graph, over rows of two lengths."""
    plain, target = write_encoder(tmp_path / "plain.onnx"), tmp_path / "pooled.onnx"
    graph.add_pooling(plain, target, pooling=pooling, normalize=normalize)
    ids = np.array([[3, 4, 5, 0, 0], [6, 7, 8, 9, 10]], dtype=np.int64)
    feed = {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64)}
    hidden = graph.run(graph.session(plain), feed)["hidden"]
    want = pooled(hidden, feed["attention_mask"], Model(module=None, pooling=pooling, normalize=normalize))
    return graph.run(graph.session(target), feed), want, target


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_pooling_in_the_graph_is_pooling_by_hand(tmp_path, pooling, normalize):
    got, want, target = encode(tmp_path, pooling, normalize=normalize)
    assert list(got) == ["sentence_embedding"]
    assert got["sentence_embedding"] == pytest.approx(want, abs=1e-6)
    if normalize:
        assert np.linalg.norm(got["sentence_embedding"], axis=1) == pytest.approx(1, abs=1e-5)
    assert graph.tensors(target)[1] == (TensorSpec(name="sentence_embedding", dtype="FP32", shape=(32,)),)


def test_a_pooled_graph_goes_into_16_bits_and_back_out(tmp_path):
    """Some steps of pooling stay in 32 bits, so types have to meet at each of them."""
    graph.add_pooling(write_encoder(tmp_path / "plain.onnx"), tmp_path / "pooled.onnx", pooling="mean", normalize=True)
    settings = Settings(folder=tmp_path / "work", source=tmp_path / "pooled.onnx")
    base = Artifact(stage="onnx", digest="", files=(), inputs=(), outputs=())
    base, _ = methods.load("fp32")(base, settings, Calibration(feeds=()))
    made, _ = methods.load("fp16")(base, settings, Calibration(feeds=()))
    feed = {"input_ids": np.array([[3, 4, 5]]), "attention_mask": np.array([[1, 1, 1]])}
    want, got = (graph.run(graph.session(settings.path(a)), feed)["sentence_embedding"] for a in (base, made))
    assert got.dtype == np.float32 and got == pytest.approx(want, abs=2e-3)


def test_padding_does_not_change_a_mean(tmp_path):
    target = tmp_path / "pooled.onnx"
    graph.add_pooling(write_encoder(tmp_path / "plain.onnx"), target, pooling="mean", normalize=True)
    session = graph.session(target)
    short = {"input_ids": np.array([[3, 4]]), "attention_mask": np.array([[1, 1]])}
    long = {"input_ids": np.array([[3, 4, 0, 0]]), "attention_mask": np.array([[1, 1, 0, 0]])}
    assert graph.run(session, short)["sentence_embedding"] == pytest.approx(graph.run(session, long)["sentence_embedding"], abs=1e-6)


def test_a_row_without_tokens_is_finite(tmp_path):
    """Triton warms up with zeros: the mask keeps nothing."""
    target = tmp_path / "pooled.onnx"
    graph.add_pooling(write_encoder(tmp_path / "plain.onnx"), target, pooling="mean", normalize=True)
    zeros = np.zeros((1, 16), dtype=np.int64)
    assert np.isfinite(graph.run(graph.session(target), {"input_ids": zeros, "attention_mask": zeros})["sentence_embedding"]).all()


def test_what_cannot_be_pooled_is_refused(tmp_path):
    with pytest.raises(ModelError) as found:
        graph.add_pooling(write_mlp(tmp_path / "m.onnx"), tmp_path / "p.onnx", pooling="mean", normalize=False)
    assert found.value.code == "pooling-impossible"


IDS = tuple(TensorSpec(name=n, dtype="INT64", shape=(-1,)) for n in ("input_ids", "attention_mask"))


@pytest.fixture
def texts(tmp_path):
    write_tokenizer(tmp_path / "tokenizer.json", max_tokens=40)
    write_texts(tmp_path / "s.jsonl", lines=20, longest=60)
    return inputs.text_rows(tmp_path / "s.jsonl", tmp_path / "tokenizer.json", IDS)


def test_texts_fall_into_buckets_below_the_models_maximum(texts):
    """The tokenizer cuts at 40; the largest multiple of 16 below is 32, so that padding never exceeds the positions."""
    assert (texts.rule.step, texts.rule.maximum) == (16, 32)
    assert set(texts.sizes) == {16, 32}
    for row, size in enumerate(texts.sizes):
        feed = texts.feed([row])
        assert feed["input_ids"].shape == (1, size) == feed["attention_mask"].shape
        assert size - 16 < feed["attention_mask"].sum() <= size


def test_lines_for_the_wire_carry_the_text_with_its_complete_shape(texts):
    line = texts.lines[0]
    assert line["inputs"]["TEXT"]["shape"] == [1, 1] and line["size"] == texts.sizes[0]
    assert isinstance(line["inputs"]["TEXT"]["data"][0], str)
    json.dumps(line)


def test_a_stretched_batch_has_real_tokens_everywhere(texts):
    feed = texts.stretched(3, 32)
    assert feed["input_ids"].shape == (3, 32)
    assert (feed["attention_mask"] == 1).all() and (feed["input_ids"] > 0).all()


def test_a_graph_that_wants_what_no_tokenizer_makes(tmp_path):
    write_tokenizer(tmp_path / "tokenizer.json")
    write_texts(tmp_path / "s.jsonl")
    with pytest.raises(ModelError) as found:
        inputs.text_rows(tmp_path / "s.jsonl", tmp_path / "tokenizer.json", (TensorSpec(name="pixels", dtype="FP32", shape=(-1,)),))
    assert found.value.code == "tokenizer-mismatch"


@pytest.mark.parametrize(("content", "words"), [("", "is empty"), ("\n \n", "is empty")])
def test_an_empty_sample_is_refused(tmp_path, content, words):
    (tmp_path / "s.jsonl").write_text(content)
    with pytest.raises(ModelError, match=words) as found:
        inputs.read_lines(tmp_path / "s.jsonl")
    assert found.value.code == "sample-invalid"


def test_a_sample_that_is_no_text_at_all(tmp_path):
    (tmp_path / "s.jsonl").write_bytes(b"\xff\xfe\x00x")
    with pytest.raises(ModelError) as found:
        inputs.read_lines(tmp_path / "s.jsonl")
    assert found.value.code == "sample-invalid"


def test_every_case_covers_every_row_and_the_batched_case_sees_its_mates(tmp_path, texts):
    """A model whose answer is the batch's sum: alone and padded agree with the parent, batched cannot."""
    parent = verify.flat(verify.alone(lambda f: {"y": f["attention_mask"].sum(axis=1, keepdims=True) * [[1.0, 2.0]]}, texts))

    def shared(feed):
        rows = len(feed["input_ids"])
        own = feed["attention_mask"].sum(axis=1, keepdims=True) * np.array([[1.0, 2.0]])
        return {"y": own if rows == 1 else own * [[1.0, -1.0]]}

    fidelity = verify.fidelity(shared, texts, parent, gate=0.9, neighbours=False, batched=True)
    assert [(c.name, c.samples) for c in fidelity.cases] == [("alone", 20), ("padded", 20), ("batched", 20)]
    assert [c.minimum for c in fidelity.cases[:2]] == pytest.approx([1, 1])
    assert fidelity.worst.name == "batched" and not fidelity.passed


def test_numbers_share_a_batch_only_with_their_own_shape(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_text('{"x": [1, 2]}\n{"x": [1, 2, 3]}\n{"x": [3, 4]}\n')
    rows = inputs.number_rows(path, (TensorSpec(name="x", dtype="FP32", shape=(-1,)),), batched=True)
    assert rows.sizes == [2, 3, 2] and rows.rule.unit == "elements" and rows.rule.maximum == 3
    assert rows.feed([0, 2])["x"].tolist() == [[1, 2], [3, 4]]
    seen = []

    def ask(feed):
        seen.append(feed["x"].shape)
        return {"y": feed["x"].sum(axis=1, keepdims=True)}

    verify.fidelity(ask, rows, np.array([[3.0], [6.0], [7.0]]), gate=0.9, neighbours=False, batched=True)
    assert {s[1] for s in seen if s[0] == 8} == {2, 3}


def test_time_is_measured_at_every_point_of_the_grid(tmp_path):
    write_numbers(tmp_path / "s.jsonl", lines=3)
    specs, _, batched = graph.tensors(write_mlp(tmp_path / "m.onnx"))
    rows = inputs.number_rows(tmp_path / "s.jsonl", specs, batched=batched)
    points = measure.latency(verify.asker(graph.session(tmp_path / "m.onnx")), rows, batched=batched)
    assert [(p.batch, p.size) for p in points] == [(1, 1), (8, 1)]
    assert all(p.cpu_s > 0 and p.seconds > 0 for p in points)


def test_of_a_long_sample_the_same_part_is_compared_each_time(tmp_path):
    write_numbers(tmp_path / "s.jsonl", lines=300)
    specs, _, batched = graph.tensors(write_mlp(tmp_path / "m.onnx"))
    rows = inputs.number_rows(tmp_path / "s.jsonl", specs, batched=batched)
    part, others = verify.split(rows)
    assert (len(rows.sizes), len(part.sizes), len(others.sizes)) == (300, verify.MOST_JUDGED, 300 - verify.MOST_JUDGED)
    assert sorted(map(str, [*part.lines, *others.lines])) == sorted(map(str, rows.lines))
    assert part.lines == verify.split(rows)[0].lines
    assert [r for r in rows.lines if r in part.lines] == part.lines
