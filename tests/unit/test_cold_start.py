"""Stages of a start: the total stays, nothing is negative, what no log tells stays with the process."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployctl.core.cold_start import split, warmup_s
from deployctl.core.serving import ModelSpec, ServingConfig

SECONDS = st.floats(0.0, 100.0)


def test_loading_and_warming_up_are_taken_out_of_the_start():
    cold = split(fetch_s=0.2, ready_s=5.0, loading_s=2.5, warmup_s=0.5, first_reply_s=0.1)
    assert (cold.process_s, cold.load_s, cold.warmup_s) == (2.5, 2.0, 0.5)
    assert cold.total_s == pytest.approx(5.3)
    unknown = split(fetch_s=0.2, ready_s=5.0, loading_s=None, warmup_s=0.5, first_reply_s=0.1)
    assert (unknown.process_s, unknown.load_s, unknown.warmup_s) == (4.5, 0.0, 0.5)


@given(ready=SECONDS, loading=st.none() | SECONDS, warm=SECONDS)
def test_whatever_was_told_the_total_is_what_was_seen(ready, loading, warm):
    cold = split(fetch_s=1.0, ready_s=ready, loading_s=loading, warmup_s=warm, first_reply_s=2.0)
    assert cold.total_s == pytest.approx(ready + 3.0)
    assert min(cold.process_s, cold.load_s, cold.warmup_s) >= 0


def test_a_warm_up_is_the_time_of_its_executions_and_instances_do_it_side_by_side():
    model = ModelSpec(name="m", backend="python", inputs=(), outputs=(), serving=ServingConfig(instances=2), parameters={})
    stats = {"m": {1: (2, 0.1, 0.4, 0.1), 8: (2, 0.2, 1.0, 0.2)}, "other": {1: (1, 9.0, 9.0, 9.0)}}
    assert warmup_s([model], stats) == pytest.approx(1.0)
    assert warmup_s([model], {}) == 0.0
