"""The system's clocks behind the Clock port."""

from __future__ import annotations

import time


class SystemClock:
    """Real time."""

    def now_s(self) -> float:
        """Unix time in seconds."""
        return time.time()

    def monotonic_s(self) -> float:
        """Seconds on a clock that never steps."""
        return time.monotonic()

    def sleep_s(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)
