"""A traffic trace from a CSV file: what enters is a file with a header line, what leaves is a rate curve or exact send times.

With `per` each row counts the requests of one interval; without it each row is the moment of one request, in seconds or
as ISO 8601. Errors point at the line of the CSV.
"""

from __future__ import annotations

import csv
import math
from datetime import UTC, datetime
from pathlib import Path

from deployctl.core.demand import RateStep
from deployctl.errors import ProjectError

MAX_BYTES = 64_000_000
_CURVE_POINTS = 60


def read(file: Path, name: str, *, column: str | None, per_s: float | None, named_at: str) -> tuple[tuple[RateStep, ...], tuple[float, ...] | None]:
    """The rate curve, and the send times from 0 on where the file holds send times.

    Args:
        file: the CSV file.
        name: its name for messages.
        column: the column to read; None is allowed where there is only one.
        per_s: length of the counted interval in seconds; None means send times.
        named_at: place in deploy.yaml that names the file.

    Raises:
        ProjectError: no such column, or a value that is no number (`trace-invalid`).
    """
    rows = _column(file, name, column, named_at)
    if per_s is not None:
        counts = [_count(text, f"{name}:{line}") for line, text in rows]
        return tuple(RateStep(start_s=i * per_s, rate_rps=c / per_s) for i, c in enumerate(counts)), None
    times = [_moment(text, f"{name}:{line}") for line, text in rows]
    for index in range(1, len(times)):
        if times[index] < times[index - 1]:
            raise _invalid(f"{name}:{rows[index][0]}", "this send time is earlier than the one before", "sort the rows by time")
    first = times[0]
    shifted = tuple(t - first for t in times)
    return _curve(shifted), shifted


def _invalid(where: str, message: str, hint: str) -> ProjectError:
    return ProjectError(message, code="trace-invalid", where=where, hint=hint)


def _column(file: Path, name: str, column: str | None, named_at: str) -> list[tuple[int, str]]:
    """(line, text) of every row of the column."""
    try:
        if file.stat().st_size > MAX_BYTES:
            raise _invalid(named_at, f"{name} is larger than {MAX_BYTES // 1_000_000} MB", "keep one representative day, or count per interval")
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True)
            header = [cell.strip() for cell in next(reader, [])]
            index = _index(header, column, name, named_at)
            rows = []
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) <= index:
                    raise _invalid(f"{name}:{reader.line_num}", f"this row has {len(cells)} columns, not {len(header)}", "complete the row")
                rows.append((reader.line_num, cells[index].strip()))
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise _invalid(named_at, f"{name} cannot be read as CSV: {error}", "save it as UTF-8 text with commas and a header line") from error
    if not rows:
        raise _invalid(named_at, f"{name} has no rows", "add rows, or state a rate instead")
    return rows


def _index(header: list[str], column: str | None, name: str, named_at: str) -> int:
    if column is None:
        if len(header) == 1:
            return 0
        raise _invalid(named_at, f"{name} has {len(header)} columns and traffic.column names none", f"add column: {header[0] if header else 'count'}")
    if column not in header:
        raise _invalid(named_at, f"{name} has no column {column!r}", f"its columns are {', '.join(header) or 'none'}")
    return header.index(column)


def _finite(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _count(text: str, where: str) -> float:
    value = _finite(text)
    if value is None or value < 0:
        raise _invalid(where, f"{text[:40]!r} is not a count of requests", "write a number of 0 or more")
    return value


def _moment(text: str, where: str) -> float:
    value = _finite(text)
    if value is not None:
        return value
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        hint = "write seconds or a time like 2026-01-31T12:00:00; for counts add per: 60s"
        raise _invalid(where, f"{text[:40]!r} is not a send time", hint) from error
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()


def _curve(times_s: tuple[float, ...]) -> tuple[RateStep, ...]:
    """The observed rate in up to 60 equal windows of at least a second: what sizing reads the peak from."""
    span = times_s[-1]
    width = max(1.0, span / _CURVE_POINTS)
    counts = [0] * (int(span // width) + 1)
    for t in times_s:
        counts[int(t // width)] += 1
    return tuple(RateStep(start_s=i * width, rate_rps=c / width) for i, c in enumerate(counts))
