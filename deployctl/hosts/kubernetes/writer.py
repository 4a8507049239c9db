"""The writer `apply`: server-side apply with an inventory that prunes. Writes nothing that is already so.

Order, so that a kill at any moment leaves nothing unknown and the same command finishes: inventory with old and new
references, objects, removal of what is no longer wanted, inventory with the new references. Content that pods of an older
release still mount is kept until those pods are gone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from deployctl.adapters.kubernetes import ApplyConflict
from deployctl.core import kube_drift, kube_inventory, kube_names, kube_rollout
from deployctl.core.kube_inventory import Inventory, Ref
from deployctl.core.manifests import Manifest, cluster_of
from deployctl.core.plan import Plan
from deployctl.core.platform import Writer as WriterName
from deployctl.core.release import Release
from deployctl.errors import LockHeld, Refused

# Holds `replicas` when an autoscaler takes the number over, so that leaving the field out does not reset it to one.
HANDOVER = "deployctl-handover"
_LOOKS = 4
_TRIES = 20  # of a write that is void if somebody changed the object since it was read; a young Deployment's status changes often
_SCALERS = {"kube-controller-manager", "keda", HANDOVER}
Live = dict[str, Any]


class Api(Protocol):
    """What the writer needs of a cluster (`adapters.kubernetes.Cluster`)."""

    def apply(self, wanted: Live, *, manager: str = ..., dry_run: bool = ..., force: bool = ...) -> Live:
        """Server-side apply."""
        ...

    def create(self, wanted: Live) -> Live:
        """Make what must not exist yet."""
        ...

    def get(self, api: str, kind: str, namespace: str, name: str) -> Live | None:
        """One object."""
        ...

    def list(self, api: str, kind: str, namespace: str | None, *, labels: dict[str, str] | None = None) -> list[Live]:
        """Objects of a kind."""
        ...

    def delete(self, api: str, kind: str, namespace: str, name: str, *, uid: str | None = None) -> bool:
        """Remove one object."""
        ...

    def now_s(self) -> float:
        """Unix time by the API server's clock."""
        ...


class Writer:
    """Writes the objects of one service in one environment.

    `fence` is asked before each write: it gives the lease's token, or raises where the lease was lost.
    """

    NAME: WriterName = "apply"

    def __init__(self, api: Api, plan: Plan, fence: Callable[[], int] = lambda: 0) -> None:
        self._api = api
        self._fence = fence
        self._plan = plan
        self._namespace = cluster_of(plan).namespace

    def inventory(self) -> Inventory | None:
        """What the cluster has on record."""
        return kube_inventory.read(self._book())

    def _book(self) -> Live | None:
        """The live ConfigMap of the inventory; its resourceVersion makes each change of it a compare-and-set."""
        return self._live(Ref(api="v1", kind="ConfigMap", name=kube_inventory.name(self._plan.service, self._plan.env)))

    def apply(self, release: Release, objects: Sequence[Manifest]) -> None:
        """Make the objects so, and remove what an earlier apply wrote and this one does not want.

        Raises:
            Refused: an object belongs to somebody else (`not-ours`, `other-writer`), or somebody changed a field by hand
                (`field-owned-elsewhere`). Nothing was written then.
            LockHeld: somebody else applied another release meanwhile (`apply-lost-race`); theirs goes on.
        """
        book = self._book()
        before = kube_inventory.read(book)
        live = {kube_inventory.ref(item): self._live(kube_inventory.ref(item)) for item in objects}
        for item in objects:
            self._check_owner(live[kube_inventory.ref(item)], item)
        todo = [item for item in objects if self._differs(live[kube_inventory.ref(item)], item)]
        refs = tuple(sorted(live))
        known = before.refs if before else ()
        leftovers = [r for r in known if r not in refs]
        self._record(release, book, tuple(sorted({*refs, *known})), whole=not todo and not leftovers)
        # An autoscaler that is to go must go first: it would set the number back that is about to be fixed.
        for gone in [r for r in leftovers if r.kind in ("HorizontalPodAutoscaler", "ScaledObject")]:
            self._remove(gone)
        for item in todo:
            self._still_wanted(release)
            self._write(live[kube_inventory.ref(item)], item)
        book = self._still_wanted(release)
        kept = self._prune(leftovers)
        self._record(release, book, tuple(sorted({*refs, *kept})), whole=True)

    def drift(self, objects: Sequence[Manifest]) -> list[kube_drift.Difference]:
        """What somebody changed or removed since the last apply, with who; nothing is written."""
        found = []
        for item in objects:
            live, tried = self._look(self._live(kube_inventory.ref(item)), item, force=True)
            if live is None or tried is None:
                found.append(kube_drift.Difference(kind=item["kind"], name=item["metadata"]["name"], path="", wanted="present"))
                continue
            found.extend(kube_drift.differences(live, tried))
        return found

    def pending(self, objects: Sequence[Manifest]) -> list[kube_drift.Difference]:
        """`drift`, and what is on record that these objects would replace; nothing is written."""
        before, wanted = self.inventory(), {kube_inventory.ref(item) for item in objects}
        leftovers = [r for r in (before.refs if before else ()) if r not in wanted]
        mounted = self._mounted(leftovers)
        gone = [kube_drift.Difference(kind=r.kind, name=r.name, path="", live="present") for r in leftovers if r not in mounted]
        return [*self.drift(objects), *gone]

    def remove_all(self) -> list[Ref]:
        """Remove every object on record, the autoscaler and the workload first; what was removed. `forget` ends it."""
        inventory = self.inventory()
        if inventory is None:
            return []
        order = {"HorizontalPodAutoscaler": 0, "ScaledObject": 0, "Deployment": 1}
        return [r for r in sorted(inventory.refs, key=lambda r: order.get(r.kind, 2)) if self._remove(r)]

    def leaving(self) -> list[str]:
        """What `remove_all` removed and the cluster still has: a Deployment goes only after its pods, other objects after their finalizers."""
        inventory = self.inventory()
        here = [r for r in (inventory.refs if inventory else ()) if self._ours(self._live(r))]
        pods = self._api.list("v1", "Pod", self._namespace, labels=kube_names.selector(self._plan))
        return [*(f"pod {p['metadata']['name']}" for p in pods), *(f"{r.kind} {r.name}" for r in here)]

    def forget(self) -> None:
        """Remove the record itself, after everything on it is gone."""
        self._api.delete("v1", "ConfigMap", self._namespace, kube_inventory.name(self._plan.service, self._plan.env))

    def _live(self, ref: Ref) -> Live | None:
        return self._api.get(ref.api, ref.kind, self._namespace, ref.name)

    def _check_owner(self, live: Live | None, item: Manifest) -> None:
        """One writer per object: never take over what another service, writer or person made."""
        if live is None:
            return
        notes, label = live["metadata"].get("annotations") or {}, f"{item['kind']} {self._namespace}/{item['metadata']['name']}"
        wanted = item["metadata"]["annotations"]
        if notes.get(kube_names.OWNER) != wanted[kube_names.OWNER]:
            raise Refused(
                f"{label} exists and is not this service's",
                why=f"it belongs to {notes.get(kube_names.OWNER) or 'somebody who is no deployctl'}",
                hint="choose another name or namespace for the service, or remove the object yourself",
                code="not-ours",
            )
        if notes.get(kube_names.WRITER) != wanted[kube_names.WRITER]:
            raise Refused(
                f"{label} is written by {notes.get(kube_names.WRITER)}, not by {wanted[kube_names.WRITER]}",
                why="two writers of one object undo each other's changes",
                hint="make this change through that writer, or remove the service there first",
                code="other-writer",
            )

    def _differs(self, live: Live | None, item: Manifest) -> bool:
        """Whether an apply would change a value or an ownership; asked of the server, which alone knows its defaults."""
        live, tried = self._look(live, item)
        return live is None or tried is None or _number_unset(live, item) or not kube_drift.unchanged(live, tried, kube_names.MANAGER)

    def _look(self, live: Live | None, item: Manifest, *, force: bool = False) -> tuple[Live | None, Live | None]:
        """An object, and what an apply would make of that very state of it."""
        tried = None
        for _ in range(_LOOKS):
            if live is None:
                return None, None
            tried = self._api.apply(item, dry_run=True, force=True) if force else self._try(item)
            if live["metadata"]["resourceVersion"] == tried["metadata"]["resourceVersion"]:
                break
            # A controller changed it between the two (a status note, a revision number): look again.
            live = self._live(kube_inventory.ref(item))
        return live, tried

    def _try(self, item: Manifest) -> Live:
        try:
            return self._api.apply(item, dry_run=True)
        except ApplyConflict as conflict:
            if not self._number_only(conflict, item):
                raise
            return self._api.apply(item, dry_run=True, force=True)

    def _number_only(self, conflict: ApplyConflict, item: Manifest) -> bool:
        """A fixed number may take over from the autoscaler that is being removed, and from nobody else."""
        fixed = item["kind"] == "Deployment" and "replicas" in item["spec"]
        return fixed and all(field == ".spec.replicas" and manager in _SCALERS for field, manager in conflict.fields)

    def _write(self, live: Live | None, item: Manifest) -> None:
        autoscaled = item["kind"] == "Deployment" and "replicas" not in item["spec"]
        if autoscaled and live is not None and "f:replicas" in ((kube_drift.owned(live, kube_names.MANAGER) or {}).get("f:spec") or {}):
            self._hand_over(item, live["spec"]["replicas"])
        try:
            self._api.apply(item)
        except ApplyConflict as conflict:
            if not self._number_only(conflict, item):
                raise
            self._api.apply(item, force=True)
        if autoscaled and (live is None or _number_unset(live, item)):
            self._first_number(item)

    def _first_number(self, item: Manifest) -> None:
        """Start with the plan's number and not with the server's default of one, also where an earlier run was killed before it could.

        A number that an autoscaler has set meanwhile stays, and is held from then on: the server notes no owner for a number that
        comes through `scale` where nobody had one before. The write is void if the Deployment changed since it was seen.
        """
        bounds = self._plan.scaling
        planned = min(max(self._plan.replicas, bounds.min_replicas), bounds.max_replicas)
        for left in reversed(range(_TRIES)):
            live = self._live(kube_inventory.ref(item))
            if live is None or not _number_unset(live, item):
                return
            present = live["spec"].get("replicas", 1)
            try:
                return self._hand_over(item, planned if present == 1 else present, seen=live["metadata"]["resourceVersion"])
            except LockHeld:
                if not left:
                    raise

    def _hand_over(self, item: Manifest, replicas: int, *, seen: str | None = None) -> None:
        meta = {"name": item["metadata"]["name"], "namespace": self._namespace, **({"resourceVersion": seen} if seen else {})}
        body = {"apiVersion": item["apiVersion"], "kind": item["kind"], "metadata": meta, "spec": {"replicas": replicas}}
        self._api.apply(body, manager=HANDOVER, force=True)

    def _prune(self, leftovers: Sequence[Ref]) -> list[Ref]:
        """Remove what is not wanted; what an old ReplicaSet may still start pods from stays on record."""
        kept = self._mounted(leftovers)
        for ref in leftovers:
            if ref not in kept:
                self._remove(ref)
        return kept

    def _mounted(self, refs: Sequence[Ref]) -> list[Ref]:
        """Those that a ReplicaSet still names; of one without replicas too, which a rollback by hand would start again."""
        if not refs:
            return []
        sets = self._api.list("apps/v1", "ReplicaSet", self._namespace, labels=kube_names.selector(self._plan))
        used = {v["configMap"]["name"] for s in sets for v in s["spec"]["template"]["spec"].get("volumes", []) if "configMap" in v}
        return [r for r in refs if r.kind == "ConfigMap" and r.name in used]

    def _remove(self, ref: Ref) -> bool:
        """Remove an object of ours; one that was replaced by somebody else's under the same name is left alone."""
        live = self._live(ref)
        if live is None or not self._ours(live):
            return False
        return self._api.delete(ref.api, ref.kind, self._namespace, ref.name, uid=live["metadata"]["uid"])

    def _ours(self, live: Live | None) -> bool:
        notes = (live or {}).get("metadata", {}).get("annotations") or {}
        return bool(notes.get(kube_names.OWNER) == kube_names.owner(self._plan))

    def _record(self, release: Release, book: Live | None, refs: tuple[Ref, ...], *, whole: bool) -> None:
        """Write the inventory where it says something new, if nobody else did since it was read."""
        before = kube_inventory.read(book)
        serving = before.serving if before else None
        if before is not None and before.whole and before.wanted.digest != release.digest and self._serves():
            serving = before.wanted.revision
        token = self._fenced(release, before)
        applied = release.digest if whole else before.applied if before else None
        new = Inventory(
            owner=kube_names.owner(self._plan), writer=self.NAME, wanted=release, serving=serving, refs=refs, applied=applied, token=token
        )
        if new == before:
            return
        item = kube_inventory.manifest(new, self._plan, self._namespace)
        try:
            if book is None:
                self._api.create(item)
            else:
                item["metadata"]["resourceVersion"] = book["metadata"]["resourceVersion"]
                self._api.apply(item, force=True)
        except LockHeld as error:
            now = self.inventory()
            if now != new:  # equal: it was our own write, whose answer got lost and which was then tried again
                raise self._lost(release, now) from error

    def _still_wanted(self, release: Release) -> Live | None:
        """The inventory's ConfigMap, if this release is still the one on record; the later of two applies goes on alone."""
        book = self._book()
        now = kube_inventory.read(book)
        if now is None or now.wanted.digest != release.digest:
            raise self._lost(release, now)
        self._fenced(release, now)
        return book

    def _fenced(self, release: Release, now: Inventory | None) -> int:
        """The token to write with; refused where somebody with a higher one was here. Without a lease nothing is fenced."""
        token, seen = self._fence(), now.token if now else 0
        if 0 < token < seen:
            raise self._lost(release, now)
        return max(token, seen)

    @staticmethod
    def _lost(release: Release, now: Inventory | None) -> LockHeld:
        who = f"revision {now.wanted.revision} by {now.wanted.by or 'somebody'}" if now else "somebody who took the service down"
        return LockHeld(
            f"revision {release.revision} was given up: {who} came at the same time",
            why="two applies of one service would undo each other; the later one goes on",
            hint="deployctl status   (and repeat the command if yours should win)",
            code="apply-lost-race",
        )

    def _serves(self) -> bool:
        """Whether what was wanted until now had come up whole."""
        view = self.view()
        return view is not None and kube_rollout.judge(*view).phase == "done"

    def view(self) -> tuple[Live, list[Live], list[Live]] | None:
        """Deployment, its pods and ReplicaSets; None where there is no Deployment."""
        deployment = self._live(Ref(api="apps/v1", kind="Deployment", name=self._plan.service))
        if deployment is None:
            return None
        labels = kube_names.selector(self._plan)
        return (
            deployment,
            self._api.list("v1", "Pod", self._namespace, labels=labels),
            self._api.list("apps/v1", "ReplicaSet", self._namespace, labels=labels),
        )


def _number_unset(live: Live, item: Manifest) -> bool:
    """Whether an autoscaler is to set this Deployment's number, and nobody is on record as having set one."""
    return item["kind"] == "Deployment" and "replicas" not in item["spec"] and not kube_drift.held(live, "spec", "replicas")
