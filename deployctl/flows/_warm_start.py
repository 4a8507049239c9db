"""A profile to begin with: an earlier bundle's, scaled by a few probed points of this one. Measures; writes nothing.

It only decides what is tested first. Settings are proven by the same load test as any others, and where that does not bear the guess out the
bundle is profiled in full (`flows/tune.py`).
"""

from __future__ import annotations

import dataclasses

from deployctl.core import tuner, warmstart
from deployctl.core.profile import ColdStart, ServicePoint, ServiceProfile
from deployctl.core.project import Environment, Project
from deployctl.core.serving import ModelSpec
from deployctl.core.words import count
from deployctl.errors import SloUnreachable
from deployctl.flows._probe import BATCHES, Probes, stage_models
from deployctl.flows._profile import Part, measure_batch, measured_sizes
from deployctl.flows._search import Found, searched


def warm_started(probes: Probes, project: Project, place: Environment) -> Found | None:
    """The search from an earlier bundle's profile; None where there is none, or a load test does not bear it out."""
    guess = _guess(probes)
    if guess is None:
        return None
    try:
        found = searched(probes, guess, project, place)
    except SloUnreachable as error:
        probes.bench.progress.note(f"{error.message}, by the scaled profile; profiling in full before anything is said")
        return None
    if tuner.too_dear(found.tested[-1], found.estimates):
        probes.bench.progress.note("the service is faster than the scaled profile says, and something cheaper may do; profiling in full")
        return None
    return found


def _guess(probes: Probes) -> ServiceProfile | None:
    """The nearest earlier profile, scaled; None where there is none for this place, or none that the probed points fit."""
    bench, tools = probes.bench, probes.bench.tools
    place = warmstart.Place(bundle=bench.bundle.digest, device=tools.launcher.device(), triton_version=tools.launcher.version(), cores=bench.cores)
    models = stage_models(bench.bundle)
    known = warmstart.earlier([e.profile for e in tools.evidence.all()], place, [m.name for m in models])
    if not known:
        return None
    bench.progress.step(f"probing a few points; {count(len({p.bundle for p in known}), 'other bundle')} of this service were profiled here before")
    seen = {m.name: probes.once(Part, "probe", lambda m=m: _probe(probes, m), model=m.name, demand=bench.demand).points for m in models}  # type: ignore[misc]
    found = warmstart.nearest(known, seen, place)
    if found is None:
        bench.progress.note("no earlier profile fits what was probed; profiling in full")
        return None
    factors = ", ".join(f"{model} takes {factor:.2f} times as long" for model, factor in found.factors.items())
    bench.progress.note(f"scaled from bundle {found.profile.scaled_from[7:19]}: {factors} (off by {found.misfit_ratio:.0%} at the checked points)")
    return dataclasses.replace(found.profile, cold_start=probes.once(ColdStart, "cold-start", probes.started))


def _probe(probes: Probes, model: ModelSpec) -> Part:
    """The points that `warmstart.probed` names, in its order."""
    demand = probes.bench.demand
    sizes = measured_sizes(demand)
    busiest = max(demand.mix, key=lambda s: s.share_ratio).size
    usual = min(sizes, key=lambda s: abs(s - busiest))
    wanted = warmstart.probed(sizes, usual, BATCHES[-1] if model.tunable else model.as_executed.max_batch)
    found: list[ServicePoint] = []
    cpu_ratio = 0.0
    for batch in dict.fromkeys(batch for batch, _ in wanted):
        part = measure_batch(probes, model, batch, [s for b, s in wanted if b == batch])
        found += part.points
        cpu_ratio = max(cpu_ratio, part.cpu_ratio)
    order = {place: i for i, place in enumerate(wanted)}
    return Part(points=tuple(sorted(found, key=lambda p: order[p.batch, p.size])), cpu_ratio=cpu_ratio)
