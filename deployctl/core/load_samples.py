"""Every request of a load test as arrays, and the load generator's sample file as such.

What enters are bytes and the run's counts. The layout of the file is `loadtests/record.py`'s. Refuses to know where it lies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
OK = -1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Samples:
    """Every request of a load test, in order of intended send time; all arrays have the same length n.

    Attributes:
        intended_s: planned send time since the start, (n,).
        sent_s: real send time since the start, (n,).
        latency_s: completion minus *intended* send time, (n,); NaN where no answer came.
        ok: whether a right answer came, (n,) bool.
        size: input size bucket, (n,) int.
        error: index into `errors` for failures, -1 else, (n,) int.
        errors: distinct error texts.
        first_s: when the first piece came minus intended, (n,); NaN where none came. None where answers come whole.
        pieces: how many came, (n,) int; None where answers come whole.
    """

    intended_s: FloatArray
    sent_s: FloatArray
    latency_s: FloatArray
    ok: npt.NDArray[np.bool_]
    size: npt.NDArray[np.int64]
    error: npt.NDArray[np.int64]
    errors: tuple[str, ...]
    first_s: FloatArray | None = None
    pieces: npt.NDArray[np.int64] | None = None

    @property
    def gap_s(self) -> FloatArray | None:
        """Mean time between an answer's pieces, (n,); NaN where it had fewer than two."""
        if self.first_s is None or self.pieces is None:
            return None
        several = self.ok & (self.pieces > 1)
        return np.where(several, (self.latency_s - self.first_s) / np.maximum(self.pieces - 1, 1), np.nan)


def decode(raw: bytes, planned: int, errors: tuple[str, ...]) -> Samples:
    """The judged part of a run with `planned` requests, warm-up included."""
    times = np.frombuffer(raw, dtype=np.float64, count=3 * planned).reshape(3, planned)
    codes = np.frombuffer(raw, dtype=np.int32, count=2 * planned, offset=24 * planned).reshape(2, planned)
    judged = times[0] >= 0
    intended, sent, done = times[:, judged]
    size, error = codes[:, judged].astype(np.int64)
    first = np.frombuffer(raw, dtype=np.float64, count=planned, offset=32 * planned)[judged]
    pieces = np.frombuffer(raw, dtype=np.int32, count=planned, offset=40 * planned)[judged].astype(np.int64)
    streamed = bool(pieces.any())
    ok = error == OK
    return Samples(
        intended_s=intended,
        sent_s=sent,
        latency_s=np.where(ok, done - intended, np.nan),
        ok=ok,
        size=size,
        error=error,
        errors=errors,
        first_s=first - intended if streamed else None,
        pieces=pieces if streamed else None,
    )
