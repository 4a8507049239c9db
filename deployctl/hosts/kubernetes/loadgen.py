"""Load tests from inside the cluster, behind the LoadGenerator port: one Job a test, its samples read from its log.

What enters is a LoadRequest whose address is one of the cluster's; what leaves are the exact samples. Needs an image that has deployctl
installed. The limits are the transport's: bodies must fit a ConfigMap, samples a log.
"""

from __future__ import annotations

import base64
import gzip
import secrets
import time

from deployctl.adapters.kubernetes import Cluster
from deployctl.core.manifests import bench
from deployctl.core.plan import Plan
from deployctl.errors import ClusterError, NotConverged, ProjectError
from deployctl.hosts.kubernetes import jobs, loadwire
from deployctl.ports import LoadRequest, LoadResult, Progress

BODIES_BYTES = 900_000  # compressed; a ConfigMap holds 1 MiB
REQUESTS = 200_000  # about 5 MB of log; kubelets rotate at 10 MiB
_START_S = 300.0  # an image may have to be pulled
_WAIT_S = 120.0  # beyond the test's own length


class JobLoadGenerator:
    """Implements the LoadGenerator port; `image` has deployctl installed."""

    def __init__(self, cluster: Cluster, plan: Plan, image: str | None) -> None:
        self._cluster, self._plan, self._image = cluster, plan, image

    def run(self, request: LoadRequest, progress: Progress | None = None) -> LoadResult:
        """Run to the end and return every sample.

        Raises:
            ProjectError: no image (`loadgen-image-missing`), or bodies or traffic beyond what can be carried (`loadtest-too-big`).
            NotConverged: its pod does not start (`bench-not-started`), died or said nothing complete (`loadgen-failed`).
            ModelError, ProjectError: as the generator in the pod says.
        """
        run = self._described(request)
        jobs.make(self._cluster, run)
        try:
            if progress is not None:
                progress.update("the load generator's pod starts")
            pod = jobs.wait_for_pod(self._cluster, run, _running, _START_S)
            return self._follow(run, pod["metadata"]["name"], time.monotonic() + request.warmup_s + request.duration_s + _WAIT_S, progress)
        finally:
            jobs.remove(self._cluster, run)

    def _described(self, request: LoadRequest) -> bench.Run:
        if self._image is None:
            raise ProjectError(
                "no image is named from which load tests run",
                why="the load has to come from inside the cluster, from a pod with deployctl installed",
                hint="build one (`FROM python:3.11-slim`, `RUN pip install deployctl`) and name it as `loadtest_image:` of the environment",
                code="loadgen-image-missing",
            )
        bodies = gzip.compress(request.bodies.read_bytes(), mtime=0)
        planned = request.demand.peak_rps * (request.duration_s + request.warmup_s)
        if len(bodies) > BODIES_BYTES or planned > REQUESTS:
            raise ProjectError(
                "this load test is too big to run in a pod",
                why=f"{len(bodies)} bytes of example requests (at most {BODIES_BYTES}), {planned:.0f} requests (at most {REQUESTS})",
                hint="give a smaller sample, a lower --rate or a shorter --duration",
                code="loadtest-too-big",
            )
        return bench.load(
            self._plan,
            secrets.token_hex(4),
            image=self._image,
            request=loadwire.request_text(request),
            bodies_gz_base64=base64.b64encode(bodies).decode(),
            lasts_s=_START_S + request.warmup_s + request.duration_s + _WAIT_S,
        )

    def _follow(self, run: bench.Run, pod: str, end_s: float, progress: Progress | None) -> LoadResult:
        """Read the log until it is complete; a stream that breaks is read again from its beginning."""
        while time.monotonic() < end_s:
            over = jobs.ended(jobs.wait_for_pod(self._cluster, run, _running, _WAIT_S))
            reader = loadwire.Reader()
            try:
                for line in self._cluster.logs(run.namespace, pod, "load", since_s=None, follow=not over):
                    complete = reader.feed(line)
                    if progress is not None and reader.progress:
                        progress.update(reader.progress)
                    if complete:
                        return _result(reader)
            except (ClusterError, OSError, ValueError) as error:
                if over:
                    raise _failed(f"its log cannot be read: {error}") from error
            if over:
                found = jobs.wait_for_pod(self._cluster, run, jobs.ended, _WAIT_S)
                raise _failed(jobs.message(found) or "its log ends without a result")
            time.sleep(0.5)
        raise _failed("it did not end in time")


def _running(pod: jobs.Pod) -> bool:
    return bool(pod.get("status", {}).get("phase") == "Running")


def _result(reader: loadwire.Reader) -> LoadResult:
    if reader.result is not None:
        return reader.result
    from deployctl.adapters.locust import MENDERS

    told = reader.error or {}
    kind = MENDERS.get(told["code"], NotConverged)
    raise kind(told["message"], why=told["why"], hint=told["hint"], code=told["code"])


def _failed(why: str) -> NotConverged:
    return NotConverged("the load generator in the cluster failed", why=why, hint="run the same command again", code="loadgen-failed")
