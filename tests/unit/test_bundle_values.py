"""Size buckets, bundle digests and the models that a variant becomes."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployctl.core import codec, packaging
from deployctl.core.agreement import compare
from deployctl.core.artifact import Artifact, FileRef, TensorSpec
from deployctl.core.bundle import Bundle, SizeRule
from deployctl.core.compressed import Compressed
from deployctl.errors import ModelError

D = "sha256:" + "d" * 64
IDS = TensorSpec(name="input_ids", dtype="INT64", shape=(-1,))
OUT = TensorSpec(name="sentence_embedding", dtype="FP32", shape=(8,))
GRAPH = Artifact(stage="onnx", digest=D, files=(FileRef(path="model.onnx", digest=D, size_bytes=1),), inputs=(IDS,), outputs=(OUT,))


def record(*, text=True, batched=True):
    tokenizer = FileRef(path="tokenizer.json", digest=D, size_bytes=1) if text else None
    rule = SizeRule(unit="tokens", step=16, maximum=128)
    return Compressed(variants=(), batched=batched, sample=D, answers={}, size_rule=rule, sizes={}, tokenizer=tokenizer)


@given(st.integers(0, 10_000))
def test_a_bucket_is_a_multiple_of_the_step_that_holds_the_request_or_the_maximum(units):
    rule = SizeRule(unit="tokens", step=16, maximum=128)
    bucket = rule.bucket(units)
    assert bucket % 16 == 0 and 16 <= bucket <= 128
    assert bucket >= min(units, 128) and bucket - max(units, 1) < 16


def test_known_buckets():
    rule = SizeRule(unit="tokens", step=16, maximum=128)
    assert [rule.bucket(n) for n in (0, 1, 16, 17, 128, 500)] == [16, 16, 16, 32, 128, 128]
    assert SizeRule().bucket(7) == 1


def test_a_text_variant_becomes_an_ensemble_whose_tensors_are_the_graphs():
    tokenizer, encoder, entry = packaging.models_of("search", record(), GRAPH)
    assert [m.name for m in (tokenizer, encoder, entry)] == ["tokenizer", "encoder", "search"]
    assert tokenizer.outputs == encoder.inputs == (IDS,)
    assert entry.outputs == encoder.outputs == (OUT,)
    assert tokenizer.parameters == {"max_tokens": "128", "pad_multiple": "16"}
    assert [m.tunable for m in (tokenizer, encoder, entry)] == [False, True, False]
    produced = set(entry.ensemble_steps[0].output_map.values())
    assert set(entry.ensemble_steps[1].input_map.values()) <= produced


@pytest.mark.parametrize("name", ["encoder", "tokenizer"])
def test_a_service_named_like_a_part_keeps_its_name(name):
    names = [m.name for m in packaging.models_of(name, record(), GRAPH)]
    assert names[-1] == name and len(set(names)) == 3


def test_a_model_without_a_batch_dimension_is_not_batched():
    (model,) = packaging.models_of("plain", record(text=False, batched=False), GRAPH)
    assert model.serving.max_batch == 0 and model.backend == "onnxruntime"


def test_a_bundle_is_the_same_after_a_journey_and_another_after_any_change():
    models = packaging.models_of("search", record(), GRAPH)
    bundle = Bundle(name="search", entry="search", variant="fp32", models=models, files=GRAPH.files, sample=D)
    assert codec.loads(Bundle, codec.dumps(bundle)).digest == bundle.digest
    assert dataclasses.replace(bundle, variant="other").digest != bundle.digest
    assert bundle.model("encoder").inputs == (IDS,) and bundle.inputs[0].name == "TEXT"


def test_agreement_measures_relative_to_the_answers_size():
    assert compare([{"y": [[1.0, 100.0]]}], [{"y": [1.0, 100.05]}]) == pytest.approx(0.0005, rel=1e-2)
    assert compare([{"y": [5.0]}], []) == 0.0


@pytest.mark.parametrize(
    ("got", "words"),
    [
        ({"y": [1.0, 101.0]}, "differs"),
        ({"y": [1.0]}, "1 elements, 2 were expected"),
        ({"z": [1.0, 2.0]}, "no output y"),
        ({"y": [1.0, float("nan")]}, "not finite"),
    ],
)
def test_a_wrong_answer_is_refused(got, words):
    with pytest.raises(ModelError, match=words) as found:
        compare([got], [{"y": [1.0, 100.0]}])
    assert found.value.code == "proof-differs"
