"""What one service owns in a cluster: the record that lets the next apply remove what is no longer wanted.

What enters are object references and releases, what leaves is the text of one ConfigMap and back. The record is written
before the objects (with old and new together) and again after the old ones are gone, so that a kill at any moment leaves
nothing unknown. Refuses to know clients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from deployctl.core import codec, kube_names
from deployctl.core.plan import Plan
from deployctl.core.platform import Writer
from deployctl.core.release import Release


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Ref:
    """One object by what names it in a namespace."""

    api: str
    kind: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """The record of one service in one environment.

    Attributes:
        owner: service/env.
        writer: who writes the objects; nobody else may.
        wanted: the release that was applied last, whole, so that status and rollback need no checkout.
        serving: the newest revision before it that was seen to serve.
        refs: every object that exists or may exist.
        applied: digest of the release whose objects are all written; another one than the wanted was interrupted.
        token: the lease's fencing token of whoever wrote this; a writer with a lower one comes too late.
    """

    schema_version: Literal[1] = 1
    owner: str
    writer: Writer
    wanted: Release
    serving: int | None = None
    refs: tuple[Ref, ...]
    applied: str | None = None
    token: int = 0

    @property
    def whole(self) -> bool:
        """Whether everything of the wanted release is written, so that what the cluster says is about that release."""
        return self.applied == self.wanted.digest


def name(service: str, env: str) -> str:
    """The ConfigMap's name."""
    return kube_names.name("deployctl", service, env)


def ref(item: dict[str, Any]) -> Ref:
    """The reference of an object."""
    return Ref(api=item["apiVersion"], kind=item["kind"], name=item["metadata"]["name"])


def manifest(inventory: Inventory, plan: Plan, namespace: str) -> dict[str, Any]:
    """The record as an object."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name(plan.service, plan.env),
            "namespace": namespace,
            "labels": {**kube_names.labels(plan), "app.kubernetes.io/component": "inventory"},
            "annotations": {kube_names.OWNER: inventory.owner, kube_names.WRITER: inventory.writer},
        },
        "data": {"inventory.json": codec.dumps(inventory)},
    }


def read(item: dict[str, Any] | None) -> Inventory | None:
    """The record of a live object, None where there is none.

    Raises:
        ProjectError: somebody damaged it (`record-damaged`).
    """
    if item is None:
        return None
    where = f"ConfigMap {item['metadata'].get('namespace')}/{item['metadata']['name']}"
    return codec.loads(Inventory, str((item.get("data") or {}).get("inventory.json", "")), where=where)
