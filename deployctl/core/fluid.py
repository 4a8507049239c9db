"""A service as a fluid: load flows in, replicas that take time to start let it out, what is too much waits or is refused.

What enters are arrivals of each second and the number of replicas wanted; what leaves are ready replicas, backlog, waiting
time and missed requests, one value a second. Refuses to know batches and single requests (`simulate.py` does), so it
flatters every policy alike and is quick enough to search in: about 2 ms a day.

Symbols: with n(t) ready replicas of capacity c, arrivals a(t) and backlog q(t), q(t+1) = max(q(t) + a(t) - c n(t), 0); the
wait is q/(c n). With admission control a request that would wait longer than the SLO allows is refused at once (a miss);
without it, it is served too late (a miss as well, and it delays the next).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from deployctl.core import _fluid_kernels
from deployctl.core.profile import ColdStart

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

WINDOW_S = 300  # windows in which an SLO is judged
WINDOW_MISS = 0.01  # a window with more misses breaks the p99
JOINED_S = 30  # breaches closer than this are one


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """The service that is scaled.

    Attributes:
        capacity_rps: largest rate at which one replica keeps the SLO.
        start_up_s: whole seconds from the decision to the first answer.
        wait_s: how long a request may wait in the queue and still keep the SLO.
        base_p99_s: response time at the SLO's percentile without waiting.
        admission: whether Triton's queue policy refuses what would be late.
        cold_start: the stages of `start_up_s`, for reports; None where it was only stated.
    """

    capacity_rps: float
    start_up_s: int
    wait_s: float = 1.0
    base_p99_s: float = 0.0
    admission: bool = True
    cold_start: ColdStart | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Flow:
    """What happened, one value a second, (n,) each."""

    arrivals: FloatArray
    wanted: IntArray
    ready: FloatArray
    starting: FloatArray
    backlog: FloatArray
    wait_s: FloatArray
    missed: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A run in figures.

    Attributes:
        cost_s: replica-seconds, starting ones included.
        miss_ratio: missed share of all requests.
        windows_ok_ratio: share of five-minute windows with at most 1 % misses.
        longest_breach_s: longest time of misses without a pause of 30 s.
        starts: replicas started.
        peak: most replicas at once.
    """

    cost_s: float
    miss_ratio: float
    windows_ok_ratio: float
    longest_breach_s: float
    starts: int
    peak: int

    def keeps(self, *, start_up_s: float, miss_ratio: float = 0.01, windows_ratio: float = 0.99) -> bool:
        """Whether the promise was kept: misses, windows, and no breach longer than a start-up and a minute."""
        return self.miss_ratio <= miss_ratio and self.windows_ok_ratio >= windows_ratio and self.longest_breach_s <= start_up_s + 60.0


class Service(Protocol):
    """A service that a policy is replayed on, second by second: as a fluid (`Tank`), or request by request (`autoscaled.py`).

    Attributes:
        at: the second that comes next.
        arrivals: of each second, (n,).
        wanted: replicas wanted at each second, (n,); whoever drives it writes ahead of `at`.
        out: rows ready, starting, backlog, wait in seconds and missed requests, (5, n), up to `at`.
    """

    at: int
    arrivals: FloatArray
    wanted: IntArray
    out: FloatArray

    @property
    def replicas(self) -> tuple[int, int]:
        """Ready and starting replicas at this moment."""
        ...

    def advance(self, until: int) -> None:
        """Let everything happen up to second `until`."""
        ...

    def flow(self) -> Flow:
        """What has happened so far."""
        ...


class Tank:
    """A run in progress: arrivals are known, replicas are asked for as it goes on. The only mutable thing here."""

    def __init__(self, arrivals: FloatArray, plant: Plant, *, first: int) -> None:
        n = arrivals.shape[0]
        self.at = 0
        self.plant = plant
        self.arrivals = np.ascontiguousarray(arrivals, dtype=np.float64)
        self.wanted = np.full(n, first, dtype=np.int64)
        self.out = np.zeros((5, n))
        self._due = np.zeros(n + 1, dtype=np.int64)
        self._now = np.array([float(first), 0.0, 0.0])
        self._plant = np.array([plant.capacity_rps, float(plant.start_up_s), plant.wait_s, float(plant.admission)])

    @property
    def replicas(self) -> tuple[int, int]:
        """Ready and starting replicas at this moment."""
        return int(self._now[0]), int(self._now[1])

    def advance(self, until: int) -> None:
        """Let the load flow up to second `until`, with `wanted` as it stands."""
        until = min(until, self.arrivals.shape[0])
        _fluid_kernels.flow(self.arrivals, self.wanted, np.array([self.at, until]), self._plant, self._due, self._now, self.out)
        self.at = until

    def flow(self) -> Flow:
        """What has happened so far."""
        return flow_of(self)


def flow_of(service: Service) -> Flow:
    """The flow of a run up to where it is."""
    ready, starting, backlog, wait_s, missed = service.out[:, : service.at]
    return Flow(
        arrivals=service.arrivals[: service.at],
        wanted=service.wanted[: service.at],
        ready=ready,
        starting=starting,
        backlog=backlog,
        wait_s=wait_s,
        missed=missed,
    )


def run(arrivals: FloatArray, wanted: IntArray, plant: Plant) -> Flow:
    """Let the load flow through the replicas wanted at each second; the first value is ready at once."""
    tank = Tank(arrivals, plant, first=int(wanted[0]) if wanted.shape[0] else 0)
    tank.wanted[:] = wanted
    tank.advance(arrivals.shape[0])
    return tank.flow()


def hpa_wanted(load: FloatArray, *, target: float, window_s: int, min_replicas: int, first: int, tolerance: float = 0.1) -> IntArray:
    """What an HPA on a total load would want at each second (15 s sync, default speed): for searching settings in hindsight."""
    wanted: IntArray = _fluid_kernels.hpa_wanted(load, target, window_s, tolerance, min_replicas, 10**6, 15, first)
    return wanted


def measured_rate(arrivals: FloatArray, *, scrape_s: int, window_s: int) -> FloatArray:
    """Rate over a window of scraped counters as a rule sees it at the start of each second: (n,), requests a second."""
    total = np.concatenate([[0.0], np.cumsum(arrivals)])
    seconds = np.arange(arrivals.shape[0])
    newest = (seconds // scrape_s) * scrape_s
    oldest = np.maximum(newest - window_s, 0)
    rate: FloatArray = (total[newest] - total[oldest]) / np.maximum(newest - oldest, 1)
    return rate


def outcome(flow: Flow, *, skip_s: int = 0) -> Outcome:
    """Figures of a run, leaving out the first `skip_s` seconds."""
    arrivals, missed = flow.arrivals[skip_s:], flow.missed[skip_s:]
    total = float(arrivals.sum())
    return Outcome(
        cost_s=float((flow.ready + flow.starting)[skip_s:].sum()),
        miss_ratio=float(missed.sum()) / total if total > 0 else 0.0,
        windows_ok_ratio=windows_ok(arrivals, missed),
        longest_breach_s=longest_breach(arrivals, missed),
        starts=int(np.maximum(np.diff(flow.ready[skip_s:]), 0.0).sum()),
        peak=int((flow.ready + flow.starting)[skip_s:].max(initial=0.0)),
    )


def windows_ok(arrivals: FloatArray, missed: FloatArray) -> float:
    """Share of whole five-minute windows (all of it, where there is less) with at most 1 % misses."""
    width = min(WINDOW_S, arrivals.shape[0])
    if width == 0:
        return 1.0
    count = arrivals.shape[0] // width
    late = missed[: count * width].reshape(count, width).sum(axis=1)
    came = arrivals[: count * width].reshape(count, width).sum(axis=1)
    return float((late <= WINDOW_MISS * came + 1e-9).mean())


def breaches(arrivals: FloatArray, missed: FloatArray) -> list[tuple[int, int]]:
    """First and last second of each breach: seconds with more than 1 % misses, joined over pauses shorter than 30 s."""
    at = np.flatnonzero(missed > WINDOW_MISS * arrivals + 1e-9)
    if at.size == 0:
        return []
    cuts = np.flatnonzero(np.diff(at) > JOINED_S)
    firsts = np.concatenate([[0], cuts + 1])
    lasts = np.concatenate([cuts, [at.size - 1]])
    return [(int(at[a]), int(at[b])) for a, b in zip(firsts, lasts, strict=True)]


def longest_breach(arrivals: FloatArray, missed: FloatArray) -> float:
    """Seconds of the longest breach; 0 where there is none."""
    return float(max((last - first + 1 for first, last in breaches(arrivals, missed)), default=0))
