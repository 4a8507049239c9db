"""Sample lines to wire form, and every way in which a line can be wrong."""

import json

import pytest

from deployctl.core.artifact import TensorSpec
from deployctl.core.sample import inputs_of, text_of, zeros
from deployctl.errors import ModelError

X = TensorSpec(name="x", dtype="FP32", shape=(3,))
PAIR = (TensorSpec(name="a", dtype="INT8", shape=(-1, 2)), TensorSpec(name="ok", dtype="BOOL", shape=(1,)))


@pytest.mark.parametrize(
    "line",
    [
        '{"x": [1, 2.5, 3]}',
        '{"x": [[1, 2.5, 3]]}',
        '{"x": {"shape": [3], "data": [1, 2.5, 3]}}',
        '{"x": {"dtype": "FP32", "shape": [1, 3], "data": [[1, 2.5, 3]]}}',
        '{"inputs": {"x": [1, 2.5, 3]}}',
        '{"id": "7", "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2.5, 3]}]}',
    ],
)
def test_every_form_of_a_line_has_one_normal_form(line):
    assert inputs_of(line, [X], batched=True, where="s:1") == {"x": {"dtype": "FP32", "shape": [1, 3], "data": [1.0, 2.5, 3.0]}}


def test_a_model_without_a_batch_gets_its_complete_shape():
    assert inputs_of('{"x": [1, 2, 3]}', [X], batched=False, where="s:1")["x"]["shape"] == [3]


def test_varying_dimensions_and_other_types():
    found = inputs_of('{"a": [[1, -2], [3, 4]], "ok": [true]}', PAIR, batched=True, where="s:1")
    assert found == {"a": {"dtype": "INT8", "shape": [1, 2, 2], "data": [1, -2, 3, 4]}, "ok": {"dtype": "BOOL", "shape": [1, 1], "data": [True]}}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"x": [1, 2, "3"]}', 'input x: "3" is no FP32'),
        ('{"x": [1, 2, true]}', "input x: true is no FP32"),
        ('{"x": [1, 2]}', "shape [2], the model takes [3]"),
        ('{"x": [[1, 2, 3], [4, 5, 6]]}', "shape [2, 3], the model takes [3]"),
        ('{"x": [[1, 2], [3]]}', "ragged"),
        ('{"y": [1, 2, 3]}', "the inputs are y, the model takes x"),
        ('{"x": [1, 2, 3], "y": 1}', "the inputs are x, y, the model takes x"),
        ('{"x": {"dtype": "INT64", "data": [1, 2, 3]}}', "has the type INT64, the model takes FP32"),
        ('{"x": {"shape": [4], "data": [1, 2, 3]}}', "shape [4], the model takes [3]"),
        ('{"x": {"shape": "3", "data": [1, 2, 3]}}', '"3" is no shape'),
        ('{"x": {"shape": [1, 3]}}', "no list of data"),
        ('{"inputs": [{"name": "x", "shape": [1, 3], "data": [1, 2]}]}', "2 values for the shape [1, 3]"),
        ("[1, 2, 3]", "is no map of inputs"),
        ('{"x": [1, 2, 3}', "no JSON"),
    ],
)
def test_a_wrong_line_is_named_with_what_is_wrong(line, words):
    with pytest.raises(ModelError) as found:
        inputs_of(line, [X], batched=True, where="samples.jsonl:7")
    assert (found.value.code, found.value.where) == ("sample-invalid", "samples.jsonl:7")
    assert words in found.value.message
    assert found.value.hint


@pytest.mark.parametrize(("value", "good"), [(127, True), (-128, True), (128, False), (-129, False), (1.0, False)])
def test_integers_fit_their_type(value, good):
    spec = TensorSpec(name="a", dtype="INT8", shape=(1,))
    line = json.dumps({"a": [value]})
    if good:
        assert inputs_of(line, [spec], batched=True, where="s:1")["a"]["data"] == [value]
    else:
        with pytest.raises(ModelError):
            inputs_of(line, [spec], batched=True, where="s:1")


@pytest.mark.parametrize("line", ["a cat sat", ' "a cat sat"', '{"text": "a cat sat"}', '{"TEXT": "a cat sat"}'])
def test_texts(line):
    assert text_of(line, where="s:1") == "a cat sat"


@pytest.mark.parametrize("line", ['{"x": [1]}', '{"text": 3}', '"unfinished'])
def test_a_line_that_is_no_text(line):
    with pytest.raises(ModelError) as found:
        text_of(line, where="s:3")
    assert (found.value.code, found.value.where) == ("sample-invalid", "s:3")


def test_zeros_fill_every_place_once():
    found = zeros(PAIR, batched=True)
    assert found == {"a": {"dtype": "INT8", "shape": [1, 1, 2], "data": [0, 0]}, "ok": {"dtype": "BOOL", "shape": [1, 1], "data": [False]}}
