"""Exact samples in a file that outlives the process: every write goes to mapped pages, so kill -9 loses nothing.

Layout, native byte order: intended_s, sent_s, done_s (float64, n each), then size, error (int32, n each), then first_s (float64, n) and
pieces (int32, n). Times are relative to the judged start. `done_s` is NaN until an answer came; `error` is OK, PENDING, or an index into
the errors of result.json. `first_s` and `pieces` are NaN and 0 where answers come whole.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np

from loadtests.plan import Plan

OK = -1
PENDING = -2


class Recorder:
    """The sample columns as memoryviews: item assignment is the cheapest write that Python has."""

    def __init__(self, path: Path, plan: Plan) -> None:
        n = len(plan.times_s)
        self.errors: list[str] = []
        self._codes: dict[str, int] = {}
        total = max(n * 44, 1)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(handle, 0, total)  # a full disk is said now, not by SIGBUS in the middle of the test
            self._map = mmap.mmap(handle, total)
        finally:
            os.close(handle)
        whole = memoryview(self._map)
        self.sent = whole[8 * n : 16 * n].cast("d")
        self.done = whole[16 * n : 24 * n].cast("d")
        self.error = whole[28 * n : 32 * n].cast("i")
        self.first = whole[32 * n : 40 * n].cast("d")
        self.pieces = whole[40 * n : 44 * n].cast("i")
        np.frombuffer(whole[: 8 * n], dtype=np.float64)[:] = plan.times_s
        np.frombuffer(self.sent, dtype=np.float64)[:] = np.nan
        np.frombuffer(self.done, dtype=np.float64)[:] = np.nan
        np.frombuffer(self.first, dtype=np.float64)[:] = np.nan
        np.frombuffer(whole[24 * n : 28 * n], dtype=np.int32)[:] = plan.size
        np.frombuffer(self.error, dtype=np.int32)[:] = PENDING

    def code(self, text: str) -> int:
        """The index of an error text; beyond 100 different ones all count as one."""
        known = self._codes.get(text)
        if known is None:
            if len(self.errors) >= 100:
                text = "other errors"
                if text in self._codes:
                    return self._codes[text]
            known = self._codes[text] = len(self.errors)
            self.errors.append(text)
        return known
