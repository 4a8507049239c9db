"""What the figures of `advise` mean for whoever runs the service: figures enter, a word and sentences leave.

The baseline is the replay of the present autoscaler, or what was measured where there is none. Refuses to know series and objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from deployctl.core.advise import Measured
from deployctl.core.replay import BROKEN_RATIO, MISS_RATIO

TRUSTED_ERROR_RATIO = 0.25  # beyond it the difference of two rows is no larger than what the replay gets wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What to do.

    Attributes:
        do: `apply` the objects, `keep` what is there, or `neither`: no autoscaler alone keeps the SLO on this history.
        why: one sentence.
        caution: what to know before the figures are trusted; empty where there is nothing.
    """

    do: Literal["apply", "keep", "neither"]
    why: str
    caution: str = ""


def advice(past: Measured, policies: Sequence[dict[str, Any]], present: dict[str, Any] | None, *, start_up_s: float) -> Advice:
    """Weigh ours against what is there.

    Args:
        past: what was measured.
        policies: figures of the replays as `report.replay.document` has them; ours is the last.
        present: name and `forecast_error_ratio` of the present autoscaler; None where none could be replayed.
        start_up_s: from asking for a replica to its first answer.
    """
    ours, now = policies[-1], policies[0] if present else None
    kept, hours, name = (
        (now["kept"], now["replica_hours"], now["policy"])
        if now
        else (past.windows_missed_ratio <= BROKEN_RATIO, past.replica_hours, "what is there")
    )
    cost, caution = _change(ours["replica_hours"], hours), _caution(present)
    if ours["kept"] and not kept:
        return Advice(do="apply", why=f"slo keeps the SLO where {name} breaks it, for {cost}", caution=caution)
    if ours["kept"] and 0 < hours <= ours["replica_hours"]:
        return Advice(do="keep", why=f"{name} keeps the SLO too; slo would take {cost}", caution=caution)
    if ours["kept"]:
        return Advice(do="apply", why=f"slo keeps the SLO as {name} does, for {cost}", caution=caution)
    limits = broken_by(ours, start_up_s=start_up_s)
    if kept:
        return Advice(do="keep", why=f"{name} keeps the SLO, and slo does not: {limits}", caution=caution)
    less = f"; of all requests slo misses {ours['miss_ratio'] * 100:.2f} % and {name} {now['miss_ratio'] * 100:.2f} %" if now else ""
    helps = f"What helps is a start shorter than {start_up_s:g} s, or more replicas that are always ready"
    return Advice(do="neither", why=f"slo takes {cost} and still breaks the SLO: {limits}{less}. {helps}", caution=caution)


def broken_by(figures: dict[str, Any], *, start_up_s: float) -> str:
    """Which limits of the promise a replay was beyond, with the limits; see `fluid.Outcome.keeps`."""
    late = 1 - figures["windows_ok_ratio"]
    found = [
        (figures["miss_ratio"] > MISS_RATIO, f"{figures['miss_ratio'] * 100:.2f} % of requests missed ({MISS_RATIO * 100:g} % may be)"),
        (late > BROKEN_RATIO, f"{late * 100:.1f} % of windows missed ({BROKEN_RATIO * 100:g} % may be)"),
        (figures["longest_breach_s"] > start_up_s + 60, f"{figures['longest_breach_s']:.0f} s of misses in a row (at most {start_up_s + 60:g} s)"),
    ]
    return ", ".join(text for beyond, text in found if beyond)


def _change(ours: float, before: float) -> str:
    if before <= 0:
        return f"{ours:,.1f} replica-hours"
    ratio = ours / before - 1
    return "the same replica-hours" if abs(ratio) < 0.005 else f"{abs(ratio) * 100:.0f} % {'more' if ratio > 0 else 'fewer'} replica-hours"


def _caution(present: dict[str, Any] | None) -> str:
    if present is None:
        return "no present autoscaler was replayed (--hpa FILE, or --context): the comparison is with what was measured, by mean response"
    error = present["forecast_error_ratio"]
    if error is None:
        return "how true the replay of the present one is cannot be told: its replicas were not scraped"
    if error > TRUSTED_ERROR_RATIO:
        off = f"{error * 100:.0f} % off the replicas that really ran"
        return f"the replay of the present one is {off}: was it in force all the time, with these settings?"
    return ""
