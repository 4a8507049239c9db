"""Quantities as people write them: what enters is the text of one value, what leaves is a number in base units.

`50ms`, `120/s`, `2..12`, `99.9%`, `p99`, `40 USD/day`, `64MiB`. Every function raises ValueError with a sentence that
names the value and an example of the right form. The arithmetic is decimal, so `0.1%` is exactly 0.001. Refuses to know
where the text stood; the caller adds file and line.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal

TIME_S: dict[str, Decimal] = {
    "us": Decimal("0.000001"),
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "min": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
PER_S: dict[str, Decimal] = {"s": Decimal(1), "sec": Decimal(1), "m": Decimal(60), "min": Decimal(60), "h": Decimal(3600)}
SIZE_BYTES: dict[str, int] = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}

# What DNS and Kubernetes accept as a label, with room for suffixes.
NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", re.ASCII)
NAME_FORM = "a name of at most 40 lower-case letters, digits and inner dashes that begins with a letter"

# At most 15 digits on either side: more is a mistake, and a float could not hold it.
_NUMBER = r"(\d{1,15}(?:\.\d{1,15})?)"
_WITH_UNIT = re.compile(_NUMBER + r"\s?([A-Za-z]+)", re.ASCII)
_RATE = re.compile(_NUMBER + r"\s?/\s?([a-z]+)", re.ASCII)
_PERCENT = re.compile(_NUMBER + r"\s?%", re.ASCII)
_PLAIN = re.compile(_NUMBER, re.ASCII)
_SPAN = re.compile(r"(\d{1,9})?\.\.(\d{1,9})?", re.ASCII)
_PERCENTILE = re.compile(r"p" + _NUMBER, re.ASCII)
_MONEY = re.compile(_NUMBER + r"\s?([A-Z]{3})\s?/\s?(day|h)", re.ASCII)


def _wrong(text: str, what: str, example: str) -> ValueError:
    shown = text if len(text) <= 40 else text[:37] + "..."
    return ValueError(f"{shown!r} is not {what}; write it like {example}")


def seconds(text: str) -> float:
    """A duration such as `50ms`, `1.5s` or `2h`, in seconds; the unit is required."""
    match = _WITH_UNIT.fullmatch(text)
    if not match or match[2] not in TIME_S:
        raise _wrong(text, "a duration", "50ms, 1.5s or 2h")
    return float(Decimal(match[1]) * TIME_S[match[2]])


def rate_rps(text: str) -> float:
    """A rate such as `120/s` or `3/min`, in requests per second; the unit is required."""
    match = _RATE.fullmatch(text)
    if not match or match[2] not in PER_S:
        raise _wrong(text, "a rate", "120/s or 3/min")
    return float(Decimal(match[1]) / PER_S[match[2]])


def ratio(text: str) -> float:
    """A share such as `99.9%` or `0.98`, as a number from 0 to 1."""
    percent = _PERCENT.fullmatch(text)
    plain = _PLAIN.fullmatch(text)
    if percent:
        value = Decimal(percent[1]) / 100
    elif plain:
        value = Decimal(plain[1])
    else:
        raise _wrong(text, "a share", "0.1% or 0.98")
    if value > 1:
        raise ValueError(f"{text!r} is more than the whole; a share is at most 100%")
    return float(value)


def percentile(text: str) -> float:
    """A percentile key such as `p99` or `p99.9`, as a number between 0 and 100 (both excluded)."""
    match = _PERCENTILE.fullmatch(text)
    if not match:
        raise _wrong(text, "a percentile", "p99 or p99.9")
    value = float(match[1])
    if not 0 < value < 100:
        raise ValueError(f"{text!r} is not between p0 and p100" + (f"; did you mean p{text[1:3]}.{text[3:]}?" if text[1:3] == "99" else ""))
    return value


def span(text: str) -> tuple[int | None, int | None]:
    """A range of counts: `2..12`, `..12`, `2..` or `3` (which is `3..3`)."""
    match = _SPAN.fullmatch(text)
    if match and (match[1] or match[2]):
        low = _count(match[1]) if match[1] else None
        high = _count(match[2]) if match[2] else None
    elif re.fullmatch(r"\d{1,9}", text, re.ASCII):
        low = high = _count(text)
    else:
        raise _wrong(text, "a range", "2..12, ..12 or 3")
    if low is not None and high is not None and low > high:
        raise ValueError(f"{text!r} runs backwards; write {high}..{low}")
    return low, high


def money_per_day(text: str) -> tuple[float, str]:
    """A daily cost such as `40 USD/day`, as (amount, ISO currency code)."""
    match = _MONEY.fullmatch(text)
    if not match or match[3] != "day":
        raise _wrong(text, "a daily cost", "40 USD/day")
    return float(match[1]), match[2]


def money_per_hour(text: str) -> tuple[float, str]:
    """An hourly price such as `1.006 USD/h`, as (amount, ISO currency code)."""
    match = _MONEY.fullmatch(text)
    if not match or match[3] != "h":
        raise _wrong(text, "an hourly price", "1.006 USD/h")
    return float(match[1]), match[2]


def size_bytes(text: str) -> int:
    """A size such as `64MiB` or `1.5GB`, in bytes; the unit is required."""
    match = _WITH_UNIT.fullmatch(text)
    if not match or match[2] not in SIZE_BYTES:
        raise _wrong(text, "a size", "64MiB or 2GB")
    return int(Decimal(match[1]) * SIZE_BYTES[match[2]])


def count(text: str) -> int:
    """A whole number of 0 or more; `010`, `1e3`, `0x10` and `1_000` are refused because YAML readers disagree on them."""
    if not re.fullmatch(r"\d{1,15}", text, re.ASCII):
        raise _wrong(text, "a whole number", "12")
    return _count(text)


def _count(text: str) -> int:
    if len(text) > 1 and text[0] == "0":
        raise ValueError(f"{text!r} starts with 0, which some YAML readers take for octal; write {text.lstrip('0') or '0'}")
    return int(text)


def number(text: str) -> float:
    """A plain decimal number of 0 or more such as `1.5`."""
    if not _PLAIN.fullmatch(text):
        raise _wrong(text, "a plain number", "1.5")
    return float(text)


def boolean(text: str) -> bool:
    """`true` or `false`; `yes`, `no`, `on` and `off` are refused because YAML readers disagree on them."""
    if text not in ("true", "false"):
        raise _wrong(text, "true or false", "true")
    return text == "true"


def _short(value: float) -> str:
    """The shortest decimal form without an exponent."""
    text = format(Decimal(repr(value)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def show_number(value: float) -> str:
    """The inverse of `number`: no exponent, which `number` refuses."""
    return _short(value)


def show_seconds(value: float) -> str:
    """The inverse of `seconds` for people: the largest unit that keeps the number at 1 or more, three digits where possible."""
    if value == 0:
        return "0s"
    for unit in ("d", "h", "min", "s", "ms"):
        scaled = float(Decimal(repr(value)) / TIME_S[unit])
        if scaled >= 1 and (unit in ("s", "ms") or scaled == math.floor(scaled)):
            return f"{_short(scaled)}{unit}"
    return f"{_short(float(Decimal(repr(value)) / TIME_S['us']))}us"


def show_rate(value_rps: float) -> str:
    """The inverse of `rate_rps` for people."""
    return f"{_short(value_rps)}/s"


def show_ratio(value: float) -> str:
    """The inverse of `ratio` for people, in per cent."""
    return f"{_short(float(Decimal(repr(value)) * 100))}%"


def show_percentile(value: float) -> str:
    """The inverse of `percentile`."""
    return f"p{_short(value)}"


def show_span(low: int | None, high: int | None) -> str:
    """The inverse of `span`; an empty text where both ends are open."""
    if low is None and high is None:
        return ""
    if low == high:
        return str(low)
    return f"{'' if low is None else low}..{'' if high is None else high}"
