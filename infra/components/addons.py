"""What runs in a cluster beside the services: only what was asked for, and what lets GPU nodes of a new cluster start.

An add-on is its own project's chart at the version of the platform's inputs. On a cluster that exists nothing is installed
that platform.yaml does not say `install` for.
"""

from __future__ import annotations

from typing import Any, Protocol

import pulumi
import pulumi_kubernetes as k8s

from deployctl.core.platform import Addons as Choices
from deployctl.core.platform import Chart, Platform
from infra.components.cluster import Cluster
from infra.components.pool import STARTUP_TAINT

_KUBECTL = "registry.k8s.io/kubectl:v1.34.1"
_PAUSE = "registry.k8s.io/pause:3.10"
_NAME = "deployctl-gpu-ready"


class Maker(Protocol):
    """What add-ons ask of a cloud (`infra.clouds.Cloud`)."""

    MADE: bool
    BRINGS_DEVICE_PLUGIN: bool
    STARTUP_TAINTS: bool


class Addons(pulumi.ComponentResource):
    """Charts that were asked for, and the remover of the start-up taint where pools carry it."""

    def __init__(self, platform: Platform, cluster: Cluster, maker: Maker, *, charts: dict[str, Chart]) -> None:
        super().__init__("deployctl:kubernetes:Addons", "addons", None, pulumi.ResourceOptions(parent=cluster))
        self._options = pulumi.ResourceOptions(parent=self, provider=cluster.provider)
        for name in wanted(platform.addons, made=maker.MADE, brings_device_plugin=maker.BRINGS_DEVICE_PLUGIN):
            self._install(name, charts[name], _on_pools(platform) if name == "gpu" else {})
        if maker.STARTUP_TAINTS and any(pool.nodes.gpu_resource for pool in platform.pools):
            self._remove_startup_taint(platform)
        self.register_outputs({})

    def _install(self, name: str, chart: Chart, values: dict[str, Any]) -> None:
        k8s.helm.v3.Release(
            name,
            chart=chart.chart,
            version=chart.version,
            repository_opts=k8s.helm.v3.RepositoryOptsArgs(repo=chart.repository),
            namespace=chart.namespace,
            create_namespace=True,
            values={**chart.values, **values},
            atomic=True,
            opts=self._options,
        )

    def _remove_startup_taint(self, platform: Platform) -> None:
        """On each new node of a pool: wait until the kubelet offers GPUs, then take the taint away, then sleep."""
        metadata = {"name": _NAME, "namespace": "kube-system"}
        account = k8s.core.v1.ServiceAccount(_NAME, metadata=metadata, opts=self._options)
        rules = [k8s.rbac.v1.PolicyRuleArgs(api_groups=[""], resources=["nodes"], verbs=["get", "list", "watch", "patch"])]
        role = k8s.rbac.v1.ClusterRole(_NAME, metadata={"name": _NAME}, rules=rules, opts=self._options)
        k8s.rbac.v1.ClusterRoleBinding(
            _NAME,
            metadata={"name": _NAME},
            role_ref=k8s.rbac.v1.RoleRefArgs(api_group="rbac.authorization.k8s.io", kind="ClusterRole", name=_NAME),
            subjects=[k8s.rbac.v1.SubjectArgs(kind="ServiceAccount", name=_NAME, namespace="kube-system")],
            opts=pulumi.ResourceOptions.merge(self._options, pulumi.ResourceOptions(depends_on=[account, role])),
        )
        keys = sorted({pool.nodes.node_label for pool in platform.pools})
        k8s.apps.v1.DaemonSet(
            _NAME,
            metadata=metadata,
            spec=k8s.apps.v1.DaemonSetSpecArgs(
                selector=k8s.meta.v1.LabelSelectorArgs(match_labels={"app.kubernetes.io/name": _NAME}),
                template=k8s.core.v1.PodTemplateSpecArgs(
                    metadata=k8s.meta.v1.ObjectMetaArgs(labels={"app.kubernetes.io/name": _NAME}), spec=_taint_remover(platform, keys)
                ),
            ),
            opts=self._options,
        )


def wanted(choices: Choices, *, made: bool, brings_device_plugin: bool) -> list[str]:
    """Add-ons to install, in order: what platform.yaml says `install` for; on a new cluster also the device plugin that its cloud does not bring."""
    found = [name for name in ("gpu", "prometheus", "keda", "otel") if getattr(choices, name) == "install"]
    if made and choices.gpu == "detect" and not brings_device_plugin:
        found.insert(0, "gpu")
    return found


def _on_pools(platform: Platform) -> dict[str, Any]:
    """Values that put the device plugin on every node of the pools: the chart's own wait for labels of a feature discovery that is
    not there, and its tolerations for no taint but one, so that a start-up taint would wait for the plugin and the plugin for it.
    """
    keys = sorted({pool.nodes.node_label for pool in platform.pools if pool.nodes.gpu_resource})
    terms = [{"matchExpressions": [{"key": key, "operator": "Exists"}]} for key in keys]
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}
    return {"affinity": affinity, "tolerations": [{"operator": "Exists"}]}


def _taint_remover(platform: Platform, keys: list[str]) -> k8s.core.v1.PodSpecArgs:
    """The image has no shell, and kubectl fails to remove a taint that is not there: so it is set first, which changes nothing on a new node."""
    node = k8s.core.v1.EnvVarArgs(
        name="NODE", value_from=k8s.core.v1.EnvVarSourceArgs(field_ref=k8s.core.v1.ObjectFieldSelectorArgs(field_path="spec.nodeName"))
    )
    steps = [
        ("wait", ["wait", "node/$(NODE)", r"--for=jsonpath={.status.allocatable.nvidia\.com/gpu}", "--timeout=30m"]),
        ("set", ["taint", "node", "$(NODE)", f"{STARTUP_TAINT}=:NoSchedule", "--overwrite"]),
        ("clear", ["taint", "node", "$(NODE)", f"{STARTUP_TAINT}:NoSchedule-"]),
    ]
    small = k8s.core.v1.ResourceRequirementsArgs(requests={"cpu": "10m", "memory": "32Mi"}, limits={"memory": "64Mi"})
    locked = k8s.core.v1.SecurityContextArgs(
        allow_privilege_escalation=False,
        read_only_root_filesystem=True,
        run_as_non_root=True,
        run_as_user=65534,
        capabilities=k8s.core.v1.CapabilitiesArgs(drop=["ALL"]),
    )
    expressions = [k8s.core.v1.NodeSelectorRequirementArgs(key=key, operator="Exists") for key in keys]
    terms = [k8s.core.v1.NodeSelectorTermArgs(match_expressions=[expression]) for expression in expressions]
    return k8s.core.v1.PodSpecArgs(
        service_account_name=_NAME,
        tolerations=[k8s.core.v1.TolerationArgs(operator="Exists")],
        affinity=k8s.core.v1.AffinityArgs(
            node_affinity=k8s.core.v1.NodeAffinityArgs(
                required_during_scheduling_ignored_during_execution=k8s.core.v1.NodeSelectorArgs(node_selector_terms=terms)
            )
        ),
        init_containers=[
            k8s.core.v1.ContainerArgs(name=name, image=platform.mirrored(_KUBECTL), args=words, env=[node], resources=small, security_context=locked)
            for name, words in steps
        ],
        containers=[k8s.core.v1.ContainerArgs(name="done", image=platform.mirrored(_PAUSE), resources=small, security_context=locked)],
    )
