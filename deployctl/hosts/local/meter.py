"""Signals for the policy and rows for `status`, from cumulative counters: what enters are readings, what leaves are rates.

A counter that went down belongs to a process that was started anew; a replica without two readings says nothing (which is not
zero). Refuses to know where readings come from.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from deployctl.adapters.envoy import DoorCounters
from deployctl.core import histogram
from deployctl.core.bundle import Bundle
from deployctl.core.decision import Reading
from deployctl.core.serving import ServingConfig
from deployctl.ports import ServerStats

_KEEP_S = 120.0
PEAK_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaRates:
    """One replica over one window: busy share of the bottleneck stage, completions, failures, mean queue and service seconds."""

    busy_ratio: float
    completions_rps: float
    failures_rps: float
    queue_s: float | None
    service_s: float | None


class ReplicaMeter:
    """Readings of one replica, as far back as two minutes."""

    def __init__(self, bundle: Bundle, settings: dict[str, ServingConfig]) -> None:
        self._bundle = bundle
        self._instances = {m.name: settings.get(m.name, m.serving).instances for m in bundle.models if m.backend != "ensemble"}
        self._readings: deque[ServerStats] = deque()
        self.pending: int | None = None

    def add(self, stats: ServerStats, pending: int | None) -> None:
        """Take a reading."""
        self.pending = pending
        self._readings.append(stats)
        while self._readings[-1].at_s - self._readings[0].at_s > _KEEP_S:
            self._readings.popleft()

    def idle(self) -> bool | None:
        """Nothing queued, and nothing completed between the last two readings; None when there are none."""
        if self.pending is None or len(self._readings) < 2:
            return None
        before, now = self._readings[-2], self._readings[-1]
        return self.pending == 0 and sum(now.success.values()) == sum(before.success.values())

    def rates(self, window_s: float) -> ReplicaRates | None:
        """Over the last `window_s`, or as much of it as is known; None with fewer than two readings."""
        if len(self._readings) < 2:
            return None
        now = self._readings[-1]
        before = next(r for r in self._readings if r.at_s >= now.at_s - window_s - 0.25 or r is now)
        if before is now:
            before = self._readings[-2]
        dt_s = now.at_s - before.at_s
        if dt_s <= 0:
            return None
        entry = self._bundle.entry
        busy = [self._compute_s(before, now, model) / (dt_s * count) for model, count in self._instances.items()]
        done = now.success.get(entry, 0) - before.success.get(entry, 0)
        return ReplicaRates(
            busy_ratio=max(busy, default=0.0),
            completions_rps=done / dt_s,
            failures_rps=(now.failure.get(entry, 0) - before.failure.get(entry, 0)) / dt_s,
            queue_s=self._queue_s(before, now) / done if done else None,
            service_s=sum(self._compute_s(before, now, m) for m in self._instances) / done if done else None,
        )

    def _queue_s(self, before: ServerStats, now: ServerStats) -> float:
        return sum(now.queue_s.get(m, 0.0) - before.queue_s.get(m, 0.0) for m in self._instances)

    @staticmethod
    def _compute_s(before: ServerStats, now: ServerStats, model: str) -> float:
        """Seconds that instances computed: `batch_stats` counts each execution once, whatever its batch."""
        return _total_s(now, model) - _total_s(before, model)


def _total_s(stats: ServerStats, model: str) -> float:
    return sum(sum(row[1:]) for row in stats.batch_stats.get(model, {}).values())


@dataclass(slots=True, kw_only=True)
class DoorMeter:
    """Counters of the front door, made monotonic over its restarts."""

    requests: float = 0.0
    errors: float = 0.0
    in_flight: float | None = None
    _last: DoorCounters | None = None
    _points: deque[tuple[float, float, float, dict[float, float]]] = field(default_factory=deque)

    def add(self, at_s: float, counters: DoorCounters | None) -> None:
        """Take a reading (None: it did not answer)."""
        self.in_flight = None if counters is None else counters.in_flight
        if counters is None:
            return
        last = self._last or DoorCounters(latency={}, requests=0.0, errors=0.0, in_flight=0.0)
        restarted = counters.requests < last.requests
        step = histogram.since(last.latency, counters.latency)
        self.requests += counters.requests - (0.0 if restarted else last.requests)
        self.errors += counters.errors - (0.0 if restarted else last.errors)
        self._last = counters
        self._points.append((at_s, self.requests, self.errors, step))
        while at_s - self._points[0][0] > _KEEP_S:
            self._points.popleft()

    def window(self, window_s: float) -> tuple[float, float, float, dict[float, float]] | None:
        """Seconds, requests and errors added over the last `window_s`, and their latencies; None with fewer than two readings."""
        if len(self._points) < 2:
            return None
        now_s = self._points[-1][0]
        inside = [p for p in self._points if p[0] >= now_s - window_s - 0.25]
        first = inside[0] if len(inside) > 1 else self._points[-2]
        steps = [p[3] for p in self._points if p[0] > first[0]]
        last = self._points[-1]
        return last[0] - first[0], last[1] - first[1], last[2] - first[2], histogram.added(list(steps))

    def peak_rps(self, window_s: float) -> float | None:
        """The largest rate over PEAK_S that ends within the last `window_s`; None where history is shorter."""
        points = [(p[0], p[1]) for p in self._points]
        rates = []
        for i, (at_s, total) in enumerate(points):
            earlier = [p for p in points[:i] if p[0] <= at_s - PEAK_S + 0.25]
            if earlier and at_s > points[-1][0] - window_s:
                rates.append((total - earlier[-1][1]) / (at_s - earlier[-1][0]))
        return max(rates, default=None)


def signals(replicas: list[ReplicaMeter], door: DoorMeter, window_s: float) -> dict[str, Reading]:
    """All readings that a policy may ask for; one that cannot be known has the value None."""
    known = [r for r in (m.rates(window_s) for m in replicas) if r is not None]
    pending = [m.pending for m in replicas if m.pending is not None]
    seen = door.window(window_s)
    complete = len(known) == len(replicas) and bool(known)
    values: dict[str, float | None] = {
        "busy_ratio": _mean([r.busy_ratio for r in known]),
        "completions_rps": sum(r.completions_rps for r in known) if complete else None,
        "pending": float(sum(pending)) if replicas and len(pending) == len(replicas) else None,
        "queue_s": _weighted(known, lambda r: r.queue_s),
        "service_s": _weighted(known, lambda r: r.service_s),
        "arrivals_rps": seen[1] / seen[0] if seen and seen[0] > 0 else None,
        "arrivals_peak_rps": door.peak_rps(window_s),
        "concurrency": door.in_flight,
        "latency_p99_s": histogram.quantile(seen[3], 0.99) if seen else None,
    }
    return {name: Reading(value=value, samples=len(known) if value is not None else 0) for name, value in values.items()}


def row(replicas: list[ReplicaMeter], door: DoorMeter, at_s: float, ready: int, core_seconds: float) -> dict[str, float]:
    """One interval's row for `status`: what is not known is left out; p50 and p99 are those of the last ten seconds."""
    out = {"at_s": at_s, "replicas_ready": float(ready), "core_seconds": core_seconds}
    if (now := door.window(1.0)) is not None and now[0] > 0:
        out |= {"arrivals_rps": now[1] / now[0], "errors": now[2]}
    if (longer := door.window(10.0)) is not None:
        for name, q in (("p50_s", 0.5), ("p99_s", 0.99)):
            if (value := histogram.quantile(longer[3], q)) is not None:
                out[name] = value
    known = [r for r in (m.rates(5.0) for m in replicas) if r is not None]
    if (busy := _mean([r.busy_ratio for r in known])) is not None:
        out["busy_ratio"] = busy
    if failing := sum(r.failures_rps for r in known):
        out["failures_rps"] = failing
    return out


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _weighted(known: list[ReplicaRates], pick: Callable[[ReplicaRates], float | None]) -> float | None:
    """Mean over requests, not over replicas."""
    pairs = [(value, r.completions_rps) for r in known if (value := pick(r)) is not None]
    total = sum(weight for _, weight in pairs)
    return sum(v * w for v, w in pairs) / total if total > 0 else None
