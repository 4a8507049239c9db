"""What every verb about releases looks at first: lock, bundle, proof, history and what would serve it. Reads only."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from deployctl.config import locks
from deployctl.core.bundle import Bundle
from deployctl.core.evidence import Evidence
from deployctl.core.lock import Lock
from deployctl.core.planner import Planned, plan
from deployctl.core.project import Project
from deployctl.core.release import History
from deployctl.errors import NotFound
from deployctl.flows._destination import Destination, destination, with_image
from deployctl.flows._environment import added
from deployctl.flows._existing import existing_bundle
from deployctl.flows.compress import KINDS, remembered
from deployctl.flows.package import assemble, pick
from deployctl.ports import Toolbox


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """The facts that a plan rests on, read at one moment."""

    project: Project
    env: str
    bundle: Bundle | None
    sizes: tuple[int, ...]
    lock: Lock
    evidence: Evidence | None
    history: History
    destination: Destination
    now_s: float
    stale: str = ""

    def plan(self, *, unverified: bool = False) -> Planned:
        """The plan that follows; see `core.planner.plan` for what it refuses."""
        planned = plan(
            self.project,
            self.env,
            bundle=self.bundle,
            lock=self.lock,
            evidence=self.evidence,
            triton_version=self.destination.triton_version,
            device=self.destination.device,
            now_s=self.now_s,
            sizes=self.sizes,
            unverified=unverified,
            running=self.history.current.plan.replicas if self.history.current else None,
        )
        placed = dataclasses.replace(planned, plan=dataclasses.replace(planned.plan, cluster=self.destination.cluster))
        return dataclasses.replace(placed, notices=(self.stale, *placed.notices)) if self.stale else placed


def gather(project: Project, env: str, tools: Toolbox, *, bundle: Bundle | None = None, image: str | None = None) -> Situation:
    """Read everything.

    Args:
        project: deploy.yaml, completed.
        env: environment name.
        tools: ports.
        bundle: what was just packaged; None looks for what packaging would give now, without running any of the user's code.
        image: the Triton image that was named by hand, for an environment on Kubernetes.
    """
    place = project.environment(env)
    lock = with_image(place, locks.read(tools.workspace.lock(env), env), image)
    stale = ""
    if bundle is None:
        bundle, stale = packaged(project, tools, lock)
    if bundle is not None:
        lock = dataclasses.replace(lock, bundle=bundle.digest, variant=bundle.variant)
    where = destination(place, lock, bundle, tools)
    lock = dataclasses.replace(lock, triton_version=where.triton_version)
    return Situation(
        project=project,
        env=env,
        bundle=bundle,
        sizes=sample_sizes(tools, bundle) if bundle else (),
        lock=lock,
        evidence=tools.evidence.get(lock.tuned.evidence) if lock.tuned else None,
        history=history(tools, lock),
        destination=where,
        now_s=tools.clock.now_s(),
        stale=stale,
    )


def packaged(project: Project, tools: Toolbox, lock: Lock) -> tuple[Bundle | None, str]:
    """What packaging would give now, as far as that is known without running anything, and a notice where it is not.

    Raises:
        ProjectError, ModelError, SloUnreachable: as `package` would.
    """
    if project.model.kind not in KINDS:
        bundle = added(existing_bundle(project, tools, Silent()), project, tools)
    else:
        record = remembered(project, tools)
        if record is None:
            before = known_bundle(tools, lock.bundle)
            return before, "the model or its sample changed since it was packaged; up packages it anew" if before else ""
        bundle = added(assemble(project.name, record, pick(record.variants, lock.variant), tools), project, tools)
    if known_bundle(tools, bundle.digest) is None:
        return bundle, "this bundle was not proven yet: up packages it first"
    return bundle, ""


class Silent:
    """A Progress that says nothing, for reads that only pass by code that talks."""

    def step(self, message: str) -> None:
        """Nothing."""

    def update(self, message: str) -> None:
        """Nothing."""

    def note(self, message: str) -> None:
        """Nothing."""

    def warn(self, message: str) -> None:
        """Nothing."""


def history(tools: Toolbox, lock: Lock) -> History:
    """All releases, with the holds of this machine and those that the committed lock carries."""
    records = tools.records.history()
    return History(releases=records.releases, held=(*records.held, *(h for h in lock.held if h not in records.held)))


def known_bundle(tools: Toolbox, digest: str | None) -> Bundle | None:
    """The bundle of that digest, None if it was never made or is not on this machine."""
    if digest is None:
        return None
    try:
        return tools.bundles.load(digest)
    except NotFound:
        return None


def sample_sizes(tools: Toolbox, bundle: Bundle) -> tuple[int, ...]:
    """Size bucket of each request in the bundle's sample."""
    return tuple(int(line.get("size", 1)) for line in sample_lines(tools, bundle))


def sample_lines(tools: Toolbox, bundle: Bundle) -> list[dict[str, Any]]:
    """The requests of the bundle's sample, as packaged: `size` and `inputs` each."""
    text = tools.blobs.path(bundle.sample).read_text("utf-8")
    return [json.loads(line) for line in text.splitlines() if line.strip()]
