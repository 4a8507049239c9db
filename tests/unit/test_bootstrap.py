"""Intervals: they hold the truth about as often as they say, on independent and on autocorrelated data."""

import numpy as np
import pytest
from scipy.signal import lfilter

from deployctl.core import bootstrap


def _sojourns(n, load_ratio, rng):
    """Sojourn times of an M/M/1 queue, unit mean gap, by Lindley's recursion."""
    service, gap = rng.exponential(load_ratio, size=n), rng.exponential(1.0, size=n)
    walk = np.concatenate(([0.0], np.cumsum(service[:-1] - gap[1:])))
    return walk - np.minimum.accumulate(walk) + service


def _lognormal_ar(n, phi, rng):
    return np.exp(0.5 * lfilter([np.sqrt(1 - phi * phi)], [1, -phi], rng.normal(size=n)))


def _covered(make, parameter, q, rate_rps, duration_s, repeats=120):
    rng = np.random.default_rng(11)
    truth = np.quantile(make(1_000_000, parameter, rng), q)
    n, hits = int(rate_rps * duration_s), 0
    for _ in range(repeats):
        values = make(n + 2000, parameter, rng)[2000:]
        at = np.sort(rng.random(n)) * duration_s
        low, high = bootstrap.percentile_interval(values, at, q, duration_s, rng, rounds=200)
        hits += low <= truth <= high
    return hits / repeats


# The least coverage is the measured one less three standard errors. A p99 under strong autocorrelation in a short test is
# covered less often than 95 %: its bursts are too few, and no method invents the ones that did not happen.
@pytest.mark.parametrize(
    ("make", "parameter", "q", "rate_rps", "duration_s", "least"),
    [
        (_lognormal_ar, 0.0, 0.99, 50, 40, 0.93),
        (_lognormal_ar, 0.9, 0.99, 50, 40, 0.85),
        (_lognormal_ar, 0.99, 0.5, 50, 60, 0.88),
        (_sojourns, 0.5, 0.99, 50, 40, 0.84),
        (_sojourns, 0.8, 0.99, 50, 40, 0.70),
        (_sojourns, 0.8, 0.5, 50, 40, 0.84),
    ],
)
def test_coverage(make, parameter, q, rate_rps, duration_s, least):
    assert _covered(make, parameter, q, rate_rps, duration_s) >= least


def test_wider_than_the_interval_of_independent_samples_where_they_are_not():
    rng = np.random.default_rng(2)
    values = _sojourns(4000, 0.9, rng)
    at = np.arange(4000) / 50
    low, high = bootstrap.percentile_interval(values, at, 0.95, 80.0, rng)
    simple_low, simple_high = bootstrap.order_interval(np.sort(values), 0.95)
    assert low <= simple_low
    assert high >= simple_high
    assert high - low > 1.5 * (simple_high - simple_low)


def test_percentile_is_an_order_statistic_and_takes_infinity():
    values = np.array([3.0, 1.0, np.inf, 2.0])
    assert bootstrap.percentile(values, 0.5) == 2.0
    assert bootstrap.percentile(values, 0.75) == 3.0
    assert bootstrap.percentile(values, 0.76) == np.inf


def test_order_interval_matches_the_exact_binomial_ranks():
    low, high = bootstrap.order_interval(np.arange(1.0, 1001.0), 0.5)
    assert (low, high) == (469.0, 532.0)  # ranks of the 95 % interval on a median of 1,000


def test_weights_resample_whole_blocks():
    bins = bootstrap.Bins(index=np.zeros(1, dtype=np.int64), count=40, width_s=0.25, block=4)
    weight = bootstrap.weights(bins, 50, np.random.default_rng(0))
    assert weight.shape == (50, 40)
    np.testing.assert_array_equal(weight.sum(axis=1), 40)


def test_block_length_grows_with_correlation():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=800)
    slow = lfilter([1], [1, -0.95], noise)
    assert bootstrap.block_length(noise) < 5 < bootstrap.block_length(slow)


def test_ratio_interval_is_at_least_clopper_pearson():
    rng = np.random.default_rng(0)
    at = np.arange(1000) / 50
    scattered = np.arange(1000) % 100 == 0
    clustered = np.arange(1000) < 10
    low, high = bootstrap.ratio_interval(scattered, at, 20.0, rng)
    assert low <= 0.00481
    assert high >= 0.0183
    burst_low, burst_high = bootstrap.ratio_interval(clustered, at, 20.0, rng)
    assert burst_high > high
    assert burst_low == low  # a burst happened all the same
    assert bootstrap.ratio_interval(np.zeros(1000, dtype=bool), at, 20.0, rng)[0] == 0.0
