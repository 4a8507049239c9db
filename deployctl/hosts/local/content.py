"""What a release serves, opened: its bundle, its settings and one example request. Blobs are hashed again whenever they are read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from deployctl.core import sample
from deployctl.core.bundle import Bundle
from deployctl.core.release import Release
from deployctl.core.serving import ServingConfig
from deployctl.errors import ModelError
from deployctl.ports import BlobStore, BundleStore

# 24.10 crashes under tracing at full rate; one in a hundred survived every run.
_LOWEST_TRACE_RATE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What one replica needs to know; `cores` is what it may keep busy, the unit of local cost."""

    bundle: Bundle
    settings: dict[str, ServingConfig]
    sample: dict[str, Any]
    trace_rate: int
    cores: float


class ContentBook:
    """Opens the content of releases."""

    def __init__(self, blobs: BlobStore, bundles: BundleStore) -> None:
        self._blobs = blobs
        self._bundles = bundles

    def open(self, release: Release) -> Content:
        """The content of a release.

        Raises:
            ModelError: the plan names no bundle (`bundle-unresolved`), or a file is damaged (`blob-damaged`).
            NotFound: bundle or sample are not here (`bundle-not-found`, `blob-not-found`).
        """
        plan = release.plan
        if plan.bundle is None:
            raise ModelError(f"revision {release.revision} names no bundle", code="bundle-unresolved", hint="deployctl package, then deployctl up")
        bundle = self._bundles.load(plan.bundle)
        ratio = plan.trace_ratio
        stages = [m for m in bundle.models if m.backend != "ensemble"]
        return Content(
            bundle=bundle,
            settings=plan.settings,
            sample=self._sample(bundle),
            trace_rate=max(_LOWEST_TRACE_RATE, round(1 / ratio)) if ratio > 0 else 0,
            cores=float(sum(plan.settings.get(m.name, m.serving).instances for m in stages)),
        )

    def _sample(self, bundle: Bundle) -> dict[str, Any]:
        spec = bundle.model(bundle.entry)
        for line in self._blobs.path(bundle.sample).read_text().splitlines():
            if line.strip():
                inputs: dict[str, Any] = json.loads(line)["inputs"]
                return inputs
        return dict(sample.zeros(spec.inputs, batched=spec.serving.max_batch > 0))
