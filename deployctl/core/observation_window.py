"""A growing table of numbers that pure functions can hand on: appending gives a new window and leaves the old one as it was.

What enters are rows, one a tick; what leaves are the last values of a column, or quantiles of them. Rows are shared between
windows that grew from each other, so a day of history costs one copy and not one a tick. Refuses to know clocks: a row is a tick.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class _Store:
    """Rows shared by windows; `used` is how many the longest of them has."""

    __slots__ = ("rows", "used")

    def __init__(self, rows: FloatArray, used: int) -> None:
        self.rows = rows
        self.used = used


class Window:
    """The last `depth` rows of a table with `width` columns. A missing value is NaN."""

    __slots__ = ("_length", "_store", "depth")

    def __init__(self, *, width: int, depth: int) -> None:
        self.depth = depth
        self._store = _Store(np.full((64, width), np.nan), 0)
        self._length = 0

    def __len__(self) -> int:
        return min(self._length, self.depth)

    def append(self, row: FloatArray) -> Window:
        """This window with one more row; this one itself does not change."""
        store = self._store
        full = self._length == store.rows.shape[0]
        if full or store.used != self._length:  # no room, or somebody else grew from here already: go on in a copy
            kept = store.rows[max(self._length - self.depth, 0) : self._length]
            rows = np.full((max(64, 2 * kept.shape[0] + 64), store.rows.shape[1]), np.nan)
            rows[: kept.shape[0]] = kept
            store = _Store(rows, kept.shape[0])
        store.rows[store.used] = row
        store.used += 1
        grown = Window.__new__(Window)
        grown.depth, grown._store, grown._length = self.depth, store, store.used
        return grown

    def last(self, column: int | slice, count: int, *, skip: int = 0) -> FloatArray:
        """Up to `count` values of a column (or rows of several), oldest first, leaving out the newest `skip`."""
        stop = self._length - skip
        start = max(stop - count, self._length - len(self), 0)
        return self._store.rows[start : max(stop, start), column]

    def back(self, column: int | slice, ticks: int) -> FloatArray | None:
        """The row `ticks` before the newest, or None where history does not reach so far."""
        if ticks >= self._length or ticks >= self.depth:
            return None
        found: FloatArray = self._store.rows[self._length - 1 - ticks, column]
        return found

    def each(self, columns: IntArray, ticks: IntArray) -> FloatArray:
        """For each pair, the value of that column so many ticks before the newest row; NaN where history does not reach so far."""
        if self._length >= self.depth:  # as deep as it gets, and nobody asks for more
            there: FloatArray = self._store.rows[self._length - 1 - ticks, columns]
            return there
        inside = ticks < len(self)
        found = self._store.rows[np.where(inside, self._length - 1 - ticks, 0), columns]
        values: FloatArray = np.where(inside, found, np.nan)
        return values


def largest(values: FloatArray) -> float:
    """The largest value that is there; NaN where none is."""
    return float(np.fmax.reduce(values)) if values.size else float("nan")


def replaced(ordered: FloatArray, leaves: float, enters: float) -> FloatArray:
    """A sorted array without one of its values and with another one (NaN: none); what was passed in does not change."""
    if leaves != leaves:
        if enters != enters:
            return ordered
        at = int(ordered.searchsorted(enters))
        return np.concatenate((ordered[:at], (enters,), ordered[at:]))
    gone = int(ordered.searchsorted(leaves))
    if enters != enters:
        return np.concatenate((ordered[:gone], ordered[gone + 1 :]))
    changed, at = ordered.copy(), int(ordered.searchsorted(enters))
    if at > gone:
        changed[gone : at - 1] = ordered[gone + 1 : at]
        changed[at - 1] = enters
    else:
        changed[at + 1 : gone + 1] = ordered[at:gone]
        changed[at] = enters
    return changed


def quantiles(ordered: tuple[FloatArray, ...], levels: tuple[float, ...]) -> FloatArray:
    """Quantiles of sorted arrays of one length, linear between values as PromQL's `quantile_over_time`: (arrays, levels).

    Zeros where the arrays are empty.
    """
    size = ordered[0].size
    if not size:
        return np.zeros((len(ordered), len(levels)))
    around, weight = _ranks(size, levels)
    low, high = np.array([values.take(around) for values in ordered]).reshape(len(ordered), 2, len(levels)).transpose(1, 0, 2)
    found: FloatArray = low * (1.0 - weight) + high * weight
    return found


@functools.lru_cache(maxsize=64)
def _ranks(count: int, levels: tuple[float, ...]) -> tuple[IntArray, FloatArray]:
    """Positions of the values below and above each quantile, and the weight of the upper ones."""
    rank = np.array(levels) * (count - 1)
    low = np.floor(rank).astype(np.int64)
    return np.concatenate((low, np.minimum(low + 1, count - 1))), rank - low
