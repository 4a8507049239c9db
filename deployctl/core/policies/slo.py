"""Our policy: the fewest replicas that would have kept the SLO on the load of the past day, chosen anew at every tick.

What enters is the rate at which requests arrive (never the rate at which they complete), the rate `capacity_rps` at which
one replica keeps the SLO's percentile, and the measured start-up time; what leaves is a number of replicas. Refuses to
know utilisation and queue lengths: they saturate exactly when it matters.

A fixed set of envelopes (`core/envelopes.py`) each turns recent arrivals into a number of replicas. At each tick every envelope is
judged on the past day as if it had been in charge, with the start-up delay: how many requests it would have missed, in how many
five-minute windows more than 1 % of them, what it would have cost. The cheapest whose misses stay in the budget decides; one that
exceeds the budget pays with the square of the excess. A day is a sample, so each is charged one more breach that was not seen yet, as
long as a start (the "+1" of conformal prediction, Vovk et al. 2005). So nothing is tuned by hand per service: the load itself picks.

While the present five minutes are half-way to breaking, the line through the last minute decides if it asks for more: a load that
outgrew everything that the envelopes know is followed to where it will be when a replica is ready.

Every step is an operation that PromQL has (`core/rules.py` compiles this module; a test runs both), and the series that leaves
is a plain number of replicas which an HPA follows with a target of 1 a replica.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import numpy as np

from deployctl.core import envelopes
from deployctl.core.decision import Decision, Hold, Observation, RateLimit, Reading, ScaleTo, ScalingPolicy, Unknown
from deployctl.core.envelopes import DAY_S, EXPERTS, HELD_COUNT, SUM_KNOWN, SUM_MEAN, Load, Ticks
from deployctl.core.observation_window import FloatArray, Window
from deployctl.core.policies import hpa
from deployctl.core.signals import usable

JUDGED_S = 300.0  # length of the windows that a miss budget is counted in
LEARN_S = 3600.0  # before this much history the default envelope decides
SETTLE_S = 30.0  # the HPA's scale-down window: what is kept longer, the envelopes keep
MISS_BUDGET = 0.006  # of all requests; 1 % is the promise, the rest is reserve
WINDOW_BUDGET = 0.01  # of all five-minute windows: the promise
WINDOW_MISS = 0.01  # a window with more misses than this breaks a p99
ALARM_MISS = 0.005  # from this share of misses in the past five minutes on, the line is followed
ALARM_HEADROOM = 1.1  # on the line
MOST_RPS = 1e9  # a reading above this is nonsense, and would overflow the sums
PER_SCORE = 1e6  # scores are rounded to millionths, so that sums in another order give the same choice

DEFAULT = next(
    i for i, e in enumerate(EXPERTS) if e.kind == "flat" and e.window_s == 900.0 and e.headroom_ratio == 1.5
)  # a new service is unknown: careful

ALARM = len(EXPERTS)  # in place of an envelope's index: the line decided
LINE = next(i for i, f in enumerate(envelopes.FORECASTS) if f.trend_ratio == 1.0)

# Columns of how the envelopes did: what those that are held asked for, then blocks of one column for each envelope, then the policy itself.
_E = len(EXPERTS)
_ASKED = slice(0, HELD_COUNT)
_HELD, _SUM_SHORT, _SUM_BROKEN, _SUM_HELD = (slice(HELD_COUNT + i * _E, HELD_COUNT + (i + 1) * _E) for i in range(4))
_KEPT = slice(_HELD.start, _HELD.start + HELD_COUNT)  # of what is held, the part that lasts for one start-up
_WANTED = HELD_COUNT + 4 * _E
_SUM_MISSED = _WANTED + 1
_WIDTH = _SUM_MISSED + 1

SILENT = Unknown(reason="arrivals_rps is missing, not a number or too old: holding", evidence={})


@dataclass(frozen=True, slots=True, kw_only=True)
class SloState:
    """What the policy remembers.

    Attributes:
        load: a day of arrivals.
        record: a day of what each envelope held, and running sums of its misses, broken windows and cost; the same of the policy.
        hpa: memory of the HPA that follows the policy's number.
        scores: of the envelopes, as of the last tick with known load; `missing` ticks without one have passed since.
    """

    load: Load | None = None
    record: Window | None = None
    hpa: hpa.HpaState = hpa.HpaState()
    scores: FloatArray | None = None
    missing: int = 0


def ticks(settings: ScalingPolicy) -> Ticks:
    """Durations of the policy in ticks."""
    return Ticks(
        sync_s=settings.sync_s,
        start_up=math.ceil(settings.start_up_s / settings.sync_s),
        day=max(round(DAY_S / settings.sync_s), 1),
        judged=max(round(JUDGED_S / settings.sync_s), 1),
    )


def initial_state() -> SloState:
    """A policy that has seen nothing yet."""
    return SloState()


def decide(observation: Observation, state: SloState, settings: ScalingPolicy, now_s: float) -> tuple[Decision, SloState]:
    """One tick: learn from the load, choose the envelope, and follow it as an HPA would.

    Args:
        observation: needs `arrivals_rps` (total); `arrivals_peak_rps`, the largest short-term rate since the last tick, where
            the source has it.
        state: what the last call returned.
        settings: `capacity_rps`, `start_up_s`, bounds and `sync_s`.
        now_s: time of the tick.
    """
    if settings.capacity_rps <= 0:
        return Unknown(reason="capacity of a replica is not known; `deployctl tune` measures it", evidence={}), state
    step = ticks(settings)
    mean, peak = arrivals(observation)
    load = envelopes.seen(state.load or envelopes.no_load(step), mean, peak, step)
    record = state.record or Window(width=_WIDTH, depth=step.day + step.start_up + step.judged + 2)
    if math.isnan(mean):
        record = record.append(_silent(record))
        return SILENT, replace(state, load=load, record=record, missing=state.missing + 1)
    row = _judged(record, load, settings.capacity_rps, step)
    wanted, chosen = choose(row[_HELD], load, state.scores if state.missing < step.judged else None, step)
    urgent = alarm(record, row, load, settings.capacity_rps, step)
    if urgent > wanted:
        wanted, chosen = urgent, ALARM
    row[_WANTED] = wanted
    record = record.append(row)
    state = SloState(load=load, record=record, hpa=state.hpa, scores=scores(load, record, step))
    decision, memory = follow(observation, wanted, chosen, mean, state.hpa, settings, now_s)
    return decision, replace(state, hpa=memory)


def arrivals(observation: Observation) -> tuple[float, float]:
    """Mean and peak arrivals in requests a second; NaN when unknown."""
    mean = usable(observation, "arrivals_rps")
    if mean is None:
        return math.nan, math.nan
    mean = min(mean, MOST_RPS)
    return mean, min(max(mean, usable(observation, "arrivals_peak_rps") or 0.0), MOST_RPS)


def hpa_settings(settings: ScalingPolicy) -> ScalingPolicy:
    """The HPA that follows the policy's number: target 1 a replica, no tolerance, as fast up as asked, down after two ticks."""
    return _follower(settings.min_replicas, settings.max_replicas, settings.sync_s)


@functools.lru_cache(maxsize=64)
def _follower(min_replicas: int, max_replicas: int, sync_s: float) -> ScalingPolicy:
    return ScalingPolicy(
        policy="hpa",
        min_replicas=min_replicas,
        max_replicas=max_replicas,
        target=1.0,
        signal="wanted_replicas",
        sync_s=sync_s,
        tolerance_ratio=0.0,
        scale_up_window_s=0.0,
        scale_down_window_s=SETTLE_S,
        up_limits=(RateLimit(kind="pods", value=10_000, period_s=15.0),),  # an HPA object needs a limit: one that never binds
        down_limits=(RateLimit(kind="pods", value=10_000, period_s=15.0),),
    )


def follow(
    observation: Observation, wanted: int, chosen: int, mean: float, memory: hpa.HpaState, settings: ScalingPolicy, now_s: float
) -> tuple[Decision, hpa.HpaState]:
    """What the HPA behind the policy makes of the number that envelope `chosen` asks for at a mean load."""
    evidence = {"arrivals_rps": mean, "wanted_replicas": float(wanted), "capacity_rps": settings.capacity_rps}
    current = observation.replicas_wanted
    overdue = observation.replicas_starting > 0 and observation.replicas_ready < wanted
    if wanted < current and (overdue or observation.replicas_ready == 0):
        reason = f"{wanted} would do, but only {observation.replicas_ready} of {current} replicas are ready: keeping those on their way"
        return Hold(reason=reason, evidence=evidence), memory
    seen = Observation(
        at_s=observation.at_s,
        readings={"wanted_replicas": Reading(value=float(wanted))},
        replicas_ready=observation.replicas_ready,
        replicas_starting=observation.replicas_starting,
        replicas_wanted=current,
    )
    decision, memory = hpa.decide(seen, memory, hpa_settings(settings), now_s)
    if isinstance(decision, ScaleTo):
        name = "catching up" if chosen == ALARM else EXPERTS[chosen].name
        reason = f"{name}: {mean:.4g} req/s arrive, {settings.capacity_rps:g} a replica, {settings.start_up_s:g} s to start one"
        decision = ScaleTo(replicas=decision.replicas, reason=reason, evidence=evidence)
    return decision, memory


def _silent(record: Window) -> FloatArray:
    """The line of a tick whose load is not known: the sums go on, nothing is held."""
    row = np.full(_WIDTH, np.nan)
    before = record.back(slice(0, _WIDTH), 0)
    for part in (_SUM_SHORT, _SUM_BROKEN, _SUM_HELD, _SUM_MISSED):
        row[part] = 0.0 if before is None else before[part]
    return row


def _judged(record: Window, load: Load, capacity_rps: float, step: Ticks) -> FloatArray:
    """The line of a tick: what each envelope asks for, and how it would have done with what it asked for before."""
    row = np.empty(_WIDTH)
    newest = record.back(slice(0, _WIDTH), 0)
    before = np.zeros(_WIDTH) if newest is None else newest
    asked = envelopes.asked(load, capacity_rps, step)
    row[_ASKED] = asked[:HELD_COUNT]
    row[_HELD] = asked
    recent = record.last(_ASKED, step.start_up)
    if recent.shape[0]:
        row[_KEPT] = np.fmax(np.fmax.reduce(recent), asked[:HELD_COUNT])
    ready = record.last(_HELD, step.start_up + 1)
    arrived = _arrived(load)
    if ready.shape[0]:
        short = arrived - capacity_rps * np.fmin.reduce(ready)
        row[_SUM_SHORT] = before[_SUM_SHORT] + np.fmax(short, 0.0)  # fmax: what is not known was not missed
    else:
        row[_SUM_SHORT] = before[_SUM_SHORT]
    old = record.back(_SUM_SHORT, step.judged - 1)
    missed = row[_SUM_SHORT] - (0.0 if old is None else old)
    row[_SUM_BROKEN] = before[_SUM_BROKEN] + (missed > WINDOW_MISS * load.over(SUM_MEAN, step.judged))
    row[_SUM_HELD] = before[_SUM_HELD] + row[_HELD]
    row[_SUM_MISSED] = before[_SUM_MISSED] + _missed(record, arrived, capacity_rps, step)
    return row


def _arrived(load: Load) -> float:
    """The load that a shortfall is counted against: between the mean and the peak of a tick."""
    return sum(float(load.table.back(column, 0) or 0.0) for column in (envelopes.MEAN, envelopes.PEAK)) / 2


def _missed(record: Window, arrived: float, capacity_rps: float, step: Ticks) -> float:
    """Load beyond what would be ready had the policy's numbers been followed by its HPA, which holds each for two ticks."""
    wanted = record.last(_WANTED, step.start_up + 2)
    earlier = np.concatenate(([np.nan], wanted[:-1]))
    followed = np.fmax(wanted, np.where(np.isnan(wanted), np.nan, earlier))[-(step.start_up + 1) :]
    known = followed[~np.isnan(followed)]
    return max(arrived - capacity_rps * float(known.min()), 0.0) if known.size else 0.0


def alarm(record: Window, row: FloatArray, load: Load, capacity_rps: float, step: Ticks) -> int:
    """Replicas that the line through the last minute asks for while the past five minutes miss too much; 0 while they do not.

    `record` ends a tick before `row`. What was offered counts up to then, so that more load never ends an alarm.
    """
    old = record.back(_SUM_MISSED, step.judged - 1)
    missed = row[_SUM_MISSED] - (0.0 if old is None else old)
    if missed <= ALARM_MISS * load.over(SUM_MEAN, step.judged, back=1):
        return 0
    return envelopes.line_replicas(load, LINE, ALARM_HEADROOM, capacity_rps, step)


def choose(held: FloatArray, load: Load, known: FloatArray | None, step: Ticks) -> tuple[int, int]:
    """The replicas asked for by the envelope with the lowest score, and which one it is; of equals the one that asks for most.

    The scores are those of the tick before: so the choice does not depend on the present load, and since every envelope
    rises with it, more load never means fewer replicas.
    """
    if known is None or load.over(SUM_KNOWN, step.day) < learned(step):
        return int(held[DEFAULT]), DEFAULT
    best = np.flatnonzero(known == known.min())
    chosen = int(best[np.argmax(held[best])])
    return int(held[chosen]), chosen


def learned(step: Ticks) -> int:
    """Known ticks of the past day from which on the past is trusted."""
    return step.of(LEARN_S)


def scores(load: Load, record: Window, step: Ticks) -> FloatArray:
    """Cost of each envelope over the past day, times the squares of how far its misses exceed the budgets: (experts,).

    One breach as long as a start is added to those that were seen.
    """
    sums = slice(_SUM_SHORT.start, _SUM_HELD.stop)
    row, old = record.back(sums, 0), record.back(sums, step.day)
    assert row is not None
    short, broken, held = (row if old is None else row - old).reshape(3, _E)
    known = max(load.over(SUM_KNOWN, step.day), 1.0)
    missed_ratio = short / max(load.over(SUM_MEAN, step.day), 1e-9)
    over = np.maximum(missed_ratio / MISS_BUDGET, 1.0) * np.maximum((broken + step.lead) / known / WINDOW_BUDGET, 1.0)
    rounded: FloatArray = np.floor(held / known * over**2 * PER_SCORE + 0.5) / PER_SCORE
    return rounded
