"""Opponents that know the day: the best HPA settings, and the best single envelope of our own policy, chosen afterwards.

What enters are a trace and a plant; what leaves is the cheapest that keeps the promise, or None. The first is the strongest opponent of
its kind; the second tells what our policy loses by having to choose before it sees the day.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from deployctl.core import fluid, policy_series
from deployctl.core import replay as core
from deployctl.core.envelopes import EXPERTS
from deployctl.core.fluid import Plant
from deployctl.core.policies import slo
from deployctl.core.traces import Trace


@dataclass(frozen=True)
class Envelope:
    """One envelope in charge of a whole trace."""

    name: str
    outcome: fluid.Outcome


def best_hpa(trace: Trace, plant: Plant) -> core.Run | None:
    """The cheapest of the three best searched settings that also keeps the promise with the real algorithm."""
    runs = [core.replay(trace, plant, settings, name="hpa, best in hindsight") for _, settings in core.search_hpa(trace, plant)]
    kept = [run for run in runs if run.keeps()]
    return min(kept, key=lambda run: run.outcome.cost_s) if kept else None


def best_envelope(trace: Trace, plant: Plant) -> Envelope | None:
    """The cheapest envelope that keeps the promise of the judged part when it alone decides from the first tick on."""
    settings = replace(core.peer("slo", plant), capacity_rps=plant.capacity_rps, start_up_s=float(plant.start_up_s))
    step = slo.ticks(settings)
    mean, peak = core.Eyes(trace.arrivals, plant, core.View(), settings).arrivals(round(settings.sync_s))
    asked = policy_series.envelopes_asked(mean, peak, policy_series.forecasts(mean, step), plant.capacity_rps, step)
    first = core.first_replicas(trace, plant)
    kept = []
    for expert, replicas in zip(EXPERTS, np.nan_to_num(asked, nan=float(first)).T, strict=True):
        ticks = 2 + (step.start_up if expert.held else 0)  # as the policy holds it, and the HPA behind
        padded = np.concatenate([np.full(ticks - 1, replicas[0]), replicas])
        held = np.lib.stride_tricks.sliding_window_view(padded, ticks).max(axis=1)
        wanted = np.repeat(held, round(settings.sync_s))[: trace.arrivals.shape[0]].astype(np.int64)
        outcome = fluid.outcome(fluid.run(trace.arrivals, wanted, plant), skip_s=trace.history_s)
        if outcome.keeps(start_up_s=plant.start_up_s):
            kept.append(Envelope(expert.name, outcome))
    return min(kept, key=lambda e: e.outcome.cost_s) if kept else None
