"""A host that lives in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from deployctl.core.contention import CoreReading
from deployctl.core.kube_drift import Difference
from deployctl.core.plan import Plan
from deployctl.core.release import Release
from deployctl.errors import ClusterError, DeployctlError
from deployctl.ports import Progress, ReplicaStatus, ServerStats, TargetStatus


class MemoryTarget:
    """A host that rolls out one step at each look at its status.

    Args:
        steps: looks that a roll-out takes.
        fail: revisions that never become ready -> the cause.
    """

    URL = "http://127.0.0.1:8000"

    def __init__(self, *, steps: int = 2, fail: dict[int, str] | None = None) -> None:
        self.steps = steps
        self.fail = fail or {}
        self.wanted: Release | None = None
        self.serving: Release | None = None
        self.applied: list[int] = []
        self.in_the_way: DeployctlError | None = None
        self.rows: tuple[dict[str, float], ...] = ()
        self.unreachable = ""
        self.differences: list[Difference] = []
        self.core_readings: list[CoreReading] = []
        self._left = 0

    def check(self, plan: Plan) -> None:
        """Nothing is in the way but `in_the_way`."""
        if self.in_the_way is not None:
            raise self.in_the_way

    def apply(self, release: Release) -> None:
        """Make the release the wanted one."""
        self.applied.append(release.revision)
        if self.wanted is None or self.wanted.digest != release.digest:
            self._left = self.steps
        self.wanted = release

    def stats(self) -> dict[str, ServerStats]:
        """Nothing: no replica of memory counts."""
        return {}

    def core_reading(self) -> CoreReading | None:
        """The next of `core_readings`; None where none is left."""
        return self.core_readings.pop(0) if self.core_readings else None

    def status(self) -> TargetStatus:
        """The state; looking moves a roll-out on."""
        if self.wanted is None:
            return self._state("stopped", "nothing runs")
        cause = self.fail.get(self.wanted.revision)
        if self.serving is not None and self.serving.revision == self.wanted.revision:
            return self._state("serving", "all replicas are ready")
        if self._left > 0:
            self._left -= 1
            return self._state("rolling" if self.serving else "starting", f"{self._left} steps left")
        if cause:
            return self._state("failed", cause)
        self.serving = self.wanted
        return self._state("serving", "all replicas are ready")

    @contextlib.contextmanager
    def reach(self) -> Iterator[str]:
        """The one address, or ClusterError (`not-reachable`) where `unreachable` says why."""
        if self.unreachable:
            raise ClusterError("no way in from here", why=self.unreachable, hint="deployctl status", code="not-reachable")
        yield self.URL

    def drift(self) -> list[Difference]:
        """What the test put there."""
        return self.differences

    def pending(self, plan: Plan) -> list[Difference]:
        """What the test put there."""
        return self.differences

    def logs(self, *, replica: str | None, since_s: float | None, follow: bool) -> Iterator[str]:
        """One line a component."""
        lines = [(name, f"{name} speaks") for name in ("supervisor", "front-door", "replica-1")]
        return iter(text for name, text in lines if replica in (None, name))

    def down(self, progress: Progress) -> None:
        """Stop."""
        progress.step("stopping")
        self.wanted = self.serving = None

    def _state(self, phase: str, message: str) -> TargetStatus:
        serving = self.serving
        count = serving.plan.replicas if serving else 0
        replicas = tuple(
            ReplicaStatus(
                name=f"replica-{i + 1}", state="ready", reason="answers", revision=serving.revision, pid=100 + i, http_port=9000 + i, since_s=0.0
            )
            for i in range(count)
            if serving
        )
        return TargetStatus(
            alive=self.wanted is not None,
            url=self.URL if serving else None,
            grpc_url="127.0.0.1:8001" if serving else None,
            revision_serving=serving.revision if serving else None,
            revision_wanted=self.wanted.revision if self.wanted else None,
            phase=phase,
            message=message,
            replicas=replicas,
            replicas_wanted=self.wanted.plan.replicas if self.wanted else 0,
            policy_says="busy_ratio is on target",
            recent=self.rows,
        )
