"""The search for settings: every candidate by forecast, then live tests until one keeps the SLO. Writes nothing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

from deployctl.core import queueing, sizing, tuner, words
from deployctl.core.profile import ServiceProfile
from deployctl.core.project import Environment, Project
from deployctl.core.serving import ServingConfig
from deployctl.core.simulate import Scenario, warm
from deployctl.core.sizing import Estimate
from deployctl.core.slo import Slo
from deployctl.core.tuner import Tested
from deployctl.core.words import count
from deployctl.errors import SloUnreachable
from deployctl.flows._probe import BATCHES, Bench, Probes, stage_models
from deployctl.flows._verify import verify

SEED = 1
_SCREENING = 12_000  # simulated requests a candidate
_LIMIT_REPLICAS = 64
_ROUNDS = 2  # over the stages of an ensemble


def scenario(place: Environment) -> Scenario:
    """Local replicas share this machine's cores; those of a cluster have their own."""
    return Scenario(requests=_SCREENING, cores_shared=place.on == "local")


def search(measured: ServiceProfile, bench: Bench, project: Project, place: Environment) -> list[Estimate]:
    """Every candidate with its forecast; the formula rules out what cannot carry the rate, the simulator judges the rest.

    Raises:
        SloUnreachable: none keeps the SLO (`slo-infeasible`).
    """
    limit = place.limits.max_replicas or _LIMIT_REPLICAS
    stages = {p.model: p for p in measured.stages}
    names = [m.name for m in stage_models(bench.bundle) if m.tunable]
    largest = min(max((p.batch for p in stages[n].points), default=1) for n in names)
    axes = tuner.Axes(
        max_batch=tuple(b for b in BATCHES if b <= largest),
        instances=tuple(range(1, max(1, min(int(measured.cores) + 1, 4)) + 1)),
        preferred_batches={m.name: m.serving.preferred_batches for m in stage_models(bench.bundle) if m.serving.preferred_batches},
    )
    kept = {m.name: m.as_executed for m in stage_models(bench.bundle) if not m.tunable}

    def judged(settings: dict[str, ServingConfig]) -> Estimate:
        everything = {**kept, **settings}
        capacity = queueing.capacity_rps(measured, everything, bench.demand)
        hopeless = capacity * limit < bench.demand.peak_rps  # not even with cores for each of them
        found = sizing.size(measured, everything, bench.demand, project.slo, limit=1 if hopeless else limit, seed=SEED, scenario=scenario(place))
        if found.keeps:
            found = sizing.stressed(found, measured, everything, bench.demand, project.slo, seed=SEED, scenario=scenario(place))
        return dataclasses.replace(found, settings=settings, cost=sizing.cost(settings, found.replicas, shared_machine=place.on == "local"))

    estimates = [judged(settings) for settings in tuner.candidates(axes, names)]
    if len(names) > 1:
        estimates += _jointly(estimates, names, axes, judged)
    bench.progress.note(f"{count(len(estimates), 'candidate')}, {sum(e.keeps for e in estimates)} keep the SLO by forecast")
    if not any(e.keeps for e in estimates):
        raise _infeasible(estimates, limit, measured, bench, project.slo, scenario(place), kept)
    return estimates


def _infeasible(
    estimates: list[Estimate], limit: int, measured: ServiceProfile, bench: Bench, slo: Slo, run: Scenario, kept: dict[str, ServingConfig]
) -> SloUnreachable:
    """What came closest, and the nearest promises that can be kept: a longer limit at this traffic, or this limit at less traffic."""
    reason = tuner.infeasible(estimates, limit)
    ways = []
    promise_s = tuner.nearest_promise_s(reason.best, sizing.MARGIN_RATIO)
    if promise_s is not None:
        ways.append(f"p{slo.latency.percentile:g}: {words.seconds(promise_s)} at {words.rate(bench.demand.peak_rps)}")
    rate_rps = max(
        sizing.busy_target(measured, {**kept, **e.settings}, next(iter(e.settings)), bench.demand, slo, seed=SEED, scenario=run, replicas=limit)[1]
        for e in _strongest(estimates, measured, bench, kept)
    )
    if rate_rps > 0:
        ways.append(f"{words.seconds(slo.latency.max)} at {words.rate(rate_rps)}")
    nearest = f"; by forecast it keeps {' or '.join(ways)}" if ways else "; it keeps no such limit at any rate"
    hint = "promise one of these in deploy.yaml, raise limits.replicas, or try a smaller variant (deployctl compress)"
    if measured.of_busy_machine:
        nearest += f"; other work took {measured.others_ratio:.0%} of the cores while the profile was measured"
        hint = f"deployctl tune --fresh   (on a quieter machine); else {hint}"
    error = SloUnreachable("no setting keeps the SLO on this device by forecast", why=reason.reason + nearest, hint=hint, code="slo-infeasible")
    error.candidates = tuple(tuner.nearest(estimates))
    return error


def _strongest(estimates: list[Estimate], measured: ServiceProfile, bench: Bench, kept: dict[str, ServingConfig]) -> list[Estimate]:
    """The candidates that carry most, and the quickest one: among them is the one that keeps the limit at the highest rate."""
    by_capacity = sorted(estimates, key=lambda e: queueing.capacity_rps(measured, {**kept, **e.settings}, bench.demand), reverse=True)
    quickest = min(estimates, key=lambda e: e.percentile_s if e.percentile_s is not None else math.inf)
    return [*by_capacity[:4], quickest]


def _jointly(estimates: list[Estimate], names: list[str], axes: tuner.Axes, judged: Callable[[dict[str, ServingConfig]], Estimate]) -> list[Estimate]:
    """An ensemble's stages apart from each other: from the best equal settings, one stage at a time while that makes it better.

    The bottleneck comes first: it decides what the whole can carry; the others then give back what they do not need.
    """
    found: list[Estimate] = []
    kept = tuner.ranked(estimates)
    for _ in range(_ROUNDS if kept else 0):
        before = kept[0]
        for name in sorted(names, key=lambda n: n != before.forecast.bottleneck):
            known = [e.settings for e in (*estimates, *found)]
            found += [judged(s) for s in tuner.variations(kept[0].settings, name, axes) if s not in known]
            kept = tuner.ranked([*estimates, *found])
        if kept[0] is before:
            break
    return found


def confirm(probes: Probes, estimates: list[Estimate], project: Project, place: Environment) -> list[Tested]:
    """Live tests until one keeps the SLO; raises as `tune` does."""
    history: list[Tested] = []
    while True:
        step = tuner.propose(history, estimates, limit_s=project.slo.latency.max)
        if isinstance(step, tuner.Done):
            break
        one_of = step.estimate.replicas if place.on != "local" else 1
        what = f"one of {one_of} replicas, with its share of the traffic," if one_of > 1 else count(step.estimate.replicas, "replica")
        probes.bench.progress.step(f"load test of {what} with {tuner.settings_text(step.estimate.settings)} ({step.reason})")
        tested = verify(probes, step.estimate, project.slo, one_of=one_of)
        history.append(tested)
        probes.bench.progress.note(_outcome(tested))
    if step.chosen is not None:
        return history
    undecided = any(t.verdict is not None and t.verdict.result == "INCONCLUSIVE" for t in history)
    raise SloUnreachable(
        "the load test could not decide whether the SLO is kept" if undecided else "no setting kept the SLO under load",
        why=f"{step.reason}; last: {_outcome(history[-1])}" if history else step.reason,
        hint="deployctl tune --fresh   (on an idle machine), or give slo.latency more room; nothing was written",
        code="tune-inconclusive" if undecided else "slo-missed",
        exit_code=98 if undecided else 99,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A search that ended in a proof: the profile behind it, every candidate, and the live tests, of which the last one passed."""

    profile: ServiceProfile
    estimates: tuple[Estimate, ...]
    tested: tuple[Tested, ...]


def searched(probes: Probes, measured: ServiceProfile, project: Project, place: Environment) -> Found:
    """Candidates by forecast, then live tests, after the profiled server has been stopped; raises as `tune` does."""
    probes.close()
    probes.bench.progress.step("searching in simulation")
    warm(probes.bench.progress)
    estimates = search(measured, probes.bench, project, place)
    return Found(profile=measured, estimates=tuple(estimates), tested=tuple(confirm(probes, estimates, project, place)))


def _outcome(tested: Tested) -> str:
    if tested.verdict is None:
        return f"the test failed: {tested.error}"
    expected = tested.estimate.percentile_s or 0.0
    seen = "no estimate" if tested.measured_s is None else f"{tested.measured_s * 1e3:.1f} ms at the client (forecast {expected * 1e3:.1f} ms)"
    counts = f"{tested.verdict.result}: {seen}; {tested.verdict.requests:,} requests, {tested.verdict.failed} failed"
    doubts = [o.reason for o in tested.verdict.objectives if o.result != "PASS"]
    return "; ".join([counts, *doubts])
