"""A cluster to write to: the provider that reaches it, and how a person reaches it."""

from __future__ import annotations

import json
from typing import Any

import pulumi
import pulumi_kubernetes as k8s


class Cluster(pulumi.ComponentResource):
    """A cluster of one cloud, and the parent of all that is made with the same account.

    Attributes:
        provider: what Kubernetes objects are written with; server-side apply, so that a field of somebody else's is a conflict, not a loss.
        connect: the command that adds the cluster to a person's kubeconfig.
    """

    provider: k8s.Provider
    connect: pulumi.Input[str] = ""

    def __init__(self, kind: str, name: str, account: pulumi.ProviderResource | None = None) -> None:
        options = pulumi.ResourceOptions(providers=[account]) if account else None
        super().__init__(f"deployctl:{kind}:Cluster", name, None, options)

    def reach(self, kubeconfig: pulumi.Input[str], depends_on: list[pulumi.Resource]) -> None:
        """Set the provider from a kubeconfig text. In a cluster of the stack's own, what exists under its names is what a killed run made."""
        options = pulumi.ResourceOptions(parent=self, depends_on=depends_on)
        self.provider = k8s.Provider("cluster", kubeconfig=kubeconfig, enable_server_side_apply=True, upsert_existing_objects=True, opts=options)


def reached(context: str | None, namespace: str | None = None, *, adopt: bool = False, opts: pulumi.ResourceOptions | None = None) -> k8s.Provider:
    """The provider of a context of the person's own kubeconfig; with `adopt` it takes what exists and is not in the stack."""
    upsert = True if adopt else None
    return k8s.Provider("cluster", context=context, namespace=namespace, enable_server_side_apply=True, upsert_existing_objects=upsert, opts=opts)


def kubeconfig(name: str, server: str, authority: str, command: str, arguments: list[str]) -> str:
    """A kubeconfig text without a secret in it: each call asks the cloud's own tool for a token.

    Args:
        name: cluster, user and context.
        server: address of the API server.
        authority: its certificate authority, base64.
        command: the tool that prints an ExecCredential.
        arguments: the tool's.
    """
    exec_: dict[str, Any] = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": command,
        "args": arguments,
        "interactiveMode": "Never",
    }
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": authority}}],
            "users": [{"name": name, "user": {"exec": exec_}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        }
    )
