"""Whether a missed promise says something about the service where other processes used its cores meanwhile.

What enters are a verdict and who used the server's cores during the test; what leaves is the verdict, or INCONCLUSIVE in place of a
FAIL that may be others' doing. Refuses to excuse what the server's own load explains, requests that failed, and what nobody measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from deployctl.core.profile import BUSY_RATIO
from deployctl.core.verdict import ObjectiveVerdict, Verdict, worst


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreShares:
    """Who used the cores that the servers may use, from the first request to the last answer.

    Attributes:
        cores: how many.
        passed_s: seconds that passed; `cores * passed_s` core-seconds were there.
        busy_s: core-seconds for which they were busy, whoever used them.
        own_s: core-seconds of the servers themselves, and of the load generator where it shares their cores.
    """

    cores: float
    passed_s: float
    busy_s: float
    own_s: float

    @property
    def others_ratio(self) -> float:
        """Share of the cores that others took."""
        there_s = self.cores * self.passed_s
        return max(self.busy_s - self.own_s, 0.0) / there_s if there_s > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreReading:
    """What was used of the service's cores until one moment.

    Attributes:
        at_s: a monotonic clock.
        cores: how many the service may use.
        busy_s: core-seconds for which they were busy, whoever used them.
        own_s: by process of the service and of the load test itself: core-seconds.
    """

    at_s: float
    cores: float
    busy_s: float
    own_s: Mapping[str, float]


def between(before: CoreReading | None, after: CoreReading | None) -> CoreShares | None:
    """The shares from one reading to the next; None where one is missing, or what a process used until it ended meanwhile is not known."""
    if before is None or after is None or before.cores != after.cores or not before.own_s.keys() <= after.own_s.keys():
        return None
    own_s = sum(used_s - before.own_s.get(name, 0.0) for name, used_s in after.own_s.items())
    return CoreShares(cores=after.cores, passed_s=after.at_s - before.at_s, busy_s=after.busy_s - before.busy_s, own_s=own_s)


def alone_ratio(verdict: Verdict, shares: CoreShares) -> float | None:
    """Share of the cores that the offered load would take with nobody else there: rho = (own_s / answered) * offered_rps / cores.

    The warm-up's work is in `own_s` and its requests are not counted, so this is somewhat too high, which excuses less. None where
    nothing was answered: then nobody knows.
    """
    answered = verdict.requests - verdict.failed
    return shares.own_s / answered * verdict.offered_rps / shares.cores if answered > 0 and shares.cores > 0 else None


def excused(verdict: Verdict, shares: CoreShares | None) -> Verdict:
    """The verdict, with each late objective INCONCLUSIVE that others may have made late.

    That is where they took more than BUSY_RATIO of the cores and the offered load would have fitted on them alone. Without shares nobody
    measured, and the verdict stands.
    """
    if shares is None:
        return verdict
    others, alone = shares.others_ratio, alone_ratio(verdict, shares)
    if verdict.result != "FAIL" or others <= BUSY_RATIO or alone is None or alone >= 1.0:
        return verdict
    reason = (
        f"other processes took {others:.0%} of the server's cores meanwhile, and the load alone takes {alone:.0%} of them: "
        "this miss proves nothing; repeat the command on a quieter machine"
    )
    judged = tuple(replace(o, result="INCONCLUSIVE", reason=f"{o.reason}; {reason}") if _late(o, verdict) else o for o in verdict.objectives)
    return replace(verdict, objectives=judged, result=worst([o.result for o in judged]), others_ratio=others)


def _late(objective: ObjectiveVerdict, verdict: Verdict) -> bool:
    """Whether it was missed by answers that came late; more failed requests than the percentile allows are no lateness."""
    allowed = 0.0 if objective.percentile is None else (1 - objective.percentile / 100) * verdict.requests
    return objective.result == "FAIL" and objective.percentile is not None and verdict.failed <= allowed
