"""Quantities as people write them: exact values, the inverse, and a sentence for everything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployctl.config import units

GOOD = [
    (units.seconds, "50ms", 0.05),
    (units.seconds, "1.5s", 1.5),
    (units.seconds, "2h", 7200.0),
    (units.seconds, "250us", 0.00025),
    (units.seconds, "5min", 300.0),
    (units.seconds, "5 m", 300.0),
    (units.seconds, "1d", 86400.0),
    (units.rate_rps, "120/s", 120.0),
    (units.rate_rps, "3/min", 0.05),
    (units.rate_rps, "1 / h", 1 / 3600),
    (units.ratio, "99.9%", 0.999),
    (units.ratio, "0.1%", 0.001),
    (units.ratio, "0.98", 0.98),
    (units.ratio, "100%", 1.0),
    (units.percentile, "p99", 99.0),
    (units.percentile, "p99.9", 99.9),
    (units.span, "2..12", (2, 12)),
    (units.span, "..12", (None, 12)),
    (units.span, "2..", (2, None)),
    (units.span, "3", (3, 3)),
    (units.span, "0..4", (0, 4)),
    (units.money_per_day, "40 USD/day", (40.0, "USD")),
    (units.money_per_day, "0.5EUR / day", (0.5, "EUR")),
    (units.size_bytes, "64MiB", 64 * 2**20),
    (units.size_bytes, "1.5GB", 1_500_000_000),
    (units.count, "0", 0),
    (units.count, "8000", 8000),
    (units.number, "0.80", 0.8),
    (units.boolean, "true", True),
    (units.boolean, "false", False),
]

BAD = [
    (units.seconds, "50"),
    (units.seconds, "50 ms "),
    (units.seconds, "ms"),
    (units.seconds, "-1s"),
    (units.seconds, "1e3s"),
    (units.seconds, "12:30:00"),
    (units.seconds, "1h30m"),
    (units.seconds, "٣s"),
    (units.seconds, "1S"),
    (units.rate_rps, "40"),
    (units.rate_rps, "40/ms"),
    (units.rate_rps, "inf/s"),
    (units.ratio, "101%"),
    (units.ratio, "1.5"),
    (units.ratio, "nan"),
    (units.percentile, "99"),
    (units.percentile, "p100"),
    (units.percentile, "p0"),
    (units.percentile, "p999"),
    (units.span, ".."),
    (units.span, "12..2"),
    (units.span, "01..2"),
    (units.span, "2...3"),
    (units.span, "-1"),
    (units.money_per_day, "40 USD"),
    (units.money_per_day, "USD 40/day"),
    (units.size_bytes, "64"),
    (units.size_bytes, "64mib"),
    (units.count, "010"),
    (units.count, "1e3"),
    (units.count, "0x10"),
    (units.count, "1_000"),
    (units.count, "1.0"),
    (units.number, ".inf"),
    (units.boolean, "yes"),
    (units.boolean, "no"),
    (units.boolean, "True"),
]

PARSERS = sorted({parse for parse, *_ in GOOD}, key=lambda f: f.__name__)


@pytest.mark.parametrize(("parse", "text", "value"), GOOD)
def test_good(parse, text, value):
    assert parse(text) == value


@pytest.mark.parametrize(("parse", "text"), BAD)
def test_bad_values_are_named_in_the_sentence(parse, text):
    with pytest.raises(ValueError, match=r".") as error:
        parse(text)
    assert text.split("..")[0] in str(error.value)


def test_a_percentile_without_its_point_is_guessed():
    with pytest.raises(ValueError, match=r"did you mean p99\.9\?"):
        units.percentile("p999")


@given(st.text(max_size=60))
def test_no_text_breaks_a_parser(text):
    """Any text is a value or a sentence of reasonable length; never another exception."""
    for parse in PARSERS:
        try:
            parse(text)
        except ValueError as error:
            assert 0 < len(str(error)) < 200


decimals = st.decimals(min_value="0.001", max_value="99999", places=3, allow_nan=False).map(float)


@given(decimals)
def test_durations_come_back(value):
    assert units.seconds(units.show_seconds(value)) == value


@given(decimals)
def test_rates_come_back(value):
    assert units.rate_rps(units.show_rate(value)) == value


@given(st.integers(0, 100_000).map(lambda n: n / 100_000))
def test_ratios_come_back(value):
    assert units.ratio(units.show_ratio(value)) == value


@given(st.none() | st.integers(0, 10**6), st.none() | st.integers(0, 10**6))
def test_spans_come_back(low, high):
    if low is not None and high is not None and low > high:
        low, high = high, low
    text = units.show_span(low, high)
    assert (units.span(text) if text else (None, None)) == (low, high)


@given(st.integers(1, 99_999).map(lambda n: n / 1000))
def test_percentiles_come_back(value):
    assert units.percentile(units.show_percentile(value)) == value


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0s"), (0.25, "250ms"), (1.5, "1.5s"), (60, "1min"), (90, "90s"), (7200, "2h"), (86400, "1d"), (2e-6, "2us")]
)
def test_durations_are_shown_short(value, text):
    assert units.show_seconds(float(value)) == text
