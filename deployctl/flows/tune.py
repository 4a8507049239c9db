"""tune: profile on a real Triton, search in simulation, confirm by an independent load test, write lock and evidence.

What was measured under the same key is not measured again; a search that misses the SLO writes nothing.
"""

from __future__ import annotations

import dataclasses
import platform
from dataclasses import dataclass

from deployctl.config import locks
from deployctl.core import sizing, tuner, verdict, words
from deployctl.core.bundle import Bundle
from deployctl.core.demand import Demand
from deployctl.core.evidence import Evidence, EvidenceKey
from deployctl.core.lock import Tuned
from deployctl.core.planner import demand_for
from deployctl.core.profile import ServiceProfile
from deployctl.core.project import Environment, Project
from deployctl.core.sizing import Estimate
from deployctl.core.slo import Slo
from deployctl.core.tuner import Tested
from deployctl.errors import Refused, SloUnreachable
from deployctl.flows._gather import sample_sizes
from deployctl.flows._probe import Bench, Probes, probing, stage_models
from deployctl.flows._profile import profile
from deployctl.flows._search import SEED, scenario, searched
from deployctl.flows._warm_start import warm_started
from deployctl.ports import Progress, Toolbox


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What tune found: the proof, every candidate with the reason why it was or was not taken, and the live tests."""

    evidence: Evidence
    estimates: tuple[Estimate, ...]
    tested: tuple[Tested, ...]
    reused: bool


def tune(project: Project, tools: Toolbox, progress: Progress, *, env: str, bundle: Bundle, resume: bool = True) -> Tuning:
    """Find the cheapest settings that keep the SLO on this device, prove them, and write the lock.

    Args:
        project: deploy.yaml, completed.
        tools: ports.
        progress: talk.
        env: environment name.
        bundle: what is packaged.
        resume: take finished measurements and proofs of the same key; False measures everything anew.

    Raises:
        SloUnreachable: no setting keeps the SLO by forecast (`slo-infeasible`, exit 96); none under load (`slo-missed`, 99);
            the load test could not decide (`tune-inconclusive`, 98), or none could (`promise-unprovable`, 98). Nothing is written then.
        Refused: the bundle has no model whose settings may be changed (`nothing-to-tune`).
    """
    place = project.environment(env)
    demand = demand_for(project, sample_sizes(tools, bundle))
    key = EvidenceKey(bundle=bundle.digest, device=tools.launcher.device(), triton_version=tools.launcher.version(), demand=demand, slo=project.slo)
    known = tools.evidence.find(key) if resume else None
    if known is not None and known.verdict.result == "PASS":
        progress.note(f"proven before: {tuner.settings_text(known.settings)}; nothing is measured again")
        _write_lock(tools, env, bundle, known, place)
        return Tuning(evidence=known, estimates=(), tested=(), reused=True)
    _require_provable(project.slo, demand)
    if not any(model.tunable for model in stage_models(bundle)):
        raise Refused(
            "this bundle has no model whose settings may be changed",
            hint="deployctl loadtest judges it as it is; to tune it, let config.pbtxt say dynamic_batching",
            code="nothing-to-tune",
        )
    cpus = tools.launcher.cpus()
    split = (cpus[:-1], cpus[-1:]) if len(cpus) > 1 else ((), ())
    bench = Bench(
        tools=tools,
        progress=progress,
        bundle=bundle,
        demand=demand,
        limit_s=project.slo.latency.max,
        server_cpus=split[0],
        client_cpus=split[1],
    )
    with probing(bench, fresh=not resume) as probes:
        found = warm_started(probes, project, place) if resume else None
        if found is None:
            progress.step("profiling on a real Triton: service time by batch and input size")
            found = searched(probes, profile(probes), project, place)
        evidence = _evidence(key, found.tested[-1], found.profile, probes)
    tools.evidence.save(evidence)
    _write_lock(tools, env, bundle, evidence, place)
    return Tuning(evidence=evidence, estimates=found.estimates, tested=found.tested, reused=False)


def _require_provable(slo: Slo, demand: Demand) -> None:
    """Refuse a search that could not end in a proof, before anything is measured."""
    if demand.arrivals != "trace" and not verdict.provable(slo, demand.peak_rps):
        why = verdict.too_little(slo, demand.peak_rps * verdict.LONGEST_S)
        raise SloUnreachable(
            f"no load test of at most {verdict.LONGEST_S / 60:.0f} min can show this promise at {words.rate(demand.peak_rps)}",
            why=why,
            hint="state a larger slo.errors (1% takes 368 requests) or a lower percentile; nothing was measured",
            code="promise-unprovable",
            exit_code=98,
        )


def _evidence(key: EvidenceKey, chosen: Tested, measured: ServiceProfile, probes: Probes) -> Evidence:
    estimate = chosen.estimate
    assert chosen.verdict is not None
    forecast, seen = estimate.percentile_s, chosen.measured_s
    error = (forecast - seen) / seen if forecast and seen else None
    return Evidence(
        key=key,
        settings=estimate.settings,
        replicas=estimate.replicas,
        profile=measured,
        forecast=dataclasses.replace(estimate.forecast, percentile_s=forecast, error_ratio=error),
        verdict=chosen.verdict,
        error_ratio=error,
        probes=probes.live,
        versions={"python": platform.python_version(), "triton": key.triton_version, "machine": platform.machine()},
    )


def _write_lock(tools: Toolbox, env: str, bundle: Bundle, evidence: Evidence, place: Environment) -> None:
    """Settings, counts and the proof's digest; everything else in the lock stays."""
    path = tools.workspace.lock(env)
    lock = locks.read(path, env)
    if lock.tuned is not None and lock.tuned.evidence == evidence.digest and lock.bundle == bundle.digest:
        return
    model = next(iter(evidence.settings))
    stages = {m.name: m.as_executed for m in stage_models(bundle) if not m.tunable}
    target, carries_rps = sizing.busy_target(
        evidence.profile, {**stages, **evidence.settings}, model, evidence.key.demand, evidence.key.slo, seed=SEED, scenario=scenario(place)
    )
    tuned = Tuned(
        settings=evidence.settings,
        replicas=evidence.replicas,
        max_replicas=sizing.largest_replicas(evidence.key.demand, carries_rps, evidence.replicas, place.limits.max_replicas),
        target=round(target, 3),
        signal="busy_ratio",
        evidence=evidence.digest,
        capacity_rps=round(carries_rps, 3),
    )
    new = dataclasses.replace(lock, bundle=bundle.digest, variant=bundle.variant, triton_version=evidence.key.triton_version, tuned=tuned)
    if new != lock:
        locks.write(path, new)
