"""When a measurement has seen enough."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployctl.core import sequential
from deployctl.core.load_samples import Samples
from deployctl.core.slo import Objective

P99 = Objective(metric="latency", max=0.1, percentile=99.0)


def samples(latency_s, seconds):
    n = len(latency_s)
    at_s = np.linspace(0.0, seconds, n, endpoint=False)
    ok = np.isfinite(latency_s)
    return Samples(
        intended_s=at_s, sent_s=at_s, latency_s=np.array(latency_s), ok=ok, size=np.ones(n, int), error=np.where(ok, -1, 0), errors=("gone",)
    )


def test_the_sequential_rule_stops_early_when_it_is_clear():
    assert sequential.decide_percentile(0, 1000, 99.0) == "keeps"
    assert sequential.decide_percentile(30, 300, 99.0) == "misses"
    assert sequential.decide_percentile(2, 200, 99.0) == "more"


@given(late=st.integers(0, 40), total=st.integers(41, 4000))
def test_more_late_requests_never_help(late, total):
    order = {"keeps": 0, "more": 1, "misses": 2}
    assert order[sequential.decide_percentile(late, total, 99.0)] <= order[sequential.decide_percentile(late + 1, total, 99.0)]


def test_late_requests_in_one_burst_count_for_less_than_scattered_ones():
    scattered, burst = np.full(600, 0.01), np.full(600, 0.01)
    scattered[::40] = 0.5
    burst[300:315] = 0.5
    assert sequential.decide(samples(scattered, 30.0), P99, 30.0) == "misses"
    assert sequential.decide(samples(burst, 30.0), P99, 30.0) == "more"  # 15 late as well, but one event


def test_a_failed_request_is_late_and_nothing_sent_decides_nothing():
    assert sequential.decide(samples(np.full(400, np.nan), 20.0), P99, 20.0) == "misses"
    assert sequential.decide(samples(np.full(400, 0.01), 20.0), P99, 20.0) == "keeps"
    assert sequential.decide(samples(np.empty(0), 20.0), P99, 20.0) == "more"


@pytest.mark.parametrize(("share", "wrong"), [(0.004, "misses"), (0.025, "keeps")])
def test_it_errs_rarely_however_often_it_is_looked_at(share, wrong):
    """Looked at after every 50 requests up to 3,000: clearly good and clearly bad services are mistaken in at most 3 %."""
    rng, mistaken = np.random.default_rng(5), 0
    for _ in range(200):
        late = np.cumsum(rng.random(3000) < share)
        looks = (sequential.decide_percentile(int(late[n - 1]), n, 99.0) for n in range(50, 3001, 50))
        mistaken += next((d for d in looks if d != "more"), "more") == wrong
    assert mistaken <= 6


def test_repeats_are_enough_when_their_mean_is_known_well():
    assert sequential.precise([1.0, 1.01, 0.99], 0.02) and not sequential.precise([1.0, 1.5, 0.7], 0.02)
    assert not sequential.precise([1.0, 1.0], 0.02)
