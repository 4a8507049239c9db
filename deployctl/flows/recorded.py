"""A service without its checkout: what the records say stands in for deploy.yaml. Reads only."""

from __future__ import annotations

from deployctl.core.plan import Plan
from deployctl.core.project import Environment, Limits, ModelSource, Project, Traffic
from deployctl.core.release import Release
from deployctl.errors import NotFound
from deployctl.ports import Toolbox


def project(tools: Toolbox) -> Project:
    """What the newest release tells of its project; the model's source is not in a record.

    Raises:
        NotFound: nothing was ever released (`nothing-released`).
    """
    current = tools.records.history().current
    if current is None:
        raise NotFound("nothing was released here yet", hint="deployctl up, in the project's folder", code="nothing-released")
    return _project(current.plan)


def release(tools: Toolbox) -> tuple[Release, bool]:
    """The newest release, and whether it is what serves now.

    Raises:
        NotFound: nothing was ever released (`nothing-released`).
    """
    current = tools.records.history().current
    if current is None:
        raise NotFound("nothing was released here yet", hint="deployctl up, in the project's folder", code="nothing-released")
    return current, tools.target.status().revision_serving == current.revision


def _project(plan: Plan) -> Project:
    cluster = plan.cluster
    place = Environment(
        name=plan.env,
        on=plan.target,
        context=cluster.context if cluster else None,
        namespace=cluster.namespace if cluster else "default",
        pool=cluster.pool.name if cluster else None,
        image=cluster.image if cluster else None,
        store=cluster.store if cluster else None,
        store_region=cluster.store_region if cluster else None,
        store_endpoint=cluster.store_endpoint if cluster else None,
        limits=Limits(),
    )
    return Project(
        name=plan.service,
        model=ModelSource(kind="opaque", value="(recorded)"),
        slo=plan.slo,
        traffic=Traffic(steps=plan.demand.steps, mix=plan.demand.mix),
        environments=(place,),
    )
