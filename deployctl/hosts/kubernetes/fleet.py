"""Every service of a cluster, seen without a checkout: what enters is a context, what leaves are rows and addresses.

Three list calls with label selectors, a page at a time, whatever the number of services. Refuses to change anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deployctl.core import fleet_view, kube_names, kube_records
from deployctl.core.platform import ServiceAddress
from deployctl.errors import NotFound, ProjectError

if TYPE_CHECKING:  # the writer brings all manifests and numpy, a tenth of the CPU time of a list of 500 services
    from deployctl.hosts.kubernetes.writer import Api


class ClusterFleet:
    """The services of one cluster."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def rows(self, namespace: str | None) -> list[fleet_view.ServiceRow]:
        """Every service of a namespace, or of the cluster for None.

        Raises:
            ClusterError: you may not list there (`cluster-forbidden`), or see `adapters.kubernetes`.
        """
        ours = {"app.kubernetes.io/managed-by": kube_names.MANAGER}
        return fleet_view.rows(
            self._api.list("apps/v1", "Deployment", namespace, labels=ours),
            self._api.list("autoscaling/v2", "HorizontalPodAutoscaler", namespace, labels=ours),
            self._api.list("v1", "ConfigMap", namespace, labels=kube_records.selector(None, "inventory")),
        )

    def find(self, context: str | None, namespace: str, service: str, env: str | None) -> ServiceAddress:
        """The address of a service that was released there; its environment may be left out where it has one.

        Raises:
            NotFound: nothing of that name was released there (`service-not-found`).
            ProjectError: it has several environments and none was named (`env-ambiguous`).
        """
        labels = {"app.kubernetes.io/name": kube_names.label_value(service), **kube_records.selector(None, kube_records.RELEASE)}
        items = self._api.list("v1", "ConfigMap", namespace, labels=labels)
        owners = {str((i["metadata"].get("annotations") or {}).get(kube_names.OWNER, "")) for i in items}
        envs = sorted(e for s, _, e in (o.partition("/") for o in owners) if s == service and env in (None, e))
        if not envs:
            raise NotFound(
                f"{service} was never released in namespace {namespace}" + (f" as {env}" if env else ""),
                hint=f"deployctl status --all -n {namespace}   (shows what is there)",
                code="service-not-found",
            )
        if len(envs) > 1:
            raise ProjectError(f"{service} has several environments there: {', '.join(envs)}", hint=f"add --env {envs[0]}", code="env-ambiguous")
        return ServiceAddress(context=context, namespace=namespace, service=service, env=envs[0])
