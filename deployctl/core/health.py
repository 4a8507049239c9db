"""Is a replica alive, dead or hung? Pure: what enters are probe results and counters, what leaves is a verdict with its reason.

Readiness endpoints lie (a dead Python stub leaves them at 200), so proof of life is work done: a request that completed, or a
canary inference that was answered. A replica hangs when its canary times out *and* nothing completed since the last look.
Overload alone never condemns: a busy replica completes something, a full one rejects at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CanaryResult = Literal["ok", "error", "rejected", "timeout", "skipped"]
Verdict = Literal["healthy", "doubtful", "sick"]

_STRIKES = 2  # wrong or failed answers in a row, with nothing completed between them
_FASTEST_S, _SLOWEST_S = 2.0, 4.0
_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at a replica.

    Attributes:
        at_s: monotonic time.
        completed: requests that succeeded since its start; None when the counters could not be read.
        canary: outcome of the canary inference; `skipped` when real requests completed, which is proof enough.
        detail: what the canary said.
    """

    at_s: float
    completed: int | None
    canary: CanaryResult
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What is remembered between looks: the last known count of completed requests, and failures in a row."""

    completed: int = 0
    strikes: int = 0


def needs_canary(memory: Memory, completed: int | None) -> bool:
    """Whether a canary must be sent: not when real requests succeeded since the last look."""
    return completed is None or completed <= memory.completed


def judge(memory: Memory, look: Look) -> tuple[Verdict, str, Memory]:
    """The verdict on one look, its reason, and the memory for the next.

    Args:
        memory: from the last look.
        look: probe and counters; `completed` is read *after* the canary ended.
    """
    progressed = look.completed is not None and look.completed > memory.completed
    completed = memory.completed if look.completed is None else look.completed
    healthy = Memory(completed=completed, strikes=0)
    if look.canary in ("ok", "skipped"):
        return "healthy", "answers", healthy
    if look.canary == "rejected":
        return "healthy", "overloaded: it rejects what its queue cannot take", healthy
    if progressed:
        return "healthy", f"busy: the canary failed ({look.detail or look.canary}), but requests complete", healthy
    strikes = memory.strikes + 1
    condemned = Memory(completed=completed, strikes=strikes)
    if look.canary == "timeout":
        return "sick", f"hung: the canary had no answer in time and nothing completed since the last one{_after(look.detail)}", condemned
    if strikes >= _STRIKES:
        return "sick", f"{strikes} canaries in a row failed and nothing completed{_after(look.detail)}", condemned
    return "doubtful", f"a canary failed{_after(look.detail)}", condemned


def _after(detail: str) -> str:
    return f": {detail}" if detail else ""


def canary_timeout_s(usual_s: float) -> float:
    """How long a canary may take: 5 s, or three times its usual time where that is more."""
    return max(_TIMEOUT_S, 3.0 * usual_s)


def canary_interval_s(usual_s: float) -> float:
    """Pause between canaries of an idle replica: ten times its usual time, between 2 and 4 s, so that canaries cost little."""
    return min(max(10.0 * usual_s, _FASTEST_S), _SLOWEST_S)


def backoff_s(failures: int, *, first_s: float = 1.0, cap_s: float = 60.0) -> float:
    """Wait before the next start after `failures` failed or short-lived ones in a row: 0, 1, 2, 4 … s, at most `cap_s`."""
    return 0.0 if failures <= 0 else min(cap_s, first_s * 2.0 ** min(failures - 1, 30))
