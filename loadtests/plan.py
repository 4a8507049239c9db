"""What will be sent and when, fixed before the first request: a request file enters, arrays and encoded bodies leave.

Nothing here looks at a clock or a socket. The same demand and seed give the same arrivals as deployctl's simulator,
because both call `deployctl.core.arrivals`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deployctl.core import codec
from deployctl.core.arrivals import arrival_times_s, sizes
from deployctl.core.demand import Demand, RateStep

MAX_REQUESTS = 5_000_000
MAX_BODIES = 10_000
MAX_BODY_BYTES = 256 * 1024 * 1024


class PlanError(Exception):
    """The request file or the bodies cannot be used; `code` is one of deployctl's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, kw_only=True)
class Request:
    """One load test as asked for; times in seconds, `url` is host:port without a scheme."""

    url: str
    protocol: str
    model: str
    bodies: str
    demand: Demand
    duration_s: float
    seed: int
    warmup_s: float = 1.0
    grace_s: float = 10.0
    trace_ratio: float = 0.0
    timeout_s: float = 10.0
    max_in_flight: int = 1024

    @classmethod
    def read(cls, path: Path) -> Request:
        """Parse a request file."""
        data = json.loads(path.read_text())
        data["demand"] = codec.from_data(Demand, data["demand"])
        return cls(**data)


@dataclass(frozen=True, kw_only=True)
class Body:
    """One example request: its size bucket and its OIP input map."""

    size: int
    inputs: dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that is sent: `times_s` (n,) relative to the judged start (warm-up is negative), body and size of each.

    `bodies` are the examples that occur; `body` (n,) indexes them.
    """

    request: Request
    times_s: npt.NDArray[np.float64]
    body: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]
    bodies: list[Body] = field(repr=False)

    @property
    def warmup_requests(self) -> int:
        """How many leading requests are sent but not judged."""
        return int(np.count_nonzero(self.times_s < 0))


def make(request: Request) -> Plan:
    """Draw arrivals, sizes and bodies.

    Raises:
        PlanError: too many requests, no bodies, or no body of a size that the mix names.
    """
    bodies = read_bodies(Path(request.bodies))
    judged = arrival_times_s(request.demand, request.duration_s, np.random.default_rng(request.seed))
    warm = _warmup_times_s(request, len(judged))
    times = np.concatenate((warm - request.warmup_s, judged)) if warm.size else judged
    if len(times) > MAX_REQUESTS:
        raise PlanError("demand-too-large", f"{len(times)} requests are planned; one test sends at most {MAX_REQUESTS}")
    chosen = _choose(request, bodies, len(times))
    by_body = np.array([b.size for b in bodies], dtype=np.int64)
    return Plan(request=request, times_s=times, body=chosen, size=by_body[chosen], bodies=bodies)


def _warmup_times_s(request: Request, judged: int) -> npt.NDArray[np.float64]:
    """Poisson at the first rate, so that the judged part begins on a system in motion."""
    if request.warmup_s <= 0 or judged == 0:
        return np.empty(0)
    first = next((step.rate_rps for step in request.demand.steps if step.rate_rps > 0), 0.0)
    rate = judged / request.duration_s if request.demand.arrivals == "trace" else first
    if rate <= 0:
        return np.empty(0)
    return arrival_times_s(Demand(steps=(RateStep(start_s=0.0, rate_rps=rate),)), request.warmup_s, np.random.default_rng((request.seed, 3)))


def _choose(request: Request, bodies: list[Body], n: int) -> npt.NDArray[np.int64]:
    """A body for each request: the mix decides the size, chance decides which example of that size."""
    rng = np.random.default_rng((request.seed, 2))
    mix = request.demand.mix
    if len(mix) == 1 and mix[0].size == 1:  # no mix was stated: every example counts alike
        return rng.integers(0, len(bodies), size=n)
    wanted = sizes(request.demand, n, np.random.default_rng((request.seed, 1)))
    of_size: dict[int, list[int]] = {}
    for index, body in enumerate(bodies):
        of_size.setdefault(body.size, []).append(index)
    chosen = np.empty(n, dtype=np.int64)
    for size in np.unique(wanted):
        if int(size) not in of_size:
            have = ", ".join(map(str, sorted(of_size)))
            raise PlanError("loadtest-size-missing", f"the traffic has requests of size {size} and the examples have only sizes {have}")
        at = np.flatnonzero(wanted == size)
        chosen[at] = rng.choice(of_size[int(size)], size=at.size)
    return chosen


def read_bodies(path: Path) -> list[Body]:
    """The example requests, one JSON document a line.

    Raises:
        PlanError: a line does not parse, or there is none (`loadtest-bodies-invalid`).
    """
    bodies: list[Body] = []
    with path.open() as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                data = json.loads(line)
                bodies.append(Body(size=int(data.get("size", 1)), inputs=dict(data["inputs"])))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise PlanError("loadtest-bodies-invalid", f"{path.name}, line {number}: {error!r}") from error
            if len(bodies) >= MAX_BODIES:
                break
    if not bodies:
        raise PlanError("loadtest-bodies-invalid", f"{path.name} holds no request")
    return bodies
