"""Recorded traffic to arrivals per second. What enters is the text of a table and which column says what; what leaves is a
`Trace`: one number a second. Refuses to know files; randomness is passed in as a seed.

Two kinds of table: counts (`per_s` says how many seconds a row covers; gaps in time are not guessed) and single arrivals
(`per_s` None: each row is one request at the time in the column). Within a counted interval arrivals are drawn as Poisson,
which removes bursts shorter than the interval: a replay says so.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from deployctl.errors import ProjectError

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """Arrivals of each second.

    Attributes:
        name: what it is called in reports.
        arrivals: requests that arrive in second i, (n,).
        resolution_s: length of the interval in which the source counted; bursts below it are not real.
        history_s: leading seconds that policies may learn from and that are not judged.
    """

    name: str
    arrivals: FloatArray
    resolution_s: float = 1.0
    history_s: int = 0

    @property
    def duration_s(self) -> int:
        """Judged seconds."""
        return int(self.arrivals.shape[0]) - self.history_s

    @property
    def judged(self) -> FloatArray:
        """Arrivals of the judged part."""
        return self.arrivals[self.history_s :]

    @property
    def mean_rps(self) -> float:
        """Mean rate of the judged part."""
        return float(self.judged.mean()) if self.duration_s else 0.0


def parse(
    text: str,
    *,
    column: str,
    per_s: float | None,
    name: str = "trace",
    seed: int = 0,
    within: Literal["step", "linear"] = "step",
    where: str = "trace",
) -> Trace:
    """A trace from the text of a CSV with a header line.

    Args:
        text: the whole table.
        column: name of the column with counts, or with arrival times when `per_s` is None.
        per_s: seconds that one row counts, or None for one row a request.
        name: for reports.
        seed: of the Poisson draw within counted intervals.
        within: how the rate moves inside a counted interval: constant, or linear between interval centres.
        where: file name for error messages.

    Raises:
        ProjectError: no such column (`trace-column-missing`), a cell that is no number or time (`trace-cell-invalid`),
            no rows (`trace-empty`).
    """
    cells = _column(text, column, where)
    if per_s is None:
        times = np.sort(np.array([_seconds(cell, line, column, where) for line, cell in cells]))
        return from_times(times - times[0], name=name)
    counts = np.array([_number(cell, line, column, where) for line, cell in cells])
    return from_counts(counts, per_s=per_s, name=name, seed=seed, within=within)


def from_times(times_s: FloatArray, *, name: str = "trace") -> Trace:
    """Exact arrivals, seconds since the first."""
    seconds = math.floor(float(times_s[-1])) + 1 if times_s.size else 1
    return Trace(name=name, arrivals=np.bincount(times_s.astype(np.int64), minlength=seconds).astype(np.float64))


def from_counts(counts: FloatArray, *, per_s: float, name: str = "trace", seed: int = 0, within: Literal["step", "linear"] = "step") -> Trace:
    """Poisson arrivals at the counted rate of each interval."""
    rate = spread(counts / per_s, per_s=per_s, within=within)
    return Trace(name=name, arrivals=poisson(rate, seed=seed), resolution_s=per_s)


def spread(rates_rps: FloatArray, *, per_s: float, within: Literal["step", "linear"] = "step") -> FloatArray:
    """Rate of each second from rates of intervals of `per_s` seconds."""
    seconds = np.arange(round(rates_rps.shape[0] * per_s))
    if within == "linear":
        centres = (np.arange(rates_rps.shape[0]) + 0.5) * per_s
        smooth: FloatArray = np.interp(seconds + 0.5, centres, rates_rps)
        return smooth
    stepped: FloatArray = rates_rps[np.minimum((seconds / per_s).astype(np.int64), rates_rps.shape[0] - 1)]
    return stepped


def poisson(rate_rps: FloatArray, *, seed: int) -> FloatArray:
    """One Poisson count a second; the same seed gives the same bytes."""
    return np.random.Generator(np.random.PCG64(seed)).poisson(np.maximum(rate_rps, 0.0)).astype(np.float64)


def scale_to(rate_rps: FloatArray, mean_rps: float, *, over: slice = slice(None)) -> FloatArray:
    """Rates multiplied so that their mean over `over` is `mean_rps`; time is never stretched."""
    mean = float(rate_rps[over].mean())
    return rate_rps * (mean_rps / mean) if mean > 0 else rate_rps


def only_column(text: str, where: str) -> str:
    """The column to read when none was named: there must be just one.

    Raises:
        ProjectError: several columns (`trace-column-missing`), or an empty file (`trace-empty`).
    """
    names = _names(csv.DictReader(io.StringIO(text)), where)
    if len(names) != 1:
        raise ProjectError(
            f"the trace has {len(names)} columns and none was named",
            why=", ".join(names) or "it is empty",
            code="trace-column-missing",
            where=where,
            hint="name one with --column (counts need --per, such as --per 60s; single arrivals need none)",
        )
    return names[0]


def _names(reader: csv.DictReader[str], where: str) -> list[str]:
    if not reader.fieldnames:
        raise ProjectError("the trace is an empty file", code="trace-empty", where=where, hint="give a table with a header and at least one row")
    return list(reader.fieldnames)


def _column(text: str, column: str, where: str) -> list[tuple[int, str]]:
    reader = csv.DictReader(io.StringIO(text))
    names = _names(reader, where)
    if column not in names:
        raise ProjectError(
            f"the trace has no column {column!r}; it has {', '.join(names)}",
            code="trace-column-missing",
            where=where,
            hint="name the column with --column (counts need --per, such as --per 60s; single arrivals need none)",
        )
    rows = [(line, (row[column] or "").strip()) for line, row in enumerate(reader, start=2)]
    rows = [row for row in rows if row[1]]
    if not rows:
        raise ProjectError("the trace has a header and no rows", code="trace-empty", where=where, hint="give a table with at least one row")
    return rows


def _number(cell: str, line: int, column: str, where: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise ProjectError(
            f"{cell!r} is no count", code="trace-cell-invalid", where=f"{where}:{line}", hint=f"column {column} needs numbers of at least 0"
        )
    return value


def _seconds(cell: str, line: int, column: str, where: str) -> float:
    """A time in seconds (or milliseconds where the column's name ends in _ms), or a date and time."""
    try:
        return float(cell) * (0.001 if column.endswith("_ms") else 1.0)
    except ValueError:
        pass
    try:
        moment = np.datetime64(cell.replace("Z", "").strip().replace(" ", "T"), "ns")
    except ValueError as error:
        raise ProjectError(
            f"{cell!r} is neither a number of seconds nor a date and time",
            code="trace-cell-invalid",
            where=f"{where}:{line}",
            hint=f"column {column} needs seconds, or 2026-01-31 12:00:00.5; for counts add --per 60s",
        ) from error
    return float((moment - np.datetime64("1970-01-01T00:00:00", "ns")) / np.timedelta64(1, "s"))
