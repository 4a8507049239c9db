"""Where an environment's replicas are measured: a project and its bundle enter, ports that start measured replicas leave.

On this machine they are this machine's. On a cluster its pods fetch the bundle from the store, so it is brought there first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from deployctl import scratch
from deployctl.core import manifests
from deployctl.core.bundle import Bundle
from deployctl.core.demand import Demand
from deployctl.core.plan import Plan
from deployctl.core.planner import demand_for
from deployctl.core.project import Project
from deployctl.flows._aim import Aim
from deployctl.flows._gather import gather, sample_sizes
from deployctl.flows._publish import bring
from deployctl.flows._recheck import recheck
from deployctl.flows._verify import share_of
from deployctl.ports import Progress, Toolbox


def measured_plan(project: Project, env: str, tools: Toolbox, progress: Progress, bundle: Bundle) -> Plan:
    """What would be measured: the plan of the environment, proven or not, with its bundle where its replicas find it.

    Raises:
        Refused: an image or a store is not known (`unresolved`); ProjectError, CloudError: see `_publish.publish`.
    """
    plan = gather(project, env, tools, bundle=bundle).plan(unverified=True).plan
    if plan.cluster is not None:
        manifests.require_resolved(plan)
        bring(bundle, plan, tools, progress)
    return plan


def laboratory(project: Project, env: str, tools: Toolbox, progress: Progress, bundle: Bundle, *, fresh: bool = False) -> Toolbox:
    """The ports of the place where the environment's replicas are measured; on a cluster their answers are within the fidelity gate.

    Raises:
        Refused, ProjectError, CloudError: see `measured_plan`. SloUnreachable: see `_recheck.recheck`.
    """
    plan = measured_plan(project, env, tools, progress, bundle)
    lab = tools.measuring(plan)
    if plan.cluster is not None:
        recheck(project, lab, progress, bundle, fresh=fresh)
    return lab


@contextmanager
def isolated(project: Project, env: str, tools: Toolbox, progress: Progress, bundle: Bundle) -> Iterator[tuple[Aim, Toolbox]]:
    """One replica of its own with its share of the traffic, and the ports that send load to it; it ends with the context."""
    plan = measured_plan(project, env, tools, progress, bundle)
    lab = tools.measuring(plan)
    demand = share_of(demand_for(project, sample_sizes(tools, bundle)), plan.replicas, project.slo).demand
    progress.step("starting a replica that only this test reaches")
    with scratch.folder(tools.workspace.state / "bench") as folder:
        lab.repository.build(bundle, folder / "repository", settings=plan.settings)
        server = lab.launcher.start(folder / "repository")
        try:
            yield _aim(project, plan, bundle, tools, server.http_url, demand), lab
        finally:
            server.stop()


def _aim(project: Project, plan: Plan, bundle: Bundle, tools: Toolbox, url: str, demand: Demand) -> Aim:
    facts = {
        "environment": f"{plan.env} (a replica of its own)",
        "variant": bundle.variant,
        "bundle": bundle.digest.removeprefix("sha256:")[:12],
        "traffic": f"one of {plan.replicas} replicas' share",
        "device": plan.device,
        "Triton": plan.triton_version,
    }
    return Aim(
        name=project.name,
        url=url,
        model=bundle.entry,
        bodies=tools.blobs.path(bundle.sample),
        slo=project.slo,
        demand=demand,
        own=False,
        environment=facts,
        content=bundle.digest,
    )
