"""Compiled inner loops of the fluid model and the bound; reached only from `fluid.py` and `bound.py`. Arrays in, numbers out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deployctl.core._kernels import compiled

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def _segments(arrivals: FloatArray, capacity: float, level: int, seen_lag: int, width: int, out: FloatArray) -> int:
    """What one level serves, as runs of equal seconds: rows (load, seconds, may start, window) in `out`; how many.

    Level k serves what lies between k and k + 1 capacities: nothing or all of it for long, and only near the load a part.
    `seen_lag` >= 0 allows a start only where the level was used `seen_lag` seconds earlier (no foresight). A run ends with its
    window of `width` seconds.
    """
    low, count = level * capacity, 0
    for t in range(arrivals.shape[0]):
        used, window = min(max(arrivals[t] - low, 0.0), capacity), float(t // width)
        may = 1.0 if seen_lag < 0 or (t >= seen_lag and arrivals[t - seen_lag] > low) else 0.0
        if count and out[count - 1, 0] == used and out[count - 1, 2] == may and out[count - 1, 3] == window:
            out[count - 1, 1] += 1.0
        else:
            out[count, 0], out[count, 1], out[count, 2], out[count, 3] = used, 1.0, may, window
            count += 1
    return count


def _on_off(segments: FloatArray, cycle_s: float, price: float, first_lead: float, missed: FloatArray) -> float:
    """Cheapest on/off plan of one level at a price for a missed request: replica-seconds; adds its misses to `missed`, by window.

    Two states: on costs 1 a second, off costs the price of what is missed, off to on costs `cycle_s`, on to off nothing. Within a run
    every second costs the same, so the best plan switches at its first second or not in it; or, where the next run may not start, at its
    last. So a run takes one step. `first_lead` is (cost if on) - (cost if off) at the start: 0 for a level that runs, infinite for one that
    does not.
    """
    n = segments.shape[0]
    starts, stops = np.zeros(n, dtype=np.int8), np.zeros(n, dtype=np.bool_)  # starts: 0 no, 1 at its first second, 2 at its last
    on, off = first_lead, 0.0
    for i in range(n):
        seconds, miss = segments[i, 1], segments[i, 0] * price
        stops[i] = on < off
        least, stay = min(on, off), on + seconds
        if segments[i, 2] > 0.0:
            first, last = off + cycle_s + seconds, least + (seconds - 1.0) * miss + cycle_s + 1.0
            starts[i] = 1 if first < stay and first <= last else 2 if last < stay else 0
            stay = min(stay, first, last)
        on, off = stay, least + seconds * miss
    cost, runs = 0.0, on < off
    for i in range(n - 1, -1, -1):
        away = segments[i, 1]
        if runs and starts[i] != 2:
            cost += away + (cycle_s if starts[i] == 1 else 0.0)
            runs = starts[i] == 0
            continue
        if runs:
            cost += cycle_s + 1.0
            away -= 1.0
        missed[int(segments[i, 3])] += segments[i, 0] * away
        runs = stops[i]
    return cost


def _taut_string(lower: FloatArray, upper: FloatArray) -> FloatArray:
    """Slopes of the shortest path between two rising curves that meet at both ends (funnel of convex and concave hulls)."""
    n = lower.shape[0]
    slopes = np.zeros(n - 1)
    at, value = 0, lower[0]
    while at < n - 1:
        low, high = -np.inf, np.inf
        low_at, high_at = at, at
        end, slope = n - 1, 0.0
        found = False
        for j in range(at + 1, n):
            to_high, to_low = (upper[j] - value) / (j - at), (lower[j] - value) / (j - at)
            if to_high < low:  # the ceiling comes under the steepest floor: bend at the floor
                end, slope, found = low_at, low, True
                break
            if to_low > high:
                end, slope, found = high_at, high, True
                break
            if to_high <= high:
                high, high_at = to_high, j
            if to_low >= low:
                low, low_at = to_low, j
        if not found:
            end = n - 1
            slope = (upper[n - 1] - value) / (n - 1 - at)
        for j in range(at, end):
            slopes[j] = slope
        value += slope * (end - at)
        at = end
    return slopes


def _flow(arrivals: FloatArray, wanted: IntArray, span: IntArray, plant: FloatArray, due: IntArray, now: FloatArray, out: FloatArray) -> None:
    """Fluid queue behind replicas that follow `wanted`, from second span[0] to span[1].

    `plant` is (capacity, start-up, allowed wait, admission 0 or 1); `due` counts the replicas that become ready at a second;
    `now` is (ready, starting, backlog) and is carried on; `out` rows are ready, starting, backlog, wait and missed.
    """
    capacity, start_s, wait_s, admit = plant[0], int(plant[1]), plant[2], plant[3] > 0
    ready, starting, backlog = int(now[0]), int(now[1]), now[2]
    for t in range(span[0], span[1]):
        ready += due[t]
        starting -= due[t]
        change = wanted[t] - ready - starting
        if change > 0:
            if start_s == 0:
                ready += change
            else:
                starting += change
                if t + start_s < due.shape[0]:
                    due[t + start_s] += change
        elif change < 0:
            drop = -change
            late = starting
            for s in range(t + 1, min(t + start_s + 1, due.shape[0])):
                late -= due[s]
            cut = min(drop, max(late, 0))  # those that never become ready go first
            starting -= cut
            drop -= cut
            s = min(t + start_s, due.shape[0] - 1)
            while drop > 0 and s > t:
                cut = min(drop, due[s])
                due[s] -= cut
                starting -= cut
                drop -= cut
                s -= 1
            ready -= drop
        power = ready * capacity
        backlog += arrivals[t]
        backlog -= min(backlog, power)
        limit = power * wait_s
        missed = 0.0
        if backlog > limit:
            missed = backlog - limit if admit else min(arrivals[t], backlog - limit)
            if admit:
                backlog = limit
        out[0, t], out[1, t], out[2, t], out[4, t] = ready, starting, backlog, missed
        out[3, t] = backlog / power if power > 0 else (np.inf if backlog > 0 else 0.0)
    now[0], now[1], now[2] = ready, starting, backlog


def _hpa(load: FloatArray, target: float, window: int, tolerance: float, low: int, high: int, sync: int, first: int) -> IntArray:
    """An HPA on one total (`External`, `AverageValue`) with a scale-down window; at most doubled or 4 more a sync (default): wanted, one a second."""
    n = load.shape[0]
    wanted = np.zeros(n, dtype=np.int64)
    depth = max(window // sync, 1)
    ring = np.zeros(depth, dtype=np.int64)
    current = min(max(first, low), high)
    tick = 0
    for t in range(n):
        if t % sync == 0:
            ratio = load[t] / (target * max(current, 1))
            proposal = current if abs(ratio - 1.0) <= tolerance else int(np.ceil(load[t] / target - 1e-9))
            ring[tick % depth] = proposal
            tick += 1
            top = proposal
            for i in range(min(tick, depth)):
                top = max(top, ring[i])
            new = proposal if proposal > current else min(top, current)
            if new > current:
                new = min(new, max(2 * current, current + 4))
            current = min(max(new, low), high)
        wanted[t] = current
    return wanted


segments = compiled(_segments, allocates=True)
on_off = compiled(_on_off, allocates=True)
taut_string = compiled(_taut_string, allocates=True)
flow = compiled(_flow, allocates=True)
hpa_wanted = compiled(_hpa, allocates=True)
