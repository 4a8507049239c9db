"""What to start, route and stop next. Pure: what enters is what is wanted and what runs, what leaves is a list of actions.

Called again and again by the host, it has no memory of its own: whatever was interrupted is found in what runs and finished.
Order of a roll-out: start new replicas beside the old, wait until all of them answered a real request, move traffic, drain the
old, stop them. The good one is never displaced by one that does not answer. Refuses to know processes and clocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

ReplicaState = Literal["starting", "ready", "draining", "stopping", "hung", "dead"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaView:
    """One replica as the decision sees it.

    Attributes:
        name: unique, in order of age.
        content: digest of what it serves.
        state: `starting` until its first right answer; `draining` from the moment it left the rotation.
        since_s: time of the last change of state.
        in_rotation: whether the front door sends it requests.
        idle: nothing is queued or was completed lately; None when that is not known.
    """

    name: str
    content: str
    state: ReplicaState
    since_s: float
    in_rotation: bool = False
    idle: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What should serve: content and number of replicas; `may_start_s` is the earliest time of the next start (back-off)."""

    content: str
    replicas: int
    may_start_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Times and bounds of change.

    Attributes:
        starts: replicas that load at the same time.
        drain_min_s: least time between leaving the rotation and SIGTERM; gRPC on SIGTERM loses what still arrives.
        drain_max_s: after this it is stopped even if it is still busy (Triton itself finishes what runs).
    """

    starts: int = 2
    drain_min_s: float = 2.0
    drain_max_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Start one replica of this content."""

    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Send traffic to exactly these replicas, in this order."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """It left the rotation: let it finish."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """End it: gracefully, or at once when it can finish nothing any more."""

    name: str
    reason: str
    graceful: bool


Action = Start | Route | Drain | Stop


def decide(wanted: Wanted, replicas: Sequence[ReplicaView], now_s: float, pace: Pace = Pace()) -> list[Action]:
    """The next actions; an empty list means that all is as wanted or something is being waited for.

    Args:
        wanted: content and number.
        replicas: all that exist.
        now_s: on the same clock as `since_s`.
        pace: times and bounds.
    """
    rotation = next_rotation(wanted, replicas)
    actions: list[Action] = [Start(content=wanted.content)] * _starts(wanted, replicas, now_s, pace)
    if rotation != tuple(r.name for r in replicas if r.in_rotation):
        actions.append(Route(names=rotation))
    for replica in replicas:
        if replica.name not in rotation:
            actions += _retire(wanted, replicas, replica, rotation, now_s, pace)
    return actions


def next_rotation(wanted: Wanted, replicas: Sequence[ReplicaView]) -> tuple[str, ...]:
    """Who should get traffic, oldest first.

    New content takes over as a whole once it is at full size, or at once where nothing else serves. Until then one old
    content serves alone: others may be ready too, if a release was replaced before it was at full size. The last replica
    is never taken out for being hung: a slow answer is more than none.
    """
    ready = [r for r in replicas if r.state == "ready"]
    new = [r.name for r in ready if r.content == wanted.content]
    old = [r for r in ready if r.content != wanted.content]
    if len(new) >= max(wanted.replicas, 1) or (new and not old):
        return tuple(_keep(new, wanted.replicas, replicas))
    if old:
        content = _old_content(old)
        return tuple(r.name for r in old if r.content == content)
    return tuple(r.name for r in replicas if r.state == "hung" and r.in_rotation)[-1:]


def _old_content(old: Sequence[ReplicaView]) -> str:
    """The content that serves already; where none of these does, the one with most replicas, and of equals the newest."""
    sizes = Counter(r.content for r in old)
    return max(reversed(old), key=lambda r: (r.in_rotation, sizes[r.content])).content


def _keep(names: list[str], count: int, replicas: Sequence[ReplicaView]) -> list[str]:
    """The replicas that stay when there are more than wanted: those already in rotation first, then the older ones."""
    serving = {r.name for r in replicas if r.in_rotation}
    chosen = sorted(range(len(names)), key=lambda i: (names[i] not in serving, i))[: max(count, 0)]
    return [names[i] for i in sorted(chosen)]


def _starts(wanted: Wanted, replicas: Sequence[ReplicaView], now_s: float, pace: Pace) -> int:
    mine = [r for r in replicas if r.content == wanted.content]
    starting = sum(r.state == "starting" for r in mine)
    usable = starting + sum(r.state == "ready" for r in mine)
    missing = wanted.replicas - usable
    if missing <= 0 or now_s < wanted.may_start_s:
        return 0
    return min(missing, max(0, pace.starts - starting))


def _retire(
    wanted: Wanted, replicas: Sequence[ReplicaView], replica: ReplicaView, rotation: tuple[str, ...], now_s: float, pace: Pace
) -> list[Action]:
    """What happens to a replica that gets no traffic any more."""
    if replica.state == "stopping":
        return []
    if replica.state in ("hung", "dead"):
        return [Stop(name=replica.name, reason=replica.state, graceful=False)]
    mine = replica.content == wanted.content
    if replica.state == "starting":
        return [] if mine and replica.name not in _surplus(wanted, replicas) else [Stop(name=replica.name, reason="no longer wanted", graceful=False)]
    if replica.state == "ready":
        if mine and wanted.replicas > 0 and not any(r.name in rotation and r.content == wanted.content for r in replicas):
            return []  # it waits for its mates: the old release serves until the new one is at full size
        return [Drain(name=replica.name, reason="scaled down" if mine else "replaced")]
    waited_s = now_s - replica.since_s
    if (waited_s >= pace.drain_min_s and replica.idle) or waited_s >= pace.drain_max_s:
        return [Stop(name=replica.name, reason="drained" if replica.idle else "drain timeout", graceful=True)]
    return []


def _surplus(wanted: Wanted, replicas: Sequence[ReplicaView]) -> list[str]:
    """Replicas beyond the wanted number, those that still start first."""
    mine = [r for r in replicas if r.content == wanted.content]
    ordered = [r.name for state in ("ready", "starting") for r in mine if r.state == state]
    return ordered[wanted.replicas :]
