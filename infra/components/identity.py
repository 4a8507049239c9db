"""Who may read the store: one service account of one service, without any key that could be copied."""

from __future__ import annotations

import pulumi


class Identity(pulumi.ComponentResource):
    """Lets the pods of one `namespace/service` read the store.

    Attributes:
        namespace, service_account: whose pods; the account has the service's name (`core/manifests/workload.py`).
        annotations: what its ServiceAccount must carry; empty where the cloud needs nothing there.
    """

    annotations: dict[str, pulumi.Input[str]]

    def __init__(self, kind: str, reader: str, opts: pulumi.ResourceOptions | None = None) -> None:
        self.namespace, self.service_account = reader.split("/")
        self.annotations = {}
        super().__init__(f"deployctl:{kind}:Identity", reader.replace("/", "-"), None, opts)
