"""The replicas of an environment as the supervisor knows them: their records, and beside each what dies with this process.

What enters are changes, what leaves are records and views. A change counts once it is written down whole. Refuses to decide who
starts, serves or stops, and to act on processes, except for erasing what an ended replica left.
"""

from __future__ import annotations

import dataclasses
import time

from deployctl.core import health, rollout
from deployctl.core.rollout import ReplicaState
from deployctl.hosts.local import replica as work
from deployctl.hosts.local.layout import EnvFolder, Failure, HostState, ReplicaRecord
from deployctl.hosts.local.meter import ReplicaMeter
from deployctl.hosts.local.takeover import erase

STABLE_S = 60.0


class Live:
    """What this supervisor remembers of a replica beside its record: thread, counters, and monotonic times."""

    def __init__(self, thread: work.Replica, meter: ReplicaMeter, now_s: float) -> None:
        self.thread = thread
        self.meter = meter
        self.since_s = now_s
        self.stop_by_s = float("inf")


class Roster:
    """Records on disk (`state`) and live parts (`live`, by name) of all replicas."""

    def __init__(self, folder: EnvFolder) -> None:
        self._folder = folder
        self.state: HostState = folder.load()
        self.live: dict[str, Live] = {}

    def save(self, **changes: object) -> None:
        """Change the state and write it down."""
        state = dataclasses.replace(self.state, **changes)  # type: ignore[arg-type]
        self._folder.save(state)  # first: what cannot be written down is not done
        self.state = state

    def spend(self, core_seconds: float) -> None:
        """Add to the cost counter; it is written with the next change."""
        self.state = dataclasses.replace(self.state, core_seconds=self.state.core_seconds + core_seconds)

    def record(self, name: str) -> ReplicaRecord | None:
        """The replica of that name."""
        return next((r for r in self.state.replicas if r.name == name), None)

    def change(self, name: str, **changes: object) -> None:
        """Change one record."""

        def changed(record: ReplicaRecord) -> ReplicaRecord:
            return dataclasses.replace(record, **changes) if record.name == name else record  # type: ignore[arg-type]

        self.save(replicas=tuple(changed(r) for r in self.state.replicas))

    def set_state(self, name: str, state: ReplicaState, reason: str) -> None:
        """A replica enters a state now."""
        self.live[name].since_s = time.monotonic()
        self.change(name, state=state, reason=reason, since_s=time.time())

    def views(self) -> list[rollout.ReplicaView]:
        """All replicas as the roll-out decision sees them."""
        return [
            rollout.ReplicaView(
                name=r.name,
                content=r.content,
                state=r.state,
                since_s=self.live[r.name].since_s,
                in_rotation=r.in_rotation,
                idle=self.live[r.name].meter.idle(),
            )
            for r in self.state.replicas
        ]

    def count_failure(self, record: ReplicaRecord, reason: str, *, hopeless: bool) -> None:
        """One more failure of this content, and when the next start may be tried; one that was stable for a minute begins anew."""
        live = self.live.get(record.name)
        stable = record.state == "ready" and live is not None and time.monotonic() - live.since_s > STABLE_S
        former = self.state.failure
        same = former is not None and former.content == record.content and not stable
        count = 1 if former is None or not same else former.count + 1
        wait_s = health.backoff_s(count if record.state == "starting" else count - 1)
        failure = Failure(content=record.content, count=count, reason=reason, next_start_s=time.time() + wait_s, hopeless=hopeless)
        self.save(failure=failure)

    def forget(self, record: ReplicaRecord) -> None:
        """Remove all that is left of a replica, then its record."""
        erase(self._folder, record)
        self.save(replicas=tuple(r for r in self.state.replicas if r.name != record.name))
