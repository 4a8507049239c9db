"""The next point of somebody else's grid, or its best: a table of measurements enters, words and figures leave. Measures and writes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployctl.config import grids
from deployctl.core.grid import Ask, Table, propose_on_grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What a grid says: the best point so far that keeps the limit, the one to measure next (None: enough), and why."""

    table: Table
    best: int | None
    ask: int | None
    reason: str


def advise_on_grid(file: Path, *, limit_s: float | None, seed: int = 1) -> Advice:
    """Read the grid and look.

    Args:
        file: CSV; see `config/grids.py`.
        limit_s: for the tail; None means unlimited.
        seed: places the very first point.

    Raises:
        ProjectError: the file is no such grid (`grid-invalid`).
    """
    table = grids.read(file, str(file))
    step = propose_on_grid(table.measured, table.grid, limit=limit_s, budget=len(table.grid.points), seed=seed)
    reason = "everything is measured" if len(table.measured) == len(table.grid.points) else step.reason
    return Advice(table=table, best=table.best(limit_s), ask=step.index if isinstance(step, Ask) else None, reason=reason)


def document(advice: Advice, limit_s: float | None) -> dict[str, Any]:
    """The same as plain data."""
    table = advice.table
    found = {m.index: m for m in table.measured}
    best = (
        None if advice.best is None else {**table.named(advice.best), "throughput_rps": found[advice.best].value, "p99_s": found[advice.best].limited}
    )
    return {
        "points": len(table.grid.points),
        "measured": len(table.measured),
        "limit_s": limit_s,
        "best": best,
        "next": None if advice.ask is None else table.named(advice.ask),
        "reason": advice.reason,
    }
