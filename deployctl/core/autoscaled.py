"""The autoscaler in the loop of the simulator: a policy decides, replicas start and drain, and every request is followed.

What enters are a trace, a measured profile with its settings, the plant and a policy; what leaves is a replay's `Run` whose misses
are counted request by request, and all latencies. The loop, the policy and what it sees are those of `replay.py`; only the service
differs: batches, queues, the spread over replicas and noise are those of `simulate.py`. Refuses to know clocks; a seed gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from deployctl.core import fluid, replay
from deployctl.core.decision import ScalingPolicy
from deployctl.core.demand import Demand, constant
from deployctl.core.fluid import Flow, Plant
from deployctl.core.profile import ServiceProfile
from deployctl.core.replay import Run, View
from deployctl.core.serving import ServingConfig
from deployctl.core.simulate import Scenario, Stoppable, stoppable
from deployctl.core.traces import Trace

FloatArray = npt.NDArray[np.float64]
_ACTIVE, _IN_FLIGHT = 0, 1  # columns of the simulator's replicas


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is simulated.

    Attributes:
        profile: measured service times of every stage.
        config: settings by model name; a queue policy that refuses stands here.
        limit_s: latency that the SLO allows a request.
        most: replicas that the simulation has room for; a policy that wants more gets no more.
        demand: for its size mix; None is one size.
        scenario: spread over replicas and sharing of cores.
    """

    profile: ServiceProfile
    config: Mapping[str, ServingConfig]
    limit_s: float
    most: int
    demand: Demand | None = None
    scenario: Scenario = Scenario()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Simulated:
    """A policy on a simulated service.

    Attributes:
        run: as a replay gives it; a request is missed if it was refused or its answer came after the limit.
        arrival_s, latency_s: by request; latency is NaN for those that were refused.
    """

    run: Run
    arrival_s: FloatArray
    latency_s: FloatArray


def simulate_policy(
    trace: Trace, plant: Plant, settings: ScalingPolicy, subject: Subject, *, seed: int, view: View | None = None, name: str | None = None
) -> Simulated:
    """Run a policy on a simulated service.

    Args:
        trace: arrivals; within a second they come at random.
        plant: capacity that the policy reckons with, and the start-up time.
        settings: names the policy.
        subject: the service.
        seed: of all randomness.
        view: how stale and coarse the policy's readings are; None as in a replay.
        name: for reports; None is the policy's own.
    """
    arrival_s = arrival_times(trace, seed=seed)
    counted = replace(trace, arrivals=np.bincount(arrival_s.astype(np.int64), minlength=trace.arrivals.shape[0]).astype(np.float64))
    demand = subject.demand or constant(max(counted.mean_rps, 1.0))
    machine = stoppable(subject.profile, subject.config, subject.most, demand, arrival_s, seed=seed, scenario=subject.scenario)
    settings = replace(settings, max_replicas=min(settings.max_replicas, subject.most))
    fleet: list[Fleet] = []

    def build(first: int) -> Fleet:
        fleet.append(Fleet(machine=machine, arrivals=counted.arrivals, arrival_s=arrival_s, plant=plant, limit_s=subject.limit_s, first=first))
        return fleet[0]

    run = replay.replay(counted, plant, settings, view=view or View(), build=build, name=name)
    return Simulated(run=run, arrival_s=arrival_s, latency_s=machine.latency_s(arrival_s))


def arrival_times(trace: Trace, *, seed: int) -> FloatArray:
    """A moment for each request of a trace, rising; parts of requests add up over seconds."""
    total = np.concatenate([[0.0], np.floor(np.cumsum(trace.arrivals) + 1e-6)])
    counts = np.diff(total).astype(np.int64)
    within = np.random.default_rng(seed).random(int(counts.sum()))
    times: FloatArray = np.sort(np.repeat(np.arange(counts.shape[0]), counts) + within)
    return times


@dataclass(slots=True, kw_only=True)
class Fleet:
    """The simulated replicas as a `fluid.Service`: what is wanted is started and drained, second by second."""

    machine: Stoppable
    arrivals: FloatArray
    arrival_s: FloatArray
    plant: Plant
    limit_s: float
    first: int
    at: int = 0
    wanted: npt.NDArray[np.int64] = field(init=False)
    out: FloatArray = field(init=False)
    _due: list[int] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.wanted = np.full(self.arrivals.shape[0], self.first, dtype=np.int64)
        self.out = np.zeros((5, self.arrivals.shape[0]))
        for _ in range(self.first):
            self._open()

    @property
    def replicas(self) -> tuple[int, int]:
        """Ready and starting replicas."""
        return int(self.machine.cluster.replica[:, _ACTIVE].sum()), len(self._due)

    def advance(self, until: int) -> None:
        """Start, drain and serve up to second `until`; after the last second, until every request has its answer."""
        cluster, end = self.machine.cluster, self.arrivals.shape[0]
        for second in range(self.at, min(until, end)):
            self._follow(second)
            cluster.advance(float(second + 1))
            ready, starting = self.replicas
            backlog, power = float(cluster.waiting), ready * self.plant.capacity_rps
            wait_s = backlog / power if power else (np.inf if backlog else 0.0)
            self.out[:4, second] = ready, starting, backlog, wait_s
            self.out[4, second] = self._refused(second)
        self.at = min(until, end)
        if self.at == end:
            cluster.advance(np.inf)

    def flow(self) -> Flow:
        """What happened; misses by the second in which the request arrived."""
        latency_s = self.machine.latency_s(self.arrival_s)
        late = ~(latency_s <= self.limit_s)
        self.out[4] = np.bincount(self.arrival_s[late].astype(np.int64), minlength=self.out.shape[1])
        return fluid.flow_of(self)

    def _follow(self, second: int) -> None:
        """Make those that are due ready, then start or stop until what is wanted is there: those that would be ready last go first."""
        for _ in range(sum(due <= second for due in self._due)):
            self._due.pop(0)
            self._open()
        ready, starting = self.replicas
        change = int(self.wanted[second]) - ready - starting
        for _ in range(change):
            if self.plant.start_up_s:
                self._due.append(second + self.plant.start_up_s)
            else:
                self._open()
        for _ in range(-change):
            if self._due:
                self._due.pop()
            else:
                self._drain()

    def _open(self) -> None:
        """A free place takes requests, one that is empty if there is any."""
        replica = self.machine.cluster.replica
        free = np.flatnonzero(replica[:, _ACTIVE] == 0)
        replica[free[np.argmin(replica[free, _IN_FLIGHT])], _ACTIVE] = 1

    def _drain(self) -> None:
        """The last replica takes no more requests and answers those it has."""
        replica = self.machine.cluster.replica
        replica[np.flatnonzero(replica[:, _ACTIVE])[-1], _ACTIVE] = 0

    def _refused(self, second: int) -> float:
        first, last = np.searchsorted(self.arrival_s, (second, second + 1))
        return float((self.machine.cluster.done_s[first:last] < 0).sum())
