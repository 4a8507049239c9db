"""The writer `pulumi`: the same objects in a Pulumi stack of the service; the inventory and its rules are those of `apply`.

The inventory is written before the stack runs and after it, so that status, rollback and the next command know what is wanted
whoever wrote it, and so that an object which a killed run made before Pulumi could note it is still on record: the next run
takes it into the stack, or removes it. The lease of the service stands in front of Pulumi's own lock. Refuses to know how an
engine works.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence

from deployctl.core import codec, kube_drift, kube_inventory, kube_names
from deployctl.core.kube_inventory import Inventory, Ref
from deployctl.core.manifests import Inputs, Manifest
from deployctl.core.plan import Plan
from deployctl.core.platform import Writer as WriterName
from deployctl.core.release import Release
from deployctl.core.stack import Stack
from deployctl.hosts.kubernetes.writer import HANDOVER, Api, Live, Writer
from deployctl.ports import Progress, StackEngine

_SCALERS = ("HorizontalPodAutoscaler", "ScaledObject")


def stack_of(plan: Plan, inputs: Inputs | None) -> Stack:
    """The stack of one service in one environment; without inputs it can be asked and removed, not made."""
    return Stack(name=kube_names.name(plan.service, plan.env), kind="inputs", document=codec.dumps(inputs) if inputs else "{}")


class PulumiWriter(Writer):
    """Writes the objects of one service in one environment through a stack.

    Args:
        api, plan, fence: see `Writer`.
        engine: runs the stack.
        inputs: what the objects of a plan are a function of, with this writer's name on them.
    """

    NAME: WriterName = "pulumi"

    def __init__(self, api: Api, plan: Plan, fence: Callable[[], int] = lambda: 0, *, engine: StackEngine, inputs: Callable[[Plan], Inputs]) -> None:
        super().__init__(api, plan, fence)
        self._engine = engine
        self._inputs = inputs

    def apply(self, release: Release, objects: Sequence[Manifest]) -> None:
        """Make the objects so; Pulumi removes what the stack had and the release does not want.

        Raises:
            Refused: an object belongs to somebody else (`not-ours`, `other-writer`). Nothing was written then.
            LockHeld: somebody else came at the same time (`apply-lost-race`), or runs this stack (`stack-locked`).
            DeployctlError: see `StackEngine`.
        """
        book = self._book()
        before = kube_inventory.read(book)
        live = {kube_inventory.ref(item): self._live(kube_inventory.ref(item)) for item in objects}
        for item in objects:
            self._check_owner(live[kube_inventory.ref(item)], item)
        deployment = next(item for item in objects if item["kind"] == "Deployment")
        workload = live[kube_inventory.ref(deployment)]
        known = before.refs if before else ()
        self._record(release, book, tuple(sorted({*live, *known})), whole=False)
        self._take_over(deployment, workload, before)
        self._engine.up(stack_of(release.plan, self._inputs(release.plan)), _Quiet(), look=_may_be_wrong(before, live))
        self._let_go(deployment)
        book = self._still_wanted(release)
        kept = self._prune(self._unknown_to_the_stack(known, live))
        self._record(release, book, tuple(sorted({*live, *kept})), whole=True)

    def remove_all(self) -> list[Ref]:
        """Remove everything that the stack made, and what a killed run made and could not note; what is gone then."""
        inventory = self.inventory()
        if inventory is None:
            return []
        stack = stack_of(self._plan, None)
        self._engine.destroy(stack, _Quiet())
        if self._engine.outputs(stack) is not None:
            self._engine.forget(stack)
        super().remove_all()
        return [ref for ref in inventory.refs if self._live(ref) is None]

    def _unknown_to_the_stack(self, known: Sequence[Ref], wanted: Container[Ref]) -> list[Ref]:
        """What is on record, not wanted, and still there after Pulumi removed what it knew of."""
        return [ref for ref in known if ref not in wanted and self._live(ref) is not None]

    def _take_over(self, deployment: Manifest, live: Live | None, before: Inventory | None) -> None:
        """Hold `replicas` for the moment in which its owner changes: Pulumi would refuse an autoscaler's value, or reset its own to one."""
        if live is None or before is None:
            return
        if "replicas" not in deployment["spec"]:
            if kube_drift.held(live, "spec", "replicas") and not any(ref.kind in _SCALERS and self._live(ref) for ref in before.refs):
                self._hand_over(deployment, live["spec"]["replicas"])
            return
        for ref in (r for r in before.refs if r.kind in _SCALERS):
            self._remove(ref)
        self._hand_over(deployment, deployment["spec"]["replicas"])

    def _let_go(self, deployment: Manifest) -> None:
        """A fixed number is Pulumi's alone; where nobody ever set one, the service starts with the plan's and not with one replica."""
        if "replicas" in deployment["spec"]:
            meta = {"name": deployment["metadata"]["name"], "namespace": self._namespace}
            self._api.apply({"apiVersion": deployment["apiVersion"], "kind": "Deployment", "metadata": meta}, manager=HANDOVER, force=True)
        else:
            self._first_number(deployment)


def _may_be_wrong(before: Inventory | None, live: Mapping[Ref, Live | None]) -> bool:
    """Whether the stack's state may say what is not so: a run was killed, or something was removed behind Pulumi's back."""
    if before is None:
        return True  # no record: perhaps somebody removed it with everything else
    return not before.whole or any(found is None and ref in before.refs for ref, found in live.items())


class _Quiet(Progress):
    """A Progress that says nothing: who waits for the pods tells how far they are."""

    def step(self, message: str) -> None:
        """Nothing."""

    def update(self, message: str) -> None:
        """Nothing."""

    def note(self, message: str) -> None:
        """Nothing."""

    def warn(self, message: str) -> None:
        """Nothing."""


__all__ = ["PulumiWriter", "stack_of"]
