"""Quantiles of cumulative histograms against cases worked out by hand."""

import math

import pytest

from deployctl.core import histogram

H = {0.1: 50.0, 0.5: 90.0, 1.0: 99.0, math.inf: 100.0}


@pytest.mark.parametrize(("q", "expected"), [(0.25, 0.05), (0.5, 0.1), (0.7, 0.3), (0.9, 0.5), (0.95, 0.5 + 0.5 * 5 / 9), (0.999, 1.0), (1.0, 1.0)])
def test_linear_within_a_bucket(q, expected):
    assert histogram.quantile(H, q) == pytest.approx(expected)


def test_nothing_counted_has_no_quantile():
    assert histogram.quantile({}, 0.99) is None
    assert histogram.quantile({0.1: 0.0, math.inf: 0.0}, 0.99) is None


def test_two_processes_add():
    assert histogram.quantile(histogram.added([H, H]), 0.7) == pytest.approx(0.3)


def test_difference_of_readings():
    later = {0.1: 60.0, 0.5: 90.0 + 30, 1.0: 99.0 + 30, math.inf: 130.0}
    assert histogram.since(H, later) == {0.1: 10.0, 0.5: 30.0, 1.0: 30.0, math.inf: 30.0}


def test_a_restarted_counter_counts_from_zero():
    now = {0.1: 3.0, 0.5: 4.0, 1.0: 4.0, math.inf: 4.0}
    assert histogram.since(H, now) == now
