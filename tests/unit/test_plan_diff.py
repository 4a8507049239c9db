"""Differences of plans and numbers as people read them."""

import dataclasses

import pytest

from deployctl.core import words
from deployctl.core.decision import ScalingPolicy
from deployctl.core.diff import changes, compare
from deployctl.core.serving import ServingConfig
from deployctl.testing.contracts import a_plan


def test_equal_plans_have_no_changes():
    assert not compare(a_plan(), a_plan()).differs


def test_changes_say_old_and_new_and_come_in_order():
    before = a_plan()
    after = a_plan(
        bundle="sha256:" + "b" * 64, settings={"svc": ServingConfig(queue_delay_s=0.002)}, replicas=2, scaling=ScalingPolicy(max_replicas=2)
    )
    found = [str(c) for c in changes(before, after)]
    assert found == [
        "~ bundle  aaaaaaaaaaaa -> bbbbbbbbbbbb",
        "~ settings.svc.queue_delay_s  0 s -> 2 ms",
        "~ replicas  1 -> 2",
        "~ scaling.max_replicas  1 -> 2",
    ]


def test_a_model_that_came_or_went_has_its_sign():
    before, after = a_plan(settings={"old": ServingConfig()}), a_plan(settings={"new": ServingConfig()})
    signs = {c.path.split(".")[1]: c.sign for c in changes(before, after)}
    assert signs == {"old": "-", "new": "+"}


def test_what_follows_is_marked_and_the_base_is_no_difference():
    before, after = a_plan(), a_plan(evidence="sha256:" + "e" * 64, base="sha256:x")
    assert [(c.path, c.derived) for c in changes(before, after)] == [("evidence", True)]


def test_cost_follows_replicas_and_instances():
    more = compare(a_plan(), a_plan(replicas=3, settings={"svc": ServingConfig(instances=2)}))
    assert (more.cores_before, more.cores_after) == (1, 6)


def test_before_the_first_release_there_is_nothing_to_compare_with():
    assert compare(None, dataclasses.replace(a_plan())).cores_before == 0
    assert compare(None, a_plan()).changes == ()


@pytest.mark.parametrize(
    ("value_s", "text"),
    [(None, "unknown"), (0.0, "0 s"), (0.00041, "0.41 ms"), (0.0412, "41.2 ms"), (0.1234, "123 ms"), (1.3, "1.3 s"), (300, "300 s")],
)
def test_seconds(value_s, text):
    assert words.seconds(value_s) == text


def test_small_words():
    assert [words.duration(s) for s in (0, 59, 90, 7200, 200000)] == ["0s", "59s", "1.5m", "2h", "2.3d"]
    assert [words.rate(r) for r in (None, 0.25, 40.0, 1234.5)] == ["unknown", "0.25/s", "40/s", "1,234/s"]
    assert (words.bounds(3, 3), words.bounds(1, 4), words.short(None)) == ("3", "1..4", "unresolved")
    assert words.sparkline([0.0, 1.0, None, 2.0]) == "▁▄ █" and words.sparkline([]) == "" and words.sparkline([0.0]) == "▁"
