"""Replicas of a bundle on this machine's host behind its front door, for `bench_live.py` and `bench_fidelity.py`.

What enters are a bundle, settings and a number of replicas; each change is a release, as `deployctl scale` would write it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from deployctl.adapters import processes
from deployctl.adapters.records import FileRecordStore
from deployctl.core.bundle import Bundle
from deployctl.core.decision import ScalingPolicy
from deployctl.core.demand import Demand, RateStep
from deployctl.core.plan import Plan, Ports
from deployctl.core.release import next_release
from deployctl.core.serving import ServingConfig
from deployctl.core.slo import Objective, Slo
from deployctl.hosts.local.target import LocalTarget
from deployctl.ports import Workspace

LIMIT_S = 1.0
READY_S = 90


class Fleet:
    """The local host with as many replicas as the newest release says."""

    def __init__(self, workspace: Workspace, bundle: Bundle, settings: Mapping[str, ServingConfig], *, env: str = "local") -> None:
        self.bundle, self.settings, self.env = bundle, dict(settings), env
        self.records = FileRecordStore(workspace.env(env))
        self.target = LocalTarget(workspace, env)

    @property
    def url(self) -> str:
        """Host and port of the front door."""
        return (self.target.status().url or "").removeprefix("http://")

    def scale(self, replicas: int) -> None:
        """Write a release with so many replicas."""
        history = self.records.history()
        plan = Plan(
            service=self.bundle.entry,
            env=self.env,
            target="local",
            bundle=self.bundle.digest,
            entry=self.bundle.entry,
            settings=self.settings,
            replicas=replicas,
            scaling=ScalingPolicy(min_replicas=replicas, max_replicas=replicas),
            slo=Slo(objectives=(Objective(metric="latency", percentile=99.0, max=LIMIT_S),)),
            demand=Demand(steps=(RateStep(start_s=0.0, rate_rps=10.0),)),
            triton_version="2.51.0",
            device="cpu",
            ports=Ports(http=0, grpc=0),
        )
        release = next_release(history, plan, action="scale", now_s=time.time())
        self.records.append(release, expected_parent=history.current.digest if history.current else None)
        self.target.apply(release)

    def ready(self) -> int:
        """Replicas that answer."""
        return sum(r.state == "ready" for r in self.target.status().replicas)

    def settle(self, replicas: int) -> float:
        """Scale and wait until so many answer: seconds that took."""
        began = time.monotonic()
        self.scale(replicas)
        settled = processes.wait_for(lambda: self.ready() == replicas == len(self.target.status().replicas), READY_S)
        assert settled, "the local host did not come to the wanted number of replicas"
        return time.monotonic() - began
