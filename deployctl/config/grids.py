"""A grid of measurements from a CSV file, whoever made it: text enters, points with their medians leave. Errors point at the line.

A row is one measurement of one combination of settings; the same combination again is a repeat. A row without a throughput names a point
that may be measured and was not yet; `failed` there is a measurement that failed.
"""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import median

from deployctl.core.grid import Grid, Measured, Table
from deployctl.core.servers import Role
from deployctl.errors import ProjectError

MAX_BYTES = 16_000_000
# Column names as deployctl, perf_analyzer and Model Analyzer write them -> (meaning, factor to our unit).
AXES: dict[str, tuple[Role, float]] = {
    "instances": ("instances", 1.0),
    "instance_count": ("instances", 1.0),
    "max_batch": ("max_batch", 1.0),
    "max_batch_size": ("max_batch", 1.0),
    "queue_delay_ms": ("queue_delay_s", 1e-3),
    "max_queue_delay_us": ("queue_delay_s", 1e-6),
    "clients": ("clients", 1.0),
    "concurrency": ("clients", 1.0),
    "client_concurrency": ("clients", 1.0),
    "rate_rps": ("rate_rps", 1.0),
    "request_rate": ("rate_rps", 1.0),
}
VALUES = {"throughput_rps": 1.0, "throughput_ips": 1.0, "throughput": 1.0, "inferences/second": 1.0}
LIMITED = {"p99_ms": 1e-3, "p99_us": 1e-6, "p99_s": 1.0, "p99 latency": 1e-6}


def read(file: Path, name: str) -> Table:
    """The grid and what was measured of it, in order of first appearance.

    Raises:
        ProjectError: no CSV, no column of settings, throughput or p99, or a cell that is no number (`grid-invalid`).
    """
    try:
        if file.stat().st_size > MAX_BYTES:
            raise _invalid(name, f"it is larger than {MAX_BYTES // 1_000_000} MB", "keep the summary, one row a measurement")
        with file.open(newline="", encoding="utf-8-sig") as stream:
            rows = [(i, [cell.strip() for cell in cells]) for i, cells in enumerate(csv.reader(stream, strict=True), 1) if any(cells)]
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise _invalid(name, f"it cannot be read as CSV: {error}", "save it as UTF-8 text with commas and a header line") from error
    header = [cell.lower() for cell in rows[0][1]] if rows else []
    axes = [i for i, column in enumerate(header) if column in AXES]
    value, limited = (next((i for i, column in enumerate(header) if column in names), None) for names in (VALUES, LIMITED))
    if not axes or value is None or limited is None or len(rows) < 2:
        hint = f"settings: {', '.join(AXES)}; throughput: {', '.join(VALUES)}; tail: {', '.join(LIMITED)}"
        raise _invalid(name, f"it needs a column of settings, one of throughput, one of p99, and rows; it has {', '.join(header) or 'nothing'}", hint)
    return _table(rows[1:], header, axes, value, limited, name)


def _table(rows: list[tuple[int, list[str]]], header: list[str], axes: list[int], value: int, limited: int, name: str) -> Table:
    seen: dict[tuple[float, ...], list[tuple[float, float] | None]] = {}
    for line, cells in rows:
        where = f"{name}:{line}"
        if len(cells) != len(header):
            raise _invalid(where, f"this row has {len(cells)} columns, not {len(header)}", "complete the row")
        point = tuple(_number(cells[i], header[i], where) * AXES[header[i]][1] for i in axes)
        found = seen.setdefault(point, [])
        if cells[value].lower() == "failed":
            found.append(None)
        elif cells[value]:
            scales = VALUES[header[value]], LIMITED[header[limited]]
            found.append((_number(cells[value], header[value], where) * scales[0], _number(cells[limited], header[limited], where) * scales[1]))
    measured = tuple(_median(index, repeats) for index, repeats in enumerate(seen.values()) if repeats)
    return Table(grid=Grid(points=tuple(seen), roles=tuple(AXES[header[i]][0] for i in axes)), measured=measured)


def _median(index: int, repeats: list[tuple[float, float] | None]) -> Measured:
    """Medians of the repeats; failed where more failed than did not."""
    good = [row for row in repeats if row is not None]
    if 2 * len(good) < len(repeats) or not good:
        return Measured(index=index, value=None, limited=None)
    return Measured(index=index, value=median(v for v, _ in good), limited=median(t for _, t in good))


def _number(text: str, column: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise _invalid(
            where, f"{column} is {text!r}, which is no number of at least 0", "correct the cell, or leave throughput empty where nothing was measured"
        )
    return number


def _invalid(where: str, message: str, hint: str) -> ProjectError:
    return ProjectError(message, where=where, hint=hint, code="grid-invalid")
