"""Records to canonical JSON and back: byte-identical, order-independent, and loud about what does not fit."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployctl.core import codec
from deployctl.core.decision import Decision, Hold, ScaleTo
from deployctl.core.finding import Finding
from deployctl.core.lock import Lock, ScaleOverride, Tuned
from deployctl.core.serving import ServingConfig
from deployctl.core.slo import Objective, Slo
from deployctl.errors import ProjectError

names = st.text(st.characters(codec="utf-8"), max_size=8)
finite = st.floats(allow_nan=False, allow_infinity=False)
serving = st.builds(
    ServingConfig, max_batch=st.integers(1, 64), queue_delay_s=finite, warmup_batches=st.lists(st.integers(1, 9), max_size=3).map(tuple)
)
locks = st.builds(
    Lock,
    env=names,
    bundle=st.none() | names,
    tuned=st.none()
    | st.builds(
        Tuned,
        settings=st.dictionaries(names, serving, max_size=2),
        replicas=st.integers(0, 9),
        max_replicas=st.integers(0, 9),
        target=finite,
        signal=names,
        evidence=names,
    ),
    override=st.none() | st.builds(ScaleOverride, min_replicas=st.integers(), max_replicas=st.integers(), until_s=st.none() | finite),
    held=st.lists(names, max_size=2).map(tuple),
)


@given(locks)
def test_a_record_comes_back_and_its_text_is_the_same(lock):
    text = codec.dumps(lock)
    back = codec.loads(Lock, text)
    assert back == lock
    assert codec.dumps(back) == text
    assert codec.digest(back) == codec.digest(lock)
    assert text.endswith("}\n")


@given(st.dictionaries(names, st.integers(), min_size=2))
def test_order_does_not_matter(data):
    assert codec.dumps(data) == codec.dumps(dict(reversed(data.items())))


@given(
    st.text(max_size=200)
    | st.recursive(st.none() | st.booleans() | finite | names, lambda x: st.lists(x) | st.dictionaries(names, x), max_leaves=6).map(json.dumps)
)
def test_any_text_is_a_record_or_a_complaint(text):
    for cls in (Lock, Slo, Finding):
        try:
            codec.loads(cls, text, where="lock/x.lock")
        except ProjectError as error:
            assert error.code == "record-damaged"
            assert error.where == "lock/x.lock"


def test_none_is_left_out_and_floats_are_short():
    assert json.loads(codec.dumps(Objective(metric="latency", max=0.1, percentile=None))) == {
        "metric": "latency",
        "max": 0.1,
        "window_s": 300.0,
        "at": "client",
    }


def test_a_float_field_takes_a_whole_number_and_an_int_field_no_float():
    assert codec.loads(ServingConfig, '{"queue_delay_s": 0}').queue_delay_s == 0.0
    with pytest.raises(ProjectError, match="max_batch"):
        codec.loads(ServingConfig, '{"max_batch": 8.0}')
    with pytest.raises(ProjectError, match="max_batch"):
        codec.loads(ServingConfig, '{"max_batch": true}')


def test_unions_find_their_class_by_kind():
    for decision in (ScaleTo(replicas=2, reason="r", evidence={"x": 1.0}), Hold(reason="r", evidence={})):
        assert codec.from_data(Decision, codec.to_data(decision)) == decision


@pytest.mark.parametrize(
    "text", ['{"env": "x", "colour": 1}', '{"env": 1}', "{}", "[]", "{", '{"env": "x", "override": {"min_replicas": "1", "max_replicas": 1}}']
)
def test_what_does_not_fit_is_refused_by_name(text):
    with pytest.raises(ProjectError):
        codec.loads(Lock, text)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_nan_in_a_record(value):
    with pytest.raises(ValueError, match="cannot stand in a record"):
        codec.dumps({"x": value})


def test_a_plan_without_a_bundle_reads_back():
    from deployctl.core.plan import Plan
    from deployctl.testing import kube

    plan = kube.plan(None)
    text = codec.dumps(plan)
    assert codec.dumps(codec.loads(Plan, text, where="plan")) == text
