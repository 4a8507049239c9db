"""render: the Kubernetes objects of an environment as files that a review can read and Argo CD or Flux can apply.

Reads deploy.yaml, the lock and the packaged bundle; runs no user code, asks no cluster. The same input gives the same
bytes on every machine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from deployctl import share
from deployctl.config import locks
from deployctl.core import kube_names, lint, manifests, words
from deployctl.core.bundle import Bundle
from deployctl.core.demand import SizeShare
from deployctl.core.evidence import Evidence
from deployctl.core.lock import Lock
from deployctl.core.manifests.workload import SCRIPTS
from deployctl.core.plan import Plan
from deployctl.core.planner import plan as plan_of
from deployctl.core.project import Project
from deployctl.core.serving import ServingConfig
from deployctl.flows._destination import destination, on_cluster, with_image
from deployctl.flows._gather import known_bundle, packaged, sample_sizes
from deployctl.flows._render_files import HEADER, Rendered, beside, check, committed_bundle, file_name, released, write
from deployctl.flows.compress import KINDS
from deployctl.ports import Toolbox


def render(project: Project, env: str, tools: Toolbox, *, image: str | None = None, lock: Lock | None = None, unverified: bool = True) -> Rendered:
    """Compute every manifest of the environment.

    Args:
        project: deploy.yaml, completed.
        env: environment name.
        tools: ports.
        image: the Triton image, NAME@sha256:…; None takes the lock's.
        lock: what to render instead of the environment's own lock.
        unverified: take settings whose proof is for something else, with a notice.

    Raises:
        ProjectError, Refused: see `core.kube_place`, `core.planner` and `core.manifests`.
        NotFound: the lock names a bundle that is not on this machine (`bundle-not-found`).
    """
    place = project.environment(env)
    lock = with_image(place, lock or locks.read(tools.workspace.lock(env), env), image)
    cluster = on_cluster(place, lock)
    bundle = bundle_of(project, tools, lock)
    evidence = tools.evidence.get(lock.tuned.evidence) if lock.tuned else None
    where = destination(place, lock, bundle, tools)
    planned = plan_of(
        _with_mix(project, tools, bundle, _mixes(evidence, released(tools, env))),
        env,
        bundle=bundle,
        lock=lock,
        evidence=evidence,
        triton_version=where.triton_version,
        device=where.device,
        now_s=tools.clock.now_s(),
        sizes=sample_sizes(tools, bundle) if bundle and tools.blobs.has(bundle.sample) else (),
        unverified=unverified,
    )
    made: Plan = dataclasses.replace(planned.plan, cluster=cluster)

    def config_text(packed: Bundle, model: str, serving: ServingConfig) -> str:
        return tools.repository.config_text(packed, model, serving, native=True)

    inputs = manifests.gather(made, bundle, config_text, {name: share.text(f"kube/{name}") for name in SCRIPTS}, "gitops")
    objects = manifests.objects(inputs)
    return Rendered(
        inputs=inputs,
        files={file_name(item): HEADER + kube_names.yaml_text(item) for item in objects},
        unresolved=tuple(manifests.unresolved(made)),
        notices=planned.notices,
        # An image that is not known yet is reported as that, not a second time as unpinned.
        findings=tuple(f for f in lint.lint(objects) if cluster.image or f.name != "unpinned-image"),
    )


def pin_image(project: Project, env: str, tools: Toolbox, image: str) -> None:
    """Remember the Triton image in the lock; see `_destination.with_image` for what is refused."""
    path = tools.workspace.lock(env)
    locks.write(path, with_image(project.environment(env), locks.read(path, env), image))


def pin_bundle(tools: Toolbox, rendered: Rendered) -> str | None:
    """Remember what was packaged in a lock that names nothing yet; the bundle in short, None where nothing was written."""
    plan = rendered.inputs.plan
    path = tools.workspace.lock(plan.env)
    lock = locks.read(path, plan.env)
    if lock.bundle is not None or plan.bundle is None:
        return None
    locks.write(path, dataclasses.replace(lock, bundle=plan.bundle, variant=plan.variant))
    return words.short(plan.bundle)


def bundle_of(project: Project, tools: Toolbox, lock: Lock) -> Bundle | None:
    """The bundle that the lock names, else what was packaged here; its file list may stand beside the lock instead of in the store.

    Raises:
        NotFound: the lock names a bundle that is neither here nor committed (`bundle-not-found`).
    """
    if project.model.kind not in KINDS or lock.bundle is None:
        packed, stale = packaged(project, tools, lock)  # an existing repository's own files are what its configuration is read from
        if lock.bundle is None:
            return None if stale else packed
    here = known_bundle(tools, lock.bundle)
    return here or committed_bundle(tools, lock.bundle) or tools.bundles.load(lock.bundle)


def _with_mix(project: Project, tools: Toolbox, bundle: Bundle | None, mixes: Mapping[str, tuple[SizeShare, ...]]) -> Project:
    """Where the sample's content is not here (a fresh clone in CI), its mix is what a committed record for the same bundle says."""
    if bundle is None or project.traffic.mix or tools.blobs.has(bundle.sample) or bundle.digest not in mixes:
        return project
    return dataclasses.replace(project, traffic=dataclasses.replace(project.traffic, mix=mixes[bundle.digest]))


def _mixes(evidence: Evidence | None, released: Plan | None) -> dict[str, tuple[SizeShare, ...]]:
    """Bundle -> the mix of its sample, as the proof or else the last release has it."""
    found = {released.bundle: released.demand.mix} if released is not None and released.bundle is not None else {}
    return found | ({evidence.key.bundle: evidence.key.demand.mix} if evidence is not None else {})


__all__ = ["HEADER", "Rendered", "beside", "check", "pin_bundle", "pin_image", "render", "write"]
