"""Replicas to measure on the service's own pool, behind the ports that start a Triton here: the cluster runs them, nobody else's traffic
reaches them.

A repository folder holds no blobs then: `BenchRepository` writes down which bundle under which settings, and `BenchLauncher` makes a
pod that fetches it. Single requests go through the API server's port-forward; load comes from inside the cluster (`loadgen.py`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from deployctl import share
from deployctl.adapters import portforward
from deployctl.adapters.kubernetes import Cluster
from deployctl.adapters.triton import TritonApi
from deployctl.adapters.triton.launcher import config_json
from deployctl.core import codec, manifests
from deployctl.core.bundle import Bundle
from deployctl.core.manifests import bench
from deployctl.core.manifests.workload import GRPC, HTTP, SCRIPTS
from deployctl.core.plan import Plan
from deployctl.core.serving import ModelSpec, ServingConfig
from deployctl.core.spans import RequestTimes
from deployctl.errors import ModelError
from deployctl.hosts.kubernetes import jobs
from deployctl.ports import CoreUse, RepositoryBuilder, ServerStats

_START_S = 900.0  # a node may have to be made and the image pulled
_LASTS_S = 3600.0  # the longest that one replica is measured; then the cluster ends it
_BUNDLE, _SETTINGS = "bundle.json", "settings.json"


class BenchRepository:
    """RepositoryBuilder for a pod: names what it shall serve, with the real back ends."""

    def __init__(self, local: RepositoryBuilder) -> None:
        self._local = local

    def build(self, bundle: Bundle, into: Path, *, settings: dict[str, ServingConfig] | None = None, native: bool = True) -> None:
        """Write down bundle and settings; the pod fetches and verifies the blobs."""
        into.mkdir(parents=True)
        (into / _BUNDLE).write_text(codec.dumps(bundle))
        (into / _SETTINGS).write_text(codec.dumps(settings or {}))

    def config_text(self, bundle: Bundle, model: str, serving: ServingConfig, *, native: bool = True) -> str:
        """The config.pbtxt text of one model."""
        return self._local.config_text(bundle, model, serving, native=True)

    def parse(self, text: str, *, where: str) -> ModelSpec:
        """As on this machine."""
        return self._local.parse(text, where=where)


class BenchReplica:
    """One measured replica; implements RunningServer."""

    pid = 0  # it runs elsewhere

    def __init__(self, cluster: Cluster, run: bench.Run, pod: str, key: str) -> None:
        self._cluster, self._run, self._open = cluster, run, contextlib.ExitStack()
        self.http_url, self.grpc_url = bench.address(run, HTTP), bench.address(run, GRPC)
        local = self._open.enter_context(portforward.listen(cluster.client(), run.namespace, pod, HTTP))
        self.api = TritonApi(local, secret=key)

    def infer(self, model: str, request: dict[str, Any], *, timeout_s: float = 30.0) -> dict[str, Any]:
        """One request."""
        return self.api.infer(model, request, timeout_s=timeout_s)

    def apply(self, model: str, config_text: str) -> None:
        """Load the model under another configuration."""
        self.api.load(model, config_json(config_text))

    def stats(self) -> ServerStats:
        """Cumulative statistics of every model."""
        return self.api.stats()

    def trace(self, model: str, requests: Sequence[dict[str, Any]]) -> list[RequestTimes]:
        """No collector of ours is reachable from the pod: nothing."""
        del model, requests
        return []

    def loading_s(self) -> float | None:
        """Its log is the pod's: not read."""
        return None

    def core_use(self) -> CoreUse:
        """Not known from outside the pod: nothing. A replica of a cluster shares its cores with nobody, so no forecast needs it."""
        return CoreUse(server={}, backends={}, spent_s=0.0)

    def stop(self) -> None:
        """Remove it with everything that was made for it; safe to call twice."""
        self._open.close()
        jobs.remove(self._cluster, self._run)


class BenchLauncher:
    """ServerLauncher whose servers are pods of the plan's release, under settings that a folder of BenchRepository names."""

    def __init__(self, cluster: Cluster, plan: Plan, repository: BenchRepository) -> None:
        self._cluster, self._plan, self._repository = cluster, plan, repository

    def version(self) -> str:
        """Version of the plan's Triton."""
        return self._plan.triton_version

    def device(self) -> str:
        """Key of the pool's hardware."""
        return self._plan.device

    def cpus(self) -> tuple[int, ...]:
        """No core of this machine takes part."""
        return ()

    def on_cores(self, cpus: tuple[int, ...]) -> AbstractContextManager[None]:
        """Nothing to keep apart: the server has a machine of its own."""
        del cpus
        return contextlib.nullcontext()

    def busy_s(self, cpus: tuple[int, ...]) -> float:
        """Not known from here."""
        return 0.0

    def start(self, repository: Path, *, explicit: bool = False, cpus: tuple[int, ...] = ()) -> BenchReplica:
        """Start one replica and return when it has answered a real inference.

        Raises:
            ModelError: it ended while it started (`triton-load-failed`).
            NotConverged: its pod does not start (`bench-not-started`).
            ClusterError: it cannot be reached from here (`not-reachable`), or see `adapters.kubernetes`.
        """
        key = secrets.token_hex(24)
        run = bench.replica(self._inputs(repository), secrets.token_hex(4), lasts_s=_LASTS_S, admin_key=key if explicit else None)
        try:
            jobs.make(self._cluster, run)
            pod = jobs.wait_for_pod(self._cluster, run, jobs.ready, _START_S)
            if jobs.ended(pod):
                raise ModelError(
                    "the measured replica ended while it started", why=jobs.message(pod), hint="deployctl package --force", code="triton-load-failed"
                )
            return BenchReplica(self._cluster, run, pod["metadata"]["name"], key)
        except BaseException:
            jobs.remove(self._cluster, run)
            raise

    def _inputs(self, folder: Path) -> manifests.Inputs:
        bundle = codec.loads(Bundle, (folder / _BUNDLE).read_text())
        settings = codec.loads(dict[str, ServingConfig], (folder / _SETTINGS).read_text())
        plan = dataclasses.replace(self._plan, bundle=bundle.digest, entry=bundle.entry, settings={**self._plan.settings, **settings})
        scripts = {name: share.text(f"kube/{name}") for name in SCRIPTS}
        return manifests.gather(plan, bundle, self._repository.config_text, scripts, "apply")
