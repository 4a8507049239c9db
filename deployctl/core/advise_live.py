"""Which live objects of a namespace scale the Triton that is asked about: lists of objects enter, its autoscaler and workload leave.

Refuses to know how they were read. Nothing is guessed: where several would fit, the names are told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deployctl.errors import NotFound, ProjectError

Live = dict[str, Any]


def scaled(autoscalers: Sequence[Live], deployments: Sequence[Live], *, deployment: str | None, namespace: str) -> list[Live]:
    """The autoscaler and the Deployment it scales, without what only the server writes; the Deployment alone where nothing scales it.

    Args:
        autoscalers: HorizontalPodAutoscalers and ScaledObjects. An HPA that a ScaledObject made is left out.
        deployments: all of the namespace.
        deployment: which one; None takes the only one that runs Triton.
        namespace: for messages.

    Raises:
        NotFound: no such Deployment, or none that runs Triton (`deployment-missing`).
        ProjectError: several run Triton and none was named (`deployment-ambiguous`).
    """
    names = sorted(_name(item) for item in deployments)
    fits = [deployment] if deployment else sorted(_name(item) for item in deployments if runs_triton(item))
    chosen = [item for item in deployments if _name(item) in fits]
    if not chosen:
        what = f"no Deployment {deployment!r}" if deployment else "no Deployment that runs Triton"
        raise NotFound(
            f"there is {what} in the namespace {namespace}",
            why=f"Deployments there: {', '.join(names) or 'none'}",
            hint="name it with --deployment, and its namespace with --namespace",
            code="deployment-missing",
        )
    if len(chosen) > 1:
        raise ProjectError(
            f"{len(chosen)} Deployments in the namespace {namespace} run Triton",
            why=", ".join(fits),
            hint="name one with --deployment",
            code="deployment-ambiguous",
        )
    own = [item for item in autoscalers if _scales(item, fits[0]) and not _made_by_keda(item)]
    return [_plain(item) for item in (*own, *chosen)]


def runs_triton(deployment: Live) -> bool:
    """Whether a container's image, command or arguments name Triton."""
    pod = ((deployment.get("spec") or {}).get("template") or {}).get("spec") or {}
    words = [str(word) for c in pod.get("containers") or [] for word in (c.get("image", ""), *(c.get("command") or []), *(c.get("args") or []))]
    return any("triton" in word.lower() for word in words)


def _scales(autoscaler: Live, deployment: str) -> bool:
    target = (autoscaler.get("spec") or {}).get("scaleTargetRef") or {}
    return target.get("kind", "Deployment") == "Deployment" and target.get("name") == deployment


def _made_by_keda(item: Live) -> bool:
    owners = (item.get("metadata") or {}).get("ownerReferences") or []
    return any(owner.get("kind") == "ScaledObject" for owner in owners)


def _name(item: Live) -> str:
    return str((item.get("metadata") or {}).get("name", ""))


def _plain(item: Live) -> Live:
    metadata = {key: item["metadata"][key] for key in ("name", "namespace", "labels", "annotations") if key in item["metadata"]}
    return {"apiVersion": item["apiVersion"], "kind": item["kind"], "metadata": metadata, "spec": item.get("spec") or {}}
