"""A Platform to Pulumi resources: cluster, pools, store, identities and add-ons, each by the cloud's own module.

What enters is the file that `deployctl platform` wrote; what leaves are resource registrations and stack outputs.
"""

from __future__ import annotations

import pulumi

from deployctl.core.platform import PlatformInputs
from infra.clouds import cloud
from infra.components.addons import Addons


def platform(inputs: PlatformInputs) -> None:
    """Register everything of the platform."""
    spec = inputs.platform
    maker = cloud(spec.cloud)
    cluster = maker.cluster(spec)
    for pool in spec.pools:
        maker.pool(spec, cluster, pool)
    store = maker.store(spec, cluster, spec.bucket) if spec.bucket else None
    readers = {reader: maker.identity(spec, cluster, store, reader) for reader in spec.readers} if store else {}
    Addons(spec, cluster, maker, charts=inputs.charts)
    pulumi.export("cloud", spec.cloud)
    pulumi.export("context", spec.context)
    pulumi.export("connect", cluster.connect)
    pulumi.export("store", store.uri if store else None)
    pulumi.export("readers", {reader: {"annotations": identity.annotations} for reader, identity in readers.items()})
