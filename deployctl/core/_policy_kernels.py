"""Compiled loops of the policy `slo` over a whole series of ticks; reached only from `policy_series.py`. Arrays in, arrays out.

Each function is one step of `envelopes.py` or `policies/slo.py` for all ticks at once; what the steps mean stands there. NaN is a
tick whose load is not known.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deployctl.core._kernels import compiled

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def _line_end(mean: FloatArray, at: int, ticks: int, lead: int) -> float:
    """Where the least-squares line through the last `ticks` means is `lead` ticks from tick `at`."""
    count, x_sum, y_sum, same = 0, 0.0, 0.0, True
    for x in range(1 - ticks, 1):
        if at + x >= 0 and not np.isnan(mean[at + x]):
            count += 1
            x_sum += x
            y_sum += mean[at + x]
            same = same and mean[at + x] == mean[at]
    if same:
        return float(mean[at])
    x_mean, y_mean, above, below = x_sum / count, y_sum / count, 0.0, 0.0
    for x in range(1 - ticks, 1):
        if at + x >= 0 and not np.isnan(mean[at + x]):
            above += (x - x_mean) * mean[at + x]
            below += (x - x_mean) ** 2
    return y_mean + above / below * (lead - x_mean)


def _told(mean: FloatArray, lead: int, trend_ticks: int, mean_ticks: IntArray, mixed: FloatArray) -> FloatArray:
    """What each forecast says at each tick, (ticks, forecasts); `mixed` rows: weight of now, of the line's end, of the mean."""
    n, kinds = mean.shape[0], mean_ticks.shape[0]
    told = np.full((n, kinds), np.nan)
    total, known = np.zeros(n + 1), np.zeros(n + 1)
    for t in range(n):
        total[t + 1], known[t + 1] = total[t], known[t]
        if np.isnan(mean[t]):
            continue
        total[t + 1] += mean[t]
        known[t + 1] += 1.0
        line = line_end(mean, t, trend_ticks, lead)
        for f in range(kinds):
            first = max(t + 1 - mean_ticks[f], 0)
            level = (total[t + 1] - total[first]) / max(known[t + 1] - known[first], 1.0)
            told[t, f] = mixed[0, f] * mean[t] + mixed[1, f] * line + mixed[2, f] * level
    return told


def _rolling_max(values: FloatArray, count: int) -> FloatArray:
    """The largest known value of the last `count` ticks; NaN where none is known (a queue of falling candidates)."""
    n = values.shape[0]
    out, queue = np.full(n, np.nan), np.zeros(n, dtype=np.int64)
    first, last = 0, 0
    for t in range(n):
        if not np.isnan(values[t]):
            while last > first and values[queue[last - 1]] <= values[t]:
                last -= 1
            queue[last] = t
            last += 1
        while last > first and queue[first] <= t - count:
            first += 1
        if last > first:
            out[t] = values[queue[first]]
    return out


def _rolling_quantiles(values: FloatArray, count: int, levels: FloatArray) -> FloatArray:
    """Quantiles of the known values of the last `count` ticks, (ticks, levels); 0 where none is known."""
    n = values.shape[0]
    out, held, size = np.zeros((n, levels.shape[0])), np.zeros(min(count, n) + 1), 0
    for t in range(n):
        leaves, enters = t >= count and not np.isnan(values[t - count]), not np.isnan(values[t])
        gone = np.searchsorted(held[:size], values[t - count]) if leaves else size
        at = np.searchsorted(held[:size], values[t]) if enters else size
        if enters and at <= gone:  # those between the two places move by one
            for i in range(gone, at, -1):
                held[i] = held[i - 1]
            held[at] = values[t]
        elif leaves:
            for i in range(gone, at - 1):
                held[i] = held[i + 1]
            if enters:
                held[at - 1] = values[t]
        size += (1 if enters else 0) - (1 if leaves else 0)
        for q in range(levels.shape[0] if size else 0):
            rank = levels[q] * (size - 1)
            low = int(np.floor(rank))
            high = min(low + 1, size - 1)
            out[t, q] = held[low] * (1.0 - (rank - low)) + held[high] * (rank - low)
    return out


def _least(rows: FloatArray, column: int, at: int, ticks: int) -> float:
    """The smallest known value of a ring's column in the `ticks` before tick `at`; NaN where none is known."""
    least = np.nan
    for back in range(1, min(ticks, at) + 1):
        value = rows[(at - back) % rows.shape[0], column]
        if not np.isnan(value) and (np.isnan(least) or value < least):
            least = value
    return least


def _kept(asked: FloatArray, column: int, at: int, ticks: int) -> float:
    """The largest of what was asked for at tick `at` and in the `ticks` before."""
    most: float = asked[at, column]
    for back in range(1, min(ticks, at) + 1):
        most = max(most, asked[at - back, column])  # NaN, as a second argument, changes nothing
    return most


def _shortfall(ready: float, load: float, capacity: float) -> float:
    return 0.0 if np.isnan(ready) else max(load - capacity * ready, 0.0)


def _judge(sums: FloatArray, at: IntArray, held: FloatArray, asks: FloatArray, load: float, allowed: float, rules: FloatArray) -> None:
    """One tick of every envelope: sums rows (shortfall, broken windows, held), (3, day + 1, experts); `at` are places in the ring."""
    tick, now, before, old = at[0], at[1], at[2], at[3]
    for e in range(asks.shape[0]):
        ready = least(held, e, tick, int(rules[1]) + 1)
        sums[0, now, e] = sums[0, before, e] + shortfall(ready, load, rules[0])
        sums[1, now, e] = sums[1, before, e] + (1.0 if sums[0, now, e] - sums[0, old, e] > allowed else 0.0)
        sums[2, now, e] = sums[2, before, e] + asks[e]
    held[tick % held.shape[0]] = asks


def _score(sums: FloatArray, now: int, leaving: int, came: float, seen: float, rules: FloatArray, out: FloatArray) -> None:
    """What `slo.scores` says of the day that ends now."""
    for e in range(out.shape[0]):
        short, broken, held = sums[:, now, e] - sums[:, leaving, e]
        over = max(short / came / rules[6], 1.0) * max((broken + rules[1] + 1.0) / seen / rules[7], 1.0)
        out[e] = np.floor(held / seen * over**2 * rules[8] + 0.5) / rules[8]


def _best(score: FloatArray, asks: FloatArray) -> int:
    """The envelope with the lowest score; of equals the one that asks for most."""
    found = 0
    for e in range(1, score.shape[0]):
        if score[e] < score[found] or (score[e] == score[found] and asks[e] > asks[found]):
            found = e
    return found


def _choose(mean: FloatArray, load: FloatArray, asked: FloatArray, line: FloatArray, rules: FloatArray) -> tuple[FloatArray, IntArray]:
    """The replicas wanted at each tick and the envelope that asks for them (-1: the load is not known; one past the last: `line`).

    `load` is what a shortfall is counted against, `line` the replicas that an alarm asks for; `rules` stand in `policy_series.py`.
    Sums go around in a ring of a day.
    """
    start_up, judged, day = int(rules[1]), int(rules[2]), int(rules[3])
    n, count = asked.shape
    wanted, chosen, followed = np.full(n, np.nan), np.full(n, -1, dtype=np.int64), np.full((n, 1), np.nan)
    sums, held = np.zeros((3, day + 1, count)), np.full((start_up + 2, count), np.nan)
    asks, score = np.empty(count), np.zeros(count)
    offered, known, missed = np.zeros(n + 1), np.zeros(n + 1), np.zeros(n + 1)
    silent = judged  # ticks without a load since the last score
    for t in range(n):
        offered[t + 1], known[t + 1], missed[t + 1] = offered[t], known[t], missed[t]
        first, yesterday, now, before = max(t + 1 - judged, 0), max(t + 1 - day, 0), (t + 1) % (day + 1), t % (day + 1)
        if np.isnan(mean[t]):
            silent += 1
            sums[:, now] = sums[:, before]
            held[t % held.shape[0]] = np.nan
            continue
        offered[t + 1] += mean[t]
        known[t + 1] += 1.0
        missed[t + 1] += shortfall(least(followed, 0, t, start_up + 1), load[t], rules[0])
        for e in range(count):
            asks[e] = kept(asked, e, t, start_up) if e < rules[10] else asked[t, e]
        seen, came = known[t + 1] - known[yesterday], max(offered[t + 1] - offered[yesterday], 1e-9)
        chosen[t] = best(score, asks) if silent < judged and seen >= rules[4] else int(rules[11])
        wanted[t] = asks[chosen[t]]
        if line[t] > wanted[t] and missed[t + 1] - missed[first] > rules[9] * (offered[t] - offered[max(t - judged, 0)]):
            wanted[t], chosen[t] = line[t], count
        followed[t, 0] = max(wanted[t], wanted[t - 1]) if t > 0 else wanted[t]  # NaN, as a second argument, changes nothing
        places = np.array([t, now, before, first % (day + 1)])
        judge(sums, places, held, asks, load[t], rules[5] * (offered[t + 1] - offered[first]), rules)
        score_all(sums, now, yesterday % (day + 1), came, seen, rules, score)
        silent = 0
    return wanted, chosen


line_end = compiled(_line_end, allocates=True)
told = compiled(_told, allocates=True)
rolling_max = compiled(_rolling_max, allocates=True)
rolling_quantiles = compiled(_rolling_quantiles, allocates=True)
least = compiled(_least, allocates=True)
kept = compiled(_kept, allocates=True)
shortfall = compiled(_shortfall, allocates=True)
judge = compiled(_judge, allocates=True)
score_all = compiled(_score, allocates=True)
best = compiled(_best, allocates=True)
choose = compiled(_choose, allocates=True)
