"""An environment that commits release, seen live: what enters are commits and the cluster, what leaves are records and a status.

A GitOps controller writes the objects; everything here only reads, and refuses what would have to be a commit. Refuses to know
which controller it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from deployctl.adapters.kubernetes import Cluster
from deployctl.core import gitops, kube_drift, kube_names
from deployctl.core.gitops import Committed
from deployctl.core.kube_inventory import Inventory
from deployctl.core.plan import Plan
from deployctl.core.release import History, Release
from deployctl.errors import NotFound, ProjectError, Refused
from deployctl.hosts.kubernetes.target import KubernetesTarget, stopped, view_status
from deployctl.hosts.kubernetes.writer import Writer
from deployctl.ports import Progress, TargetStatus

Objects = Callable[[], list[dict[str, Any]]]
_ACTIONS: dict[str, Literal["up", "scale", "rollback", "tune"]] = {"rollback": "rollback"}


class _NoLease:
    """Nobody writes here, so nobody has to be first."""

    def token(self) -> int:
        """The lowest there is."""
        return 0


class CommittedRecords:
    """The commits that released, as a RecordStore that is written by committing only."""

    lease = _NoLease()

    def __init__(self, commits: Callable[[], list[Committed]]) -> None:
        self._commits = commits

    def history(self) -> History:
        """Every release commit that this version can read, numbered as `rollback` numbers them."""
        found = self._commits()
        held = found[-1].lock.held if found and found[-1].lock else ()
        return History(releases=tuple(_release(c, c.plan) for c in found if c.plan is not None), held=held)

    def append(self, release: Release, *, expected_parent: str | None) -> None:
        """Refused: a release is a commit (`committed-only`)."""
        raise _by_commit("a release", f"deployctl up --env {release.plan.env}")

    def exclusive(self) -> contextlib.AbstractContextManager[None]:
        """Refused before anything is changed: whoever asks is about to change something (`committed-only`)."""
        raise _by_commit("a change", "change deploy.yaml, commit it, then deployctl up")

    def hold(self, content: str) -> None:
        """Refused: holds stand in the committed lock (`committed-only`)."""
        raise _by_commit("a hold", "deployctl rollback")

    def allow(self, content: str) -> None:
        """Refused: holds stand in the committed lock (`committed-only`)."""
        raise _by_commit("the end of a hold", "deployctl release allow")


class CommittedTarget(KubernetesTarget):
    """The service as its controller has made it; `objects` are the manifests of the last commit."""

    def __init__(self, cluster: Cluster, records: CommittedRecords, *, objects: Objects) -> None:
        super().__init__(cluster, records)  # type: ignore[arg-type]
        self._committed = objects

    def apply(self, release: Release) -> None:
        """Refused: the controller applies (`committed-only`)."""
        raise _by_commit("a change", f"deployctl up --env {release.plan.env}")

    def down(self, progress: Progress) -> None:
        """Refused: the controller would make everything again (`committed-only`)."""
        raise _by_commit("the end of the service", "remove its file under clusters/ from the branch, and delete that object from the cluster")

    def pending(self, plan: Plan) -> list[kube_drift.Difference]:
        """Refused: what the controller applies is a commit (`no-live-objects`)."""
        raise ProjectError(
            f"{plan.env} is released by commits, so what would be written is seen in git",
            hint=f"deployctl diff --env {plan.env} --base HEAD   (and deployctl drift compares the cluster with the last commit)",
            code="no-live-objects",
        )

    def drift(self) -> list[kube_drift.Difference]:
        """Where the cluster differs from the last commit, with who made it so."""
        release = self._wanted()
        if release is None:
            raise NotFound("no commit has released anything here", hint="deployctl up", code="not-running")
        return Writer(self._cluster, release.plan).drift(self._committed())

    def status(self) -> TargetStatus:
        """The live state, and whether the controller has come to the last commit."""
        releases = self._records.history().releases
        if not releases:
            return stopped("no commit has released anything here", None)
        newest = releases[-1]
        view = Writer(self._cluster, newest.plan).view()
        if view is None:
            return stopped("the controller has made nothing yet: is its object under clusters/ applied, and the commit pushed?", newest.revision)
        live = _live_revision(view[0], releases)
        shown = live or newest
        # A controller keeps no record of what it has written: the live Deployment itself says which release it is of.
        inventory = Inventory(owner=kube_names.owner(newest.plan), writer="gitops", wanted=shown, refs=(), applied=shown.digest)
        status = view_status(inventory, newest.plan, *view)
        if live is newest:
            return status
        seen = f"revision {live.revision}" if live else "a release that is in no commit here"
        message = f"the cluster runs {seen}; its controller has not applied revision {newest.revision} yet ({status.message})"
        return dataclasses.replace(status, revision_wanted=newest.revision, phase="rolling", message=message)


def _live_revision(deployment: Any, releases: tuple[Release, ...]) -> Release | None:
    """The newest release whose bundle the cluster's Deployment carries."""
    notes = deployment["spec"]["template"]["metadata"].get("annotations") or {}
    return next((r for r in reversed(releases) if r.plan.bundle == notes.get("deployctl/bundle")), None)


def _release(entry: Committed, plan: Plan) -> Release:
    return Release(
        revision=entry.revision,
        created_at_s=entry.commit.at_s,
        action=_ACTIONS.get(entry.commit.trailers.get(gitops.ACTION, ""), "up"),
        plan=plan,
        reason=f"{entry.commit.id[:12]} {entry.commit.subject}",
        by=entry.commit.by,
        lock=entry.lock,
    )


def _by_commit(what: str, instead: str) -> Refused:
    return Refused(
        f"{what} is a commit in this environment: its writer is gitops",
        why="what is written to the cluster directly, its controller undoes",
        hint=instead,
        code="committed-only",
    )
