"""From what a person said and what was measured to the desired world: Project + lock + proof -> Plan. Pure.

What enters are values; what leaves is a Plan with every number explicit, and sentences that a person must see. An SLO that
needs more than a limit allows is infeasible, never quietly exceeded; settings whose proof is for something else are refused.
Refuses to know files, clocks and servers.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from deployctl.core import cost
from deployctl.core.bundle import Bundle
from deployctl.core.cost import CostSpan
from deployctl.core.decision import ScalingPolicy
from deployctl.core.demand import Demand, SizeShare
from deployctl.core.evidence import Evidence, EvidenceKey
from deployctl.core.lock import Lock, ScaleOverride, Tuned
from deployctl.core.plan import Plan
from deployctl.core.project import Environment, Limits, Project
from deployctl.core.serving import ServingConfig
from deployctl.core.words import bounds, command, duration
from deployctl.errors import ProjectError, Refused, SloUnreachable

# Busy share per replica that an untuned service scales at: at 70 % of an M/M/1 server's capacity the mean wait is 2.3
# service times, which leaves room for a start. `tune` replaces it by a measured target.
UNTUNED_BUSY_RATIO = 0.7
# Triton before release 25.04 (core 2.57.0) can crash while it traces at a high rate (server issue 7795).
SAFE_TRACING = (2, 57, 0)
TRACE_RATIO = 0.01
SMALL_LOAD_RPS = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan, and what a person should know about it.

    Attributes:
        plan: the desired world.
        notices: sentences, most important first.
        proven: whether a proof for exactly this bundle, device, Triton, traffic and SLO stands behind the settings.
        cores: cores reserved by all replicas at the starting number; the local unit of cost is the core-second.
        cost: of the nodes at the lowest, the starting and the largest number of replicas; None on this machine.
    """

    plan: Plan
    notices: tuple[str, ...]
    proven: bool
    cores: int
    cost: CostSpan | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Count:
    low: int
    start: int
    high: int


def demand_for(project: Project, sizes: Sequence[int]) -> Demand:
    """The traffic of deploy.yaml, completed: an empty mix is taken from the size buckets of the sample's requests.

    Args:
        project: what deploy.yaml says.
        sizes: size bucket of each line of the sample; empty means that all requests have one size.
    """
    traffic = project.traffic
    mix = traffic.mix or mix_of(sizes)
    trace = traffic.trace_times_s
    return Demand(
        steps=traffic.steps,
        arrivals="trace" if trace is not None else traffic.arrivals,
        cv=traffic.cv,
        mix=mix,
        repeat_ratio=traffic.repeat_ratio,
        times_s=trace,
    )


def mix_of(sizes: Sequence[int]) -> tuple[SizeShare, ...]:
    """Shares of each size bucket, smallest first; one bucket of size 1 for no sizes."""
    counts = sorted(Counter(sizes or [1]).items())
    total = sum(n for _, n in counts)
    return tuple(SizeShare(size=size, share_ratio=n / total) for size, n in counts)


def plan(  # noqa: PLR0913 - the facts a plan rests on, each by name
    project: Project,
    env: str,
    *,
    bundle: Bundle | None,
    lock: Lock,
    evidence: Evidence | None,
    triton_version: str,
    device: str,
    now_s: float,
    sizes: Sequence[int] = (),
    unverified: bool = False,
    running: int | None = None,
) -> Planned:
    """The desired world of one environment.

    Args:
        project: deploy.yaml, completed.
        env: the environment's name.
        bundle: what is packaged; None while unresolved (the plan then says so and `up` refuses it).
        lock: tuned settings and overrides.
        evidence: the record that `lock.tuned.evidence` names; None if it is not there.
        triton_version: version of the server that would serve it.
        device: what it would run on, key of the evidence.
        now_s: Unix time, for overrides that run out.
        sizes: size buckets of the sample.
        unverified: take tuned settings whose proof is for something else, with a notice.
        running: replicas that the newest release starts with: an autoscaled service goes on from there, within its bounds.

    Raises:
        ProjectError: no such environment (`env-unknown`).
        SloUnreachable: the SLO needs more replicas than the limits allow (`slo-over-limit`, `slo-over-cost`, exit 96).
        Refused: tuned settings are not proven for this (`unproven`), or an override or the bounds break a limit (`over-limit`, `over-cost`).
    """
    place = _environment(project, env)
    demand = demand_for(project, sizes)
    notices: list[str] = []
    tuned = lock.tuned if bundle is not None else None
    key = EvidenceKey(bundle=bundle.digest, device=device, triton_version=triton_version, demand=demand, slo=project.slo) if bundle else None
    proven = tuned is not None and key is not None and _check_proof(key, evidence, notices, unverified=unverified)
    if tuned is None:
        _untuned(place, device, notices, unverified=unverified)
    if bundle is None:
        notices.insert(0, "nothing is packaged yet: the bundle is unresolved until deployctl package has run")
    override = live_override(lock, now_s, notices)
    count = _replicas(place.limits, tuned, override, notices)
    start = count.start if running is None else min(max(running, count.low), count.high)
    money = cost.within_limit(place, count.low, start, count.high, notices) if place.on != "local" else None
    proof = evidence if proven else None
    settings = _settings(bundle, tuned)
    result = Plan(
        service=project.name,
        env=env,
        target=place.on,
        bundle=bundle.digest if bundle else None,
        entry=bundle.entry if bundle else project.name,
        variant=bundle.variant if bundle else lock.variant,
        settings=settings,
        replicas=start,
        scaling=_scaling(place, tuned, proof, count, notices),
        slo=project.slo,
        demand=demand,
        triton_version=triton_version,
        device=device,
        ports=place.ports,
        forecast=proof.forecast if proof and start >= proof.replicas else None,
        evidence=proof.digest if proof else None,
        trace_ratio=trace_ratio(triton_version, demand.peak_rps),
    )
    if override is not None and override.until_s is not None:
        after = _scaling(place, tuned, proof, _replicas(place.limits, tuned, None, []), [])
        result = dataclasses.replace(result, scaling_until_s=override.until_s, scaling_after=after)
    if place.limits.cost_per_day is not None and place.on == "local":
        notices.append("limits.cost is not checked here: this machine has no price; cost is counted in core-seconds")
    return Planned(plan=result, notices=tuple(notices), proven=proven, cores=start * cores_per_replica(settings), cost=money)


def rescaled(plan: Plan, project: Project, *, lock: Lock, evidence: Evidence | None, now_s: float, running: int) -> Planned:
    """The same content with other counts: what `scale` releases.

    Args:
        plan: what runs now.
        project: deploy.yaml, for its limits.
        lock: with the wanted override, or without one for a reset.
        evidence: the record behind the plan, None without one.
        now_s: Unix time.
        running: replicas that are wanted now; the new number starts from there, within the new bounds.

    Raises:
        Refused: the override breaks a limit (`over-limit`); SloUnreachable: a reset needs more than the limit.
    """
    place = _environment(project, plan.env)
    notices: list[str] = []
    override = live_override(lock, now_s, notices)
    count = _replicas(place.limits, lock.tuned, override, notices)
    start = min(max(running, count.low), count.high)
    scaling = dataclasses.replace(plan.scaling, min_replicas=count.low, max_replicas=count.high)
    after = None
    if override is not None and override.until_s is not None:
        free = _replicas(place.limits, lock.tuned, None, [])
        after = dataclasses.replace(scaling, min_replicas=free.low, max_replicas=free.high)
    proof = evidence if evidence is not None and evidence.digest == plan.evidence else None
    result = dataclasses.replace(
        plan,
        replicas=start,
        scaling=scaling,
        forecast=proof.forecast if proof and start >= proof.replicas else None,
        scaling_until_s=override.until_s if override else None,
        scaling_after=after,
    )
    return Planned(plan=result, notices=tuple(notices), proven=proof is not None, cores=start * cores_per_replica(plan.settings))


def live_override(lock: Lock, now_s: float, notices: list[str] | None = None) -> ScaleOverride | None:
    """The manual scale that still holds; one whose time has run out counts as none, with a notice."""
    override = lock.override
    if override is None:
        return None
    notices = notices if notices is not None else []
    span = bounds(override.min_replicas, override.max_replicas)
    if override.until_s is not None and override.until_s <= now_s:
        notices.append(f"the manual scale to {span} has run out; the policy decides again")
        return None
    why = f" ({override.reason})" if override.reason else ""
    left = f" for {duration(override.until_s - now_s)} more" if override.until_s is not None else ""
    notices.append(f"replicas are set by hand to {span}{left}{why}; deployctl scale --reset gives them back to the policy")
    return override


def cores_per_replica(settings: dict[str, ServingConfig]) -> int:
    """Cores that one replica reserves: one for each model instance, at least one."""
    return max(1, sum(s.instances for s in settings.values()))


def trace_ratio(triton_version: str, peak_rps: float) -> float:
    """Share of requests that Triton traces: 1 in 100, and none where tracing under load could crash it."""
    numbers = tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in triton_version.split(".")[:3])
    return TRACE_RATIO if numbers >= SAFE_TRACING or peak_rps <= SMALL_LOAD_RPS else 0.0


def _environment(project: Project, env: str) -> Environment:
    try:
        return project.environment(env)
    except KeyError:
        known = ", ".join(e.name for e in project.environments)
        raise ProjectError(
            f"deploy.yaml has no environment {env!r}",
            why=f"it has: {known}",
            hint="choose one with --env, or add it to deploy.yaml",
            code="env-unknown",
        ) from None


def _untuned(place: Environment, device: str, notices: list[str], *, unverified: bool) -> None:
    """A service that was never tuned may run on this machine, with a notice; elsewhere only on demand."""
    if place.on != "local" and not unverified:
        raise Refused(
            f"nothing proves that this service keeps its SLO on {device}",
            why="it was never tuned",
            hint=f"deployctl tune --env {place.name}   (or deployctl up --unverified)",
            code="unproven",
        )
    notices.append(f"not proven on {device}: the packaged settings are defaults; run {command('tune', place.name)}")


def _check_proof(key: EvidenceKey, evidence: Evidence | None, notices: list[str], *, unverified: bool) -> bool:
    """Whether the tuned settings are proven for exactly this; else a refusal, or a notice with `unverified`."""
    reasons = mismatches(key, evidence)
    if not reasons:
        return True
    if not unverified:
        raise Refused(
            f"the tuned settings are not proven for {key.device}",
            why="; ".join(reasons),
            hint="deployctl tune   (or deployctl up --unverified to run them without proof)",
            code="unproven",
        )
    notices.append(f"not proven: {'; '.join(reasons)}; you asked for --unverified")
    return False


def mismatches(key: EvidenceKey, evidence: Evidence | None) -> list[str]:
    """Why a proof does not count for `key`, one phrase a reason; empty means that it counts."""
    if evidence is None:
        return ["the evidence file that the lock names is missing"]
    seen = evidence.key
    pairs = {
        "device": (seen.device, key.device),
        "Triton": (seen.triton_version, key.triton_version),
        "bundle": (seen.bundle[:19], key.bundle[:19]),
    }
    reasons = [f"the proof is for {what} {was}, this is {now}" for what, (was, now) in pairs.items() if was != now]
    if seen.demand != key.demand:
        reasons.append(
            f"the proof is for other traffic ({seen.demand.peak_rps:g}/s {seen.demand.arrivals}; now {key.demand.peak_rps:g}/s {key.demand.arrivals})"
        )
    if seen.slo != key.slo:
        was, now = seen.slo.latency, key.slo.latency
        reasons.append(f"the proof is for another SLO (p{was.percentile:g} {was.max * 1e3:g} ms; now p{now.percentile:g} {now.max * 1e3:g} ms)")
    if evidence.verdict.result != "PASS":
        reasons.append(f"its verdict is {evidence.verdict.result}")
    return reasons


def _replicas(limits: Limits, tuned: Tuned | None, override: ScaleOverride | None, notices: list[str]) -> _Count:
    """Bounds and starting number, explicit: a person's override, else what tuning proved, else the limits, else 1."""
    cap = limits.max_replicas
    if override is not None:
        if cap is not None and override.max_replicas > cap:
            raise Refused(
                f"the manual scale to {override.max_replicas} replicas is over the limit of {cap}",
                why="limits.replicas in deploy.yaml is a hard bound",
                hint=f"deployctl scale {cap}   (or raise the limit in deploy.yaml)",
                code="over-limit",
            )
        low, high = override.min_replicas, override.max_replicas
        if tuned is not None and high < tuned.replicas:
            notices.append(f"{bounds(low, high)} is below the {tuned.replicas} replicas that the SLO was proven with")
        start = min(max(tuned.replicas if tuned else low, low), high)
        return _Count(low=low, start=start, high=high)
    if tuned is not None:
        if cap is not None and tuned.replicas > cap:
            raise SloUnreachable(
                f"the SLO needs {tuned.replicas} replicas and the limit is {cap}",
                why="limits.replicas in deploy.yaml is a hard bound",
                hint="raise the limit, loosen the SLO, or run deployctl tune with smaller variants",
                code="slo-over-limit",
            )
        low = max(tuned.replicas, limits.min_replicas or 1)
        high = max(low, tuned.max_replicas)
        return _Count(low=low, start=low, high=high if cap is None else min(high, cap))
    low = limits.min_replicas or 1
    return _Count(low=low, start=low, high=low)


def _settings(bundle: Bundle | None, tuned: Tuned | None) -> dict[str, ServingConfig]:
    """Settings of every tunable model, explicit, so that a diff of two plans shows all that changed."""
    if bundle is None:
        return {}
    chosen = tuned.settings if tuned else {}
    return {m.name: chosen.get(m.name, m.serving) for m in bundle.models if m.tunable}


def _scaling(place: Environment, tuned: Tuned | None, proof: Evidence | None, count: _Count, notices: list[str]) -> ScalingPolicy:
    spec = place.scaling
    target = spec.target if spec.target is not None else (tuned.target if tuned else UNTUNED_BUSY_RATIO)
    if count.low < count.high and tuned is None and spec.target is None:
        notices.append(f"scaling aims at {UNTUNED_BUSY_RATIO:.0%} busy, a default; {command('tune', place.name)} measures a target")
    cold = proof.profile.cold_start if proof else None
    policy = ScalingPolicy(
        policy=spec.policy,
        min_replicas=count.low,
        max_replicas=count.high,
        target=target,
        signal=tuned.signal if tuned else "busy_ratio",
        capacity_rps=tuned.capacity_rps if tuned else 0.0,
        sync_s=spec.sync_s,
        tolerance_ratio=spec.tolerance_ratio,
        scale_up_window_s=spec.scale_up_window_s,
        scale_down_window_s=spec.scale_down_window_s,
    )
    return dataclasses.replace(policy, start_up_s=cold.total_s) if cold else policy
