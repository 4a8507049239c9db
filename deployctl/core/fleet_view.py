"""Every service of a cluster or namespace on one screen: what enters are listed objects, what leaves are rows.

Judges by the Deployments' own counts and conditions, so that three lists are enough however many pods there are; `status NAME`
looks at the pods. Refuses to know clients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from deployctl.core import kube_inventory, kube_names, words
from deployctl.core.kube_inventory import Inventory
from deployctl.errors import ProjectError

Live = dict[str, Any]
Health = Literal["healthy", "changing", "degraded", "failed", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRow:
    """One service in one environment; `revision` is the wanted one, None where another writer than deployctl's own has it."""

    namespace: str
    service: str
    env: str
    health: Health
    message: str
    revision: int | None
    action: str
    by: str
    writer: str
    variant: str | None
    ready: int
    wanted: int
    bounds: str


def rows(deployments: Sequence[Live], autoscalers: Sequence[Live], inventories: Sequence[Live]) -> list[ServiceRow]:
    """One row a service, worst first.

    Args:
        deployments: those with our label.
        autoscalers: HorizontalPodAutoscalers with our label.
        inventories: ConfigMaps of the inventories.
    """
    scaled = {(_namespace(a), a["spec"]["scaleTargetRef"]["name"]): a["spec"] for a in autoscalers}
    known = {(_namespace(i), _owner(i)): _read(i) for i in inventories}
    live = {(_namespace(d), _owner(d)): d for d in deployments if _owner(d)}
    found = [_row(key, live.get(key), known.get(key), scaled) for key in sorted({*live, *known})]
    order = ("failed", "degraded", "changing", "stopped", "healthy")
    return sorted(found, key=lambda r: (order.index(r.health), r.namespace, r.service, r.env))


def _read(item: Live) -> Inventory | str | None:
    """The inventory, or what is wrong with it: one damaged record must not hide the other services."""
    try:
        return kube_inventory.read(item)
    except ProjectError as error:
        return f"its record is damaged: {error.where}"


def _row(key: tuple[str, str], deployment: Live | None, book: Inventory | str | None, scaled: dict[tuple[str, str], Live]) -> ServiceRow:
    namespace, owner = key
    service, _, env = owner.partition("/")
    health, message = _health(deployment)
    inventory = book if isinstance(book, Inventory) else None
    if isinstance(book, str):
        health, message = ("failed" if health in ("failed", "stopped") else "degraded"), "; ".join(filter(None, (message, book)))
    release = inventory.wanted if inventory else None
    spec = scaled.get((namespace, service))
    wanted = int(deployment["spec"].get("replicas", 1)) if deployment else 0
    notes = deployment["metadata"].get("annotations", {}) if deployment else {}
    return ServiceRow(
        namespace=namespace,
        service=service,
        env=env,
        health=health,
        message=message,
        revision=release.revision if release else None,
        action=release.action if release else "",
        by=release.by if release else "",
        writer=inventory.writer if inventory else str(notes.get(kube_names.WRITER, "")),
        variant=release.plan.variant if release else None,
        ready=int((deployment or {}).get("status", {}).get("readyReplicas", 0)),
        wanted=wanted,
        bounds=words.bounds(int(spec.get("minReplicas", 1)), int(spec["maxReplicas"])) if spec else words.bounds(wanted, wanted),
    )


def _health(deployment: Live | None) -> tuple[Health, str]:
    if deployment is None:
        return "stopped", "its Deployment is missing: deployctl drift"
    status, wanted = deployment.get("status", {}), int(deployment["spec"].get("replicas", 1))
    conditions = {c["type"]: c for c in status.get("conditions", [])}
    ready, updated = int(status.get("readyReplicas", 0)), int(status.get("updatedReplicas", 0))
    refused = conditions.get("ReplicaFailure", {})
    if refused.get("status") == "True":
        return ("degraded" if ready else "failed"), str(refused.get("message", ""))
    if conditions.get("Progressing", {}).get("reason") == "ProgressDeadlineExceeded":
        return ("degraded" if ready else "failed"), "no progress within its deadline"
    if status.get("observedGeneration", 0) < deployment["metadata"].get("generation", 0) or updated < wanted or status.get("replicas", 0) > updated:
        return "changing", f"{updated} of {wanted} replicas are of the newest release"
    return ("healthy", "") if ready >= wanted else ("changing" if not ready else "degraded", f"{wanted - ready} not ready")


def _namespace(item: Live) -> str:
    return str(item["metadata"]["namespace"])


def _owner(item: Live) -> str:
    return str((item["metadata"].get("annotations") or {}).get(kube_names.OWNER, ""))


def exit_code(found: Sequence[ServiceRow]) -> int:
    """0 if all serve or change, 4 if one is degraded or failed, 6 if there is none or one is stopped."""
    if any(r.health in ("failed", "degraded") for r in found):
        return 4
    return 6 if not found or any(r.health == "stopped" for r in found) else 0
