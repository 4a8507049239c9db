"""The least that a load can cost: what a scaler that knows the future would pay, and what one that does not would.

What enters are arrivals per second, the rate that one replica serves, its start-up time and the share of requests that may
be missed; what leaves is a cost in replica-seconds (or node-seconds). Refuses to know policies.

Replicas decouple into levels: level k serves the load between k-1 and k capacities. A level costs 1 a second from the moment
it is asked for, so a start costs the start-up time; per level the best plan is a dynamic program with two states (on, off).
A budget of misses enters as a price (Lagrange multiplier) that is bisected; by weak duality `cost` below is a true lower bound
for the fluid model in which a request is served in the second it arrives in. Where the promise also says how many five-minute
windows may break, each window has a price of its own, and those that may break are the dearest.
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

LEAST_PRICE = 1e-6  # replica-seconds for a request; below it nothing is worth a start
ROUNDS = 80  # of the search for the prices of windows; any prices give a bound, better ones a higher one


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A lower bound on cost.

    Attributes:
        cost_s: replica-seconds (node-seconds for `node_bound`) that cannot be undercut with at most `miss_ratio` misses.
        feasible: False when no plan of this kind misses so little; then `least_miss_ratio` says what is possible.
        least_miss_ratio: the smallest share of misses at any cost.
        least_broken_ratio: the smallest share of broken windows at any cost; 0 where windows do not count.
        price_s: replica-seconds that one request more or less is worth at the optimum.
    """

    cost_s: float
    miss_ratio: float
    feasible: bool = True
    least_miss_ratio: float = 0.0
    least_broken_ratio: float = 0.0
    price_s: float = 0.0


def clairvoyant(
    arrivals: FloatArray, *, capacity_rps: float, start_up_s: float, miss_ratio: float, broken_ratio: float = 1.0, min_replicas: int = 1
) -> Bound:
    """The minimum for a scaler that knows all arrivals beforehand.

    Args:
        arrivals: requests of each second, (n,).
        capacity_rps: rate at which one replica keeps the SLO.
        start_up_s: seconds from asking for a replica to its first answer; paid.
        miss_ratio: share of all requests that may be missed.
        broken_ratio: share of the whole five-minute windows in which more than 1 % may be missed; 1 leaves windows out.
        min_replicas: replicas that always run.
    """
    return _search(arrivals, capacity_rps, start_up_s, _Budget(miss_ratio=miss_ratio, broken_ratio=broken_ratio), min_replicas, -1)


def without_foresight(
    arrivals: FloatArray,
    *,
    capacity_rps: float,
    start_up_s: float,
    miss_ratio: float,
    broken_ratio: float = 1.0,
    detection_s: float = 0.0,
    min_replicas: int = 1,
    running: int = 1,
) -> Bound:
    """The minimum for a scaler that asks for its k-th replica only while a load that needs it is being seen.

    The order takes effect `start_up_s + detection_s` later; *when to stop* is still chosen with knowledge of the future. So
    the difference to `clairvoyant` is the value of a forecast, and a policy below this bound did forecast (or kept a reserve for
    a load that it had not seen). `running` replicas are there at the start.
    """
    lag = math.ceil(start_up_s + detection_s)
    budget = _Budget(miss_ratio=miss_ratio, broken_ratio=broken_ratio)
    return _search(arrivals, capacity_rps, start_up_s, budget, min_replicas, lag, max(running, min_replicas))


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
    return _search(arrivals, capacity_rps * per_node, cycle_s, _Budget(miss_ratio=miss_ratio), min_nodes, -1)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Budget:
    """What a plan may miss: a share of all requests, and more than `WINDOW_MISS` in a share of the whole windows."""

    miss_ratio: float
    broken_ratio: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Windows:
    """The arrivals of each window, (windows,), the last possibly not whole; `whole` of them are judged and `may_break` of these may break."""

    came: FloatArray
    whole: int
    may_break: int

    def broken(self, missed: FloatArray) -> float:
        """Share of the judged windows in which too much is missed."""
        late = missed[: self.whole] > WINDOW_MISS * self.came[: self.whole] + 1e-9
        return float(late.mean()) if self.whole else 0.0


Plan = Callable[[FloatArray], tuple[float, FloatArray]]  # the price of a miss in each window -> cost, misses of each window


def _search(arrivals: FloatArray, capacity_rps: float, cycle_s: float, budget: _Budget, always: int, lag: int, running: int = 10**9) -> Bound:
    n, total = arrivals.shape[0], float(arrivals.sum())
    levels = max(math.ceil(float(arrivals.max(initial=0.0)) / capacity_rps), always, 1)
    width = min(WINDOW_S, n) if budget.broken_ratio < 1.0 and n else max(n, 1)
    windows = _windows(arrivals, width, budget.broken_ratio)
    runs = _runs(arrivals, capacity_rps, range(always, levels), lag, width)

    def plan(prices: FloatArray) -> tuple[float, FloatArray]:
        missed, cost = np.zeros(prices.shape[0]), float(always * n)
        for level, run in enumerate(runs, start=always):
            cost += _fluid_kernels.on_off(run, cycle_s, prices, 0.0 if level < running else math.inf, missed)
        return cost, missed

    dearest, allowed = 10.0 * (n + cycle_s), budget.miss_ratio * total
    cost, missed = plan(np.full(windows.came.shape[0], dearest))
    broken, least = windows.broken(missed), float(missed.sum()) / total if total else 0.0
    found = Bound(cost_s=cost, miss_ratio=budget.miss_ratio, least_miss_ratio=least, least_broken_ratio=broken, price_s=dearest)
    if missed.sum() > allowed + 1e-9 or broken * windows.whole > windows.may_break + 1e-9:
        return replace(found, feasible=False)
    best, price = _one_price(plan, windows, allowed, dearest)
    if windows.may_break < windows.whole:
        best = max(best, _many_prices(plan, windows, allowed, price, dearest))
    return replace(found, cost_s=cost if budget.miss_ratio == 0 else best, price_s=price)


def _windows(arrivals: FloatArray, width: int, broken_ratio: float) -> _Windows:
    n = arrivals.shape[0]
    came = np.add.reduceat(arrivals, np.arange(0, n, width)) if n else np.zeros(1)
    return _Windows(came=came, whole=n // width, may_break=math.floor(broken_ratio * (n // width) + 1e-9))


def _runs(arrivals: FloatArray, capacity_rps: float, levels: range, lag: int, width: int) -> list[FloatArray]:
    """What each level serves as runs of equal seconds: (runs, 4) of load, seconds, whether it may be started, and the window."""
    room = np.empty((arrivals.shape[0], 4))
    return [room[: _fluid_kernels.segments(arrivals, capacity_rps, level, lag, width, room)].copy() for level in levels]


def _one_price(plan: Plan, windows: _Windows, allowed: float, dearest: float) -> tuple[float, float]:
    """The largest Lagrange dual over one price for every miss, by bisection on its logarithm; and that price."""
    low, high = math.log(LEAST_PRICE), math.log(dearest)
    best, at = 0.0, LEAST_PRICE
    for _ in range(34):
        middle = (low + high) / 2
        price = math.exp(middle)
        cost, missed = plan(np.full(windows.came.shape[0], price))
        dual = cost + price * (float(missed.sum()) - allowed)
        if dual > best:
            best, at = dual, price
        if missed.sum() > allowed:
            low = middle
        else:
            high = middle
        if high - low < 1e-3:
            break
    return best, at


def _many_prices(plan: Plan, windows: _Windows, allowed: float, price: float, dearest: float) -> float:
    """The largest Lagrange dual found with a price for all misses, and one for those of each judged window on top.

    A window may miss `WINDOW_MISS` of what came, and those `may_break` windows for which it is worth most may miss everything. The
    prices climb by the signs of the subgradient, with steps that grow while the sign stays and shrink when it turns (Rprop, Riedmiller
    and Braun 1993): the prices of windows differ by orders of magnitude.
    """
    judged, came = slice(0, windows.whole), windows.came[: windows.whole]
    logs = np.full(windows.whole + 1, math.log(price))
    steps, signs, best = np.full(logs.shape[0], 1.0), np.zeros(logs.shape[0]), 0.0
    low, high = math.log(LEAST_PRICE), math.log(dearest)
    for _ in range(ROUNDS):
        extra, common = np.where(came > 0, np.exp(logs[:-1]), 0.0), math.exp(logs[-1])
        prices = np.full(windows.came.shape[0], common)
        prices[judged] += extra
        cost, missed = plan(prices)
        spared = np.zeros(windows.whole)
        spared[np.argsort(-extra * came, kind="stable")[: windows.may_break]] = 1.0
        over = missed[judged] - came * (WINDOW_MISS + (1.0 - WINDOW_MISS) * spared)
        dual = cost + common * (float(missed.sum()) - allowed) + float(extra @ over)
        best = max(best, dual)
        slope = np.append(over, missed.sum() - allowed)
        turned = np.sign(slope) * signs
        steps = np.clip(np.where(turned < 0, steps * 0.5, np.where(turned > 0, steps * 1.3, steps)), 1e-3, 3.0)
        signs = np.sign(slope)
        logs = np.clip(logs + steps * signs, low, high)
    return best
