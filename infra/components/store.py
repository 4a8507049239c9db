"""A bucket for models: versioned, encrypted, private, and kept when the stack goes."""

from __future__ import annotations

import pulumi

# Old versions of an object are kept so long: enough to undo a deletion by hand.
KEPT_DAYS = 30
# An upload that nobody finished is removed after so long.
UNFINISHED_DAYS = 7


class ModelStore(pulumi.ComponentResource):
    """Where bundles are pushed to and pods fetch from.

    Attributes:
        uri: what stands as `store:` in deploy.yaml.
    """

    uri: pulumi.Input[str]

    def __init__(self, kind: str, name: str, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(f"deployctl:{kind}:ModelStore", name, None, opts)

    def kept(self) -> pulumi.ResourceOptions:
        """Options of what holds data: `platform down` never deletes it."""
        return pulumi.ResourceOptions(parent=self, retain_on_delete=True)
