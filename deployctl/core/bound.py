"""The least that a load can cost: what a scaler that knows the future would pay, and what one that does not would.

What enters are arrivals per second, the rate that one replica serves, its start-up time and the share of requests that may
be missed; what leaves is a cost in replica-seconds (or node-seconds). Refuses to know policies.

Replicas decouple into levels: level k serves the load between k-1 and k capacities. A level costs 1 a second from the moment
it is asked for, so a start costs the start-up time; per level the best plan is a dynamic program with two states (on, off).
A budget of misses enters as a price (Lagrange multiplier) that is bisected; by weak duality `cost` below is a true lower bound
for the fluid model in which a request is served in the second it arrives in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from deployctl.core import _fluid_kernels
from deployctl.core.fluid import WINDOW_MISS, WINDOW_S

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A lower bound on cost.

    Attributes:
        cost_s: replica-seconds (node-seconds for `node_bound`) that cannot be undercut with at most `miss_ratio` misses.
        feasible: False when no plan of this kind misses so little; then `least_miss_ratio` says what is possible.
        least_miss_ratio: the smallest share of misses at any cost.
        least_broken_ratio: the smallest share of five-minute windows with more than 1 % misses at any cost.
        price_s: replica-seconds that one request more or less is worth at the optimum.
    """

    cost_s: float
    miss_ratio: float
    feasible: bool = True
    least_miss_ratio: float = 0.0
    least_broken_ratio: float = 0.0
    price_s: float = 0.0


def clairvoyant(arrivals: FloatArray, *, capacity_rps: float, start_up_s: float, miss_ratio: float, min_replicas: int = 1) -> Bound:
    """The minimum for a scaler that knows all arrivals beforehand.

    Args:
        arrivals: requests of each second, (n,).
        capacity_rps: rate at which one replica keeps the SLO.
        start_up_s: seconds from asking for a replica to its first answer; paid.
        miss_ratio: share of all requests that may be missed.
        min_replicas: replicas that always run.
    """
    return _search(arrivals, capacity_rps, start_up_s, miss_ratio, min_replicas, -1)


def without_foresight(
    arrivals: FloatArray,
    *,
    capacity_rps: float,
    start_up_s: float,
    miss_ratio: float,
    detection_s: float = 0.0,
    min_replicas: int = 1,
    running: int = 1,
) -> Bound:
    """The minimum for a scaler that asks for its k-th replica only while a load that needs it is being seen.

    The order takes effect `start_up_s + detection_s` later; *when to stop* is still chosen with knowledge of the future. So
    the difference to `clairvoyant` is the value of a forecast, and a policy below this bound did forecast (or kept a reserve for
    a load that it had not seen). `running` replicas are there at the start, for those that want them.
    """
    lag = math.ceil(start_up_s + detection_s)
    return _search(arrivals, capacity_rps, start_up_s, miss_ratio, min_replicas, lag, max(running, min_replicas))


def relaxed(arrivals: FloatArray, *, wait_s: float) -> FloatArray:
    """The evenest load that a service may make of these arrivals if each may wait up to `wait_s` (whole seconds): (n,).

    The shortest path (taut string) between the cumulative arrivals and the same curve `wait_s` later: among all ways to serve
    in time it has the lowest peaks and the least change, so a bound on it is a bound for every one of them.
    """
    delay = int(wait_s)
    if delay < 1 or arrivals.shape[0] < 2:
        return arrivals
    upper = np.concatenate([[0.0], np.cumsum(arrivals)])
    lower = np.concatenate([np.zeros(delay), upper[:-delay]])
    lower[-1] = upper[-1]
    rates: FloatArray = _fluid_kernels.taut_string(lower, upper)
    return rates


def node_bound(
    arrivals: FloatArray,
    *,
    capacity_rps: float,
    per_node: int,
    start_up_s: float,
    node_start_s: float,
    node_removal_s: float,
    miss_ratio: float,
    min_nodes: int = 1,
) -> Bound:
    """The clairvoyant minimum in node-seconds: `per_node` replicas share a node that takes time to come and to go."""
    cycle_s = start_up_s + node_start_s + node_removal_s
    return _search(arrivals, capacity_rps * per_node, cycle_s, miss_ratio, min_nodes, -1)


def nodes_needed(replicas: FloatArray, *, per_node: int, node_start_s: float, node_removal_s: float) -> float:
    """Node-seconds that a series of replicas (one value a second) costs: packed, each node kept `node_removal_s` after its last use."""
    nodes = np.ceil(replicas / per_node)
    keep = max(int(node_removal_s), 0)
    held = nodes.copy()
    if keep:
        padded = np.concatenate([np.zeros(keep), nodes])
        held = np.lib.stride_tricks.sliding_window_view(padded, keep + 1).max(axis=1)
    starts = float(np.maximum(np.diff(held), 0.0).sum())
    return float(held.sum()) + starts * node_start_s


def _search(arrivals: FloatArray, capacity_rps: float, cycle_s: float, miss_ratio: float, always: int, lag: int, running: int = 10**9) -> Bound:
    total = float(arrivals.sum())
    levels = max(math.ceil(float(arrivals.max(initial=0.0)) / capacity_rps), always, 1)
    budget = miss_ratio * total

    runs = _runs(arrivals, capacity_rps, range(always, levels), lag)

    def plan(price: float) -> tuple[float, FloatArray]:
        missed, cost = np.zeros(arrivals.shape[0] // WINDOW_S + 1), float(always * arrivals.shape[0])
        for level, run in enumerate(runs, start=always):
            cost += _fluid_kernels.on_off(run, cycle_s, price, 0.0 if level < running else math.inf, missed)
        return cost, missed

    dearest = 10.0 * (arrivals.shape[0] + cycle_s)
    cost, missed = plan(dearest)
    least = Bound(
        cost_s=cost,
        miss_ratio=miss_ratio,
        feasible=float(missed.sum()) <= budget + 1e-9,
        least_miss_ratio=float(missed.sum()) / total if total else 0.0,
        least_broken_ratio=_broken(arrivals, missed),
        price_s=dearest,
    )
    if not least.feasible:
        return least
    best, at = _dual(plan, budget, dearest)
    return replace(least, cost_s=cost if miss_ratio == 0 else best, price_s=at)


def _broken(arrivals: FloatArray, missed: FloatArray) -> float:
    """Share of the whole windows in which more than `WINDOW_MISS` is missed; `missed` is by window."""
    whole = arrivals.shape[0] // WINDOW_S
    if not whole:
        return 0.0
    came = arrivals[: whole * WINDOW_S].reshape(whole, WINDOW_S).sum(axis=1)
    return float((missed[:whole] > WINDOW_MISS * came + 1e-9).mean())


def _runs(arrivals: FloatArray, capacity_rps: float, levels: range, lag: int) -> list[FloatArray]:
    """What each level serves as runs of equal seconds: (runs, 4) of load, seconds, whether it may be started, and the window."""
    room = np.empty((arrivals.shape[0], 4))
    return [room[: _fluid_kernels.segments(arrivals, capacity_rps, level, lag, WINDOW_S, room)].copy() for level in levels]


def _dual(plan: Callable[[float], tuple[float, FloatArray]], budget: float, dearest: float) -> tuple[float, float]:
    """The largest Lagrange dual over the price, by bisection on the logarithm of the price."""
    low, high = math.log(1e-6), math.log(dearest)
    best, at = 0.0, 0.0
    for _ in range(34):
        middle = (low + high) / 2
        price = math.exp(middle)
        cost, by_window = plan(price)
        missed = float(by_window.sum())
        dual = cost + price * (missed - budget)
        if dual > best:
            best, at = dual, price
        if missed > budget:
            low = middle
        else:
            high = middle
        if high - low < 1e-3:
            break
    return best, at
