"""A policy in the loop on recorded traffic: what it would have done, what that costs, and how far from the least possible.

What enters are a trace, the plant, the policy's settings and how it sees the world (scrape interval, rate window, lag); what
leaves is a `Run` with every second of it and its figures. The plant is the fluid model of `fluid.py` in steps of one second, or
every request of it (`autoscaled.py`).
Deterministic: the same inputs give the same bytes. Refuses to know files, and to tune anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from deployctl.core import bound, fluid, policy_series
from deployctl.core.bound import Bound
from deployctl.core.decision import Observation, Reading, ScaleTo, ScalingPolicy
from deployctl.core.fluid import Flow, Outcome, Plant, Service, Tank
from deployctl.core.policies import Policy, policy
from deployctl.core.signals import SIGNALS
from deployctl.core.traces import Trace

FloatArray = npt.NDArray[np.float64]
Distort = Callable[[int, Observation], Observation]

MISS_RATIO = 0.01
BROKEN_RATIO = 0.01  # of the five-minute windows


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How a policy sees the service.

    Attributes:
        scrape_s: interval at which counters are read.
        rate_window_s: over which rates are formed.
        lag_s: age of the newest sample when a decision is made.
    """

    scrape_s: int = 5
    rate_window_s: int = 15
    lag_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """One policy on one trace.

    Attributes:
        policy: name for reports.
        settings: as they were replayed.
        flow: every second, history included.
        outcome: figures of the judged part.
        changes: (second, replicas, reason) of each change.
        history_s: leading seconds that are not judged.
    """

    policy: str
    settings: ScalingPolicy
    flow: Flow
    outcome: Outcome
    changes: tuple[tuple[int, int, str], ...]
    history_s: int

    def keeps(self) -> bool:
        """Whether the promise was kept (`Outcome.keeps`)."""
        return self.outcome.keeps(start_up_s=self.settings.start_up_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Yardstick:
    """The least possible for a trace, in replica-seconds.

    Attributes:
        floor_s: all arrivals over the capacity of a replica.
        clairvoyant_s: for a scaler that knows the future, each request served in the second it arrives in.
        waiting_s: the same if each request may wait as long as the SLO lets it (never above `clairvoyant_s`).
        unforeseen: for one that asks for replicas only once it has seen the load that needs them, and that starts with all that its
            history needed if that pays. Where it misses or breaks more than the promise allows, none of its kind can keep it.
    """

    floor_s: float
    clairvoyant_s: float
    waiting_s: float
    unforeseen: Bound

    @property
    def can_react(self) -> bool:
        """Whether a scaler without foresight can keep the promise."""
        return self.unforeseen.feasible and self.unforeseen.least_broken_ratio <= BROKEN_RATIO

    def regret(self, outcome: Outcome) -> float:
        """Cost over the clairvoyant minimum: 1.17 reads "1.17x the minimum possible"."""
        return outcome.cost_s / self.clairvoyant_s if self.clairvoyant_s > 0 else math.inf


def yardstick(trace: Trace, plant: Plant, *, miss_ratio: float = MISS_RATIO, min_replicas: int = 1, view: View = View()) -> Yardstick:
    """All bounds for the judged part of a trace."""
    least = partial(
        bound.clairvoyant, capacity_rps=plant.capacity_rps, start_up_s=float(plant.start_up_s), miss_ratio=miss_ratio, min_replicas=min_replicas
    )
    before = math.ceil(float(trace.arrivals[: trace.history_s].max(initial=0.0)) / plant.capacity_rps)
    return Yardstick(
        floor_s=float(trace.judged.sum()) / plant.capacity_rps,
        clairvoyant_s=least(trace.judged).cost_s,
        waiting_s=least(bound.relaxed(trace.judged, wait_s=plant.wait_s)).cost_s,
        unforeseen=bound.without_foresight(
            trace.judged,
            capacity_rps=plant.capacity_rps,
            start_up_s=float(plant.start_up_s),
            miss_ratio=miss_ratio,
            min_replicas=min_replicas,
            detection_s=float(view.scrape_s + view.lag_s),
            running=max(first_replicas(trace, plant, at_s=trace.history_s), before),
        ),
    )


def first_replicas(trace: Trace, plant: Plant, *, at_s: int = 0) -> int:
    """Replicas that the minute from `at_s` on needs: where a replay starts."""
    minute = trace.arrivals[at_s : at_s + 60]
    return max(math.ceil(float(minute.mean()) / plant.capacity_rps), 1) if minute.size else 1


def replay(
    trace: Trace,
    plant: Plant,
    settings: ScalingPolicy,
    *,
    view: View = View(),
    distort: Distort | None = None,
    first: int | None = None,
    name: str | None = None,
    build: Callable[[int], Service] | None = None,
) -> Run:
    """Run one policy through a trace.

    Args:
        trace: arrivals; its history is run through as well, and not judged.
        plant: the service.
        settings: names the policy; `capacity_rps` and `start_up_s` are taken from the plant where they are 0.
        view: how stale and coarse the policy's readings are.
        distort: changes an observation (second, observation) before the policy sees it: to test what broken metrics do.
        first: replicas at the start; None takes what the first minute needs.
        name: for reports; None is the policy's own.
        build: makes the service from the first number of replicas; None is the fluid model of the plant.
    """
    settings = replace(settings, capacity_rps=settings.capacity_rps or plant.capacity_rps, start_up_s=settings.start_up_s or float(plant.start_up_s))
    first = first_replicas(trace, plant) if first is None else first
    first = min(max(first, settings.min_replicas), settings.max_replicas)
    tank = build(first) if build is not None else Tank(trace.arrivals, plant, first=first)
    sees = Eyes(trace.arrivals, plant, view, settings)
    step = max(round(settings.sync_s), 1)
    # What a policy that is a function of arrivals alone will want is known beforehand, unless somebody bends what it sees.
    ahead = settings.policy == "slo" and distort is None and settings.capacity_rps > 0
    rule: Policy = policy_series.foreseen(*sees.arrivals(step), settings) if ahead else policy(settings.policy)
    state, wanted, changes = rule.initial_state(), first, []
    for at_s in range(0, trace.arrivals.shape[0], step):
        observation = sees.observe(tank, at_s, wanted)
        if distort is not None:
            observation = distort(at_s, observation)
        decision, state = rule.decide(observation, state, settings, float(at_s))
        if isinstance(decision, ScaleTo) and decision.replicas != wanted:
            wanted = decision.replicas
            changes.append((at_s, wanted, decision.reason))
        tank.wanted[at_s : at_s + step] = wanted
        tank.advance(at_s + step)
    flow = tank.flow()
    return Run(
        policy=name or settings.policy,
        settings=settings,
        flow=flow,
        outcome=fluid.outcome(flow, skip_s=trace.history_s),
        changes=tuple(changes),
        history_s=trace.history_s,
    )


class Eyes:
    """Turns the plant's past into readings, as old and as coarse as scraped metrics are; only those that the policy asks for."""

    def __init__(self, arrivals: FloatArray, plant: Plant, view: View, settings: ScalingPolicy) -> None:
        self.view = view
        self.plant = plant
        self.needed = {settings.signal, *(m.signal for m in settings.also)}
        self.mean = fluid.measured_rate(arrivals, scrape_s=view.scrape_s, window_s=view.rate_window_s)
        self.peak = np.maximum(self.mean, self._peaks(fluid.measured_rate(arrivals, scrape_s=view.scrape_s, window_s=view.scrape_s)))

    def _peaks(self, short: FloatArray) -> FloatArray:
        """The largest of the short rates at the scrapes of a rate window, for each second."""
        at_scrapes = short[:: self.view.scrape_s]
        tops = at_scrapes.copy()
        for back in range(1, min(self.view.rate_window_s // self.view.scrape_s, at_scrapes.shape[0])):
            tops[back:] = np.maximum(tops[back:], at_scrapes[:-back])
        peaks: FloatArray = np.repeat(tops, self.view.scrape_s)[: short.shape[0]]
        return peaks

    def arrivals(self, step: int) -> tuple[FloatArray, FloatArray]:
        """Mean and peak arrivals at every decision, as `observe` gives them; NaN where there is nothing to see yet, or it is too old."""
        seen = np.arange(0, self.mean.shape[0], step) - self.view.lag_s
        known = (seen > 0) & (self.view.lag_s <= SIGNALS["arrivals_rps"].max_age_s)
        at = np.maximum(seen, 0)
        return np.where(known, self.mean[at], np.nan), np.where(known, self.peak[at], np.nan)

    def observe(self, tank: Service, at_s: int, wanted: int) -> Observation:
        """Readings at the start of second `at_s`."""
        ready, starting = tank.replicas
        seen = at_s - self.view.lag_s
        readings: dict[str, Reading] = {}
        if seen > 0:
            age = float(self.view.lag_s)
            values = {"arrivals_rps": float(self.mean[seen]), "arrivals_peak_rps": float(self.peak[seen])}
            if not self.needed <= values.keys():
                values |= self._values(tank, seen)
            readings = {key: Reading(value=value, age_s=age, samples=ready) for key, value in values.items()}
        return Observation(at_s=float(at_s), readings=readings, replicas_ready=ready, replicas_starting=starting, replicas_wanted=wanted)

    def _values(self, tank: Service, seen: int) -> dict[str, float]:
        scrape, window = self.view.scrape_s, self.view.rate_window_s
        newest = min((seen // scrape) * scrape, tank.at)
        oldest = max(newest - window, 0)
        came, gone = tank.out[2, oldest - 1] if oldest else 0.0, tank.out[2, newest - 1] if newest else 0.0
        span = max(newest - oldest, 1)
        missed = float(tank.out[4, oldest:newest].sum()) if self.plant.admission else 0.0
        served = max(float(tank.arrivals[oldest:newest].sum()) - missed - (gone - came), 0.0) / span
        power = max(float(tank.out[0, oldest:newest].sum()) / (newest - oldest), 1e-9) * self.plant.capacity_rps if newest > oldest else 1e-9
        wait_s = float(tank.out[3, newest - 1]) if newest else 0.0
        return {
            "completions_rps": served,
            "pending": float(gone),
            "busy_ratio": min(served / power, 1.0),
            "concurrency": float(gone) + served / self.plant.capacity_rps,
            "queue_s": wait_s if math.isfinite(wait_s) else 3600.0,
            "latency_p99_s": self.plant.base_p99_s + (wait_s if math.isfinite(wait_s) else 3600.0),
        }


def peer(name: str, plant: Plant, *, min_replicas: int = 1, max_replicas: int = 10_000) -> ScalingPolicy:
    """The settings that a peer comes with: what people run who do not tune (each is said in the report)."""
    base = ScalingPolicy(min_replicas=min_replicas, max_replicas=max_replicas)
    if name == "hpa":  # 70 % busy, everything else as Kubernetes has it
        return replace(base, policy="hpa", signal="busy_ratio", target=0.7)
    if name == "keda":  # requests a second for each replica, at 70 % of what it can do
        return replace(base, policy="keda", signal="arrivals_rps", target=0.7 * plant.capacity_rps)
    if name == "kpa":  # target concurrency 1 at 70 %, decided every 2 s
        return replace(base, policy="kpa", signal="concurrency", target=0.7, sync_s=2.0)
    if name == "llmd":
        return replace(base, policy="llmd", signal="arrivals_rps", target=0.8 * plant.capacity_rps)
    return replace(base, policy=name, signal="arrivals_rps")


def search_hpa(trace: Trace, plant: Plant, *, view: View = View(), keep: int = 3) -> list[tuple[Outcome, ScalingPolicy]]:
    """The cheapest HPA settings in hindsight that keep the promise, found in the fluid model: the strongest opponent of its kind.

    Searches target, scale-down window and lower bound of an HPA on the total arrival rate (which, other than utilisation,
    does not saturate). Where none keeps the promise, the list is empty.
    """
    load = fluid.measured_rate(trace.arrivals, scrape_s=view.scrape_s, window_s=view.rate_window_s)
    top = math.ceil(float(trace.judged.max(initial=0.0)) / plant.capacity_rps)
    floors = sorted({max(1, round(top * part / 10)) for part in range(11)})
    first = first_replicas(trace, plant)
    found: list[tuple[Outcome, ScalingPolicy]] = []
    for target in (0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05):
        for window_s in (0, 60, 300, 900, 3600):  # Kubernetes refuses a window above an hour
            for floor in floors:
                wanted = fluid.hpa_wanted(load, target=target * plant.capacity_rps, window_s=window_s, min_replicas=floor, first=first)
                result = fluid.outcome(fluid.run(trace.arrivals, wanted, plant), skip_s=trace.history_s)
                if result.keeps(start_up_s=plant.start_up_s):
                    settings = ScalingPolicy(
                        policy="hpa",
                        signal="arrivals_rps",
                        target=target * plant.capacity_rps,
                        scale_down_window_s=float(window_s),
                        min_replicas=floor,
                        max_replicas=10_000,
                    )
                    found.append((result, settings))
    return sorted(found, key=lambda row: row[0].cost_s)[:keep]
