"""How long a graph takes on this machine with one thread: processor time beside wall time, since machines are shared."""

from __future__ import annotations

import statistics
import time

from deployctl.compress.inputs import Rows
from deployctl.compress.verify import Ask
from deployctl.core.artifact import LatencyPoint

_REPEATS = 7
_WARM = 2
_MOST_S = 2.0


def grid(rows: Rows, *, batched: bool) -> list[tuple[int, int]]:
    """(batch, size) to measure: one request, a batch of eight, and one long request."""
    if rows.pads:
        short, long = rows.rule.step, min(128, rows.rule.maximum)
    else:
        short, long = min(rows.sizes), max(rows.sizes)
    points = [(1, short), (8, short), (1, long)] if batched else [(1, short), (1, long)]
    return list(dict.fromkeys(points))


def latency(ask: Ask, rows: Rows, *, batched: bool) -> tuple[LatencyPoint, ...]:
    """Every point of the grid: median wall time and smallest processor time of several runs."""
    found = []
    for batch, size in grid(rows, batched=batched):
        feed = rows.stretched(batch, size)
        for _ in range(_WARM):
            ask(feed)
        walls: list[float] = []
        cpus: list[float] = []
        began = time.monotonic()
        while len(walls) < _REPEATS and (len(walls) < 3 or time.monotonic() - began < _MOST_S):
            wall, cpu = time.perf_counter(), time.thread_time()
            ask(feed)
            walls.append(time.perf_counter() - wall)
            cpus.append(time.thread_time() - cpu)
        found.append(LatencyPoint(batch=batch, size=size, seconds=statistics.median(walls), cpu_s=min(cpus)))
    return tuple(found)


def device() -> str:
    """The same key that evidence is bound to: architecture-less CPU and its number of usable cores, such as `cpu-2c`."""
    import os

    return f"cpu-{len(os.sched_getaffinity(0))}c"
