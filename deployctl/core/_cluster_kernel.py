"""Several stages, shared cores, replicas that come and go, compiled: an event loop. What it simulates stands in `_kernels`."""

from __future__ import annotations

import numpy as np

from deployctl.core._batcher_kernel import AHEAD, AHEAD_PER_INSTANCE, POLLS, UNFORMED, arrived, poll, taken
from deployctl.core._cores_kernel import CORES, FADE_S, NEXT_S, POLLED_S, TASKS, VIRTUAL, WAKE_S, aim, compute, touch
from deployctl.core._kernels import (
    BUSY,
    COUNT,
    CPU_RATIO,
    DELAY_S,
    EXPIRED,
    FLOOR,
    HEAD,
    INSTANCES,
    LEAST_CONN,
    MAX_BATCH,
    QUEUE_SIZE,
    REJECTED,
    ROUND_ROBIN,
    RUN,
    TIMEOUT_S,
    TIMER,
    compiled,
    join,
    pop,
    push,
    scan,
)
from deployctl.core._preferred_kernel import FORMED, LARGEST, dequeue, form_preferred, front, sleeps_on

# Columns of slots (running batches) and of replicas.
FIRST, MEMBERS = 0, 1
ACTIVE, INFLIGHT, GROUP = 0, 1, 2
# What is carried over a stop: entries of the wall heap, noise drawn, the next arrival and the next switch.
WALLS, DRAWN, K_NEXT, S_NEXT = 0, 1, 2, 3

# mypy and ruff cannot see through numba: kernels carry no annotations.
# ruff: noqa: ANN001, ANN202, PLR0913, PLR0915, C901, D417
# mypy: disable-error-code="no-untyped-def,no-untyped-call"


@compiled
def _route(replica, k, spread, u):
    """The replica that the front door gives request k to, -1 when none is up; ties by the draw u."""
    up = 0
    for r in range(replica.shape[0]):
        up += replica[r, ACTIVE]
    if up == 0:
        return -1
    best, ties, chosen = 1 << 60, 0, -1
    turn = k % up if spread == ROUND_ROBIN else min(int(u * up), up - 1)
    for r in range(replica.shape[0]):
        if replica[r, ACTIVE] == 0:
            continue
        if spread != LEAST_CONN:
            if turn == 0:
                chosen = r
            turn -= 1
        elif replica[r, INFLIGHT] < best:
            best, ties, chosen = replica[r, INFLIGHT], 1, r
        elif replica[r, INFLIGHT] == best:
            ties += 1
            if u * ties < 1.0:
                chosen = r
            u = (u * 7919.0) % 1.0
    return chosen


def run_cluster(
    whole, seconds, mean_s, cv, slowdown, group_of, cores, overhead_s, handover_s, wake, spread, switch_s, switch, at_s, size, z, pick, preferred=None
):
    """Serve arrivals through all stages, with shared cores and replicas that come and go.

    Args:
        whole, seconds: rows of whole numbers and seconds by stage.
        mean_s, cv: [stage, batch, size]; slowdown: [stage, busy instances].
        group_of: group of each replica; cores: cores of each group.
        overhead_s: core-seconds per request before the first and after the last stage (2,).
        handover_s: core-seconds that a batch costs more when the batcher thread polled until it began; below 0 the thread does not poll.
        wake: core-seconds that a computing task costs more that finds all cores of its group idle for long, and the length of a pause that
            costs 63 % of it (2,).
        spread: how the front door chooses; switch_s, switch: when (m,) which replica goes up or down (m, 2).
        at_s: rising arrivals (n,); size: bucket index [stage, n]; z: unit noise, length a power of two; pick: draws in [0, 1).
        preferred: rows of preferred batch sizes by stage (`_preferred_kernel`); None: none are named.

    Returns (done_s per request, executions [stage, batch], busy instance-seconds per stage, core-seconds computed, core-seconds polled away).
    """
    cluster = Cluster(
        *(whole, seconds, mean_s, cv, slowdown, group_of, cores, overhead_s, handover_s, wake, spread, switch_s, switch, at_s, size, z, pick),
        preferred=preferred,
    )
    cluster.advance(np.inf)
    return cluster.done_s, cluster.executions, cluster.busy_s, cluster.computed_s, cluster.polled_s


class Cluster:
    """A run that can be stopped at any moment, looked at, and gone on with. Arguments as of `run_cluster`.

    Attributes:
        done_s: answer time of each request, NaN while it has none, REJECTED or EXPIRED.
        executions, busy_s: as `run_cluster` returns them, so far.
        replica: rows (ACTIVE, INFLIGHT, GROUP); whoever drives the run may set ACTIVE while it stands still.
    """

    def __init__(
        self, whole, seconds, mean_s, cv, slowdown, group_of, cores, overhead_s, handover_s, wake, spread, switch_s, switch, at_s, size, z, pick,
        preferred=None,
    ) -> None:  # fmt: skip
        n, stages = at_s.shape[0], mean_s.shape[0]
        lines = group_of.shape[0] * stages
        slots = lines * slowdown.shape[1]
        room = n + slots + 8
        line = np.zeros((lines, 15), np.int64)
        line[:, TIMER] = -1
        line[:, UNFORMED] = -1
        self.replica = np.zeros((group_of.shape[0], 3), np.int64)
        self.replica[:, GROUP] = group_of
        self._times = np.zeros((cores.shape[0], 7))
        self._times[:, NEXT_S] = np.inf
        self._times[:, CORES] = cores
        self._times[:, WAKE_S], self._times[:, FADE_S] = wake
        self.done_s = np.full(n, np.nan)
        self.executions = np.zeros(mean_s.shape[:2], np.int64)
        self.busy_s = np.zeros(stages)
        self._total = np.zeros(1)
        self._mark = np.zeros(4, np.int64)
        self._line = line
        if preferred is None:
            preferred = np.zeros((stages, mean_s.shape[1] + 1), np.int64)
        formed = np.zeros((lines, AHEAD_PER_INSTANCE * slowdown.shape[1]), np.int64)
        self._given = (
            *(preferred, formed, whole, seconds, mean_s, cv, slowdown, overhead_s, handover_s, spread, switch_s, switch, at_s, size, z, pick),
            *(np.zeros(n), np.zeros(n, np.int64), np.zeros(n, np.int64), line, np.full(lines, np.inf)),
            *(np.full((slots, 2), -1), np.zeros(slots), np.zeros(slots), self.replica, np.zeros((cores.shape[0], 2), np.int64), self._times),
            *(np.empty((cores.shape[0], room)), np.empty((cores.shape[0], room), np.int64)),
            *(np.empty(stages * n + slots + 8), np.empty(stages * n + slots + 8, np.int64), np.zeros(4, np.int64)),
            *(self.done_s, self.executions, self.busy_s, self._total, self._mark),
        )

    @property
    def arrived(self):
        """Requests that have arrived so far."""
        return int(self._mark[K_NEXT])

    @property
    def waiting(self):
        """Requests that stand in a queue now."""
        return int(self._line[:, COUNT].sum())

    @property
    def computed_s(self):
        """Core-seconds computed."""
        return self._total[0]

    @property
    def polled_s(self):
        """Core-seconds polled away."""
        return self._times[:, POLLED_S].sum()

    def advance(self, until_s):
        """Let everything happen that happens before `until_s`."""
        _cluster(*self._given, float(until_s))


@compiled
def _cluster(
    preferred, formed, whole, seconds, mean_s, cv, slowdown, overhead_s, handover_s, spread, switch_s, switch, at_s, size, z, pick,
    entered_s, following, given, line, closed_s, slot, slot_cpu_s, slot_since_s, replica, group, times, key, task, wall_s, wall, todo,
    done, executions, busy_s, total, mark, until_s,
):  # fmt: skip
    """The event loop of `Cluster.advance`; `mark` and `total` carry over what no other array knows."""
    n = at_s.shape[0]
    stages = mean_s.shape[0]
    groups = times.shape[0]
    per_line = slowdown.shape[1]
    slots = slot.shape[0]
    walls = mark[WALLS]
    computed_s = total[0]
    drawn = mark[DRAWN]
    # Requests that expire leave batches that were formed ahead; what the batcher thread then does is not modelled.
    polling = handover_s >= 0.0
    for s in range(stages):
        polling = polling and seconds[s, TIMEOUT_S] <= 0.0
    k_next = mark[K_NEXT]
    s_next = mark[S_NEXT]
    while True:
        g = 0
        for j in range(1, groups):
            if times[j, NEXT_S] < times[g, NEXT_S]:
                g = j
        now_s = times[g, NEXT_S]
        what = 0
        if walls > 0 and wall_s[0] < now_s:
            now_s = wall_s[0]
            what = 1
        if k_next < n and at_s[k_next] < now_s:
            now_s = at_s[k_next]
            what = 2
        if s_next < switch_s.shape[0] and switch_s[s_next] <= now_s and switch_s[s_next] < until_s:
            replica[switch[s_next, 0], ACTIVE] = switch[s_next, 1]
            s_next += 1
            continue
        if now_s == np.inf or now_s >= until_s:
            break
        todos = 0
        rings = False  # the batcher thread's own clock
        ended = -1  # slot of a batch that ended
        entering = -1  # request that enters the first stage
        if what == 0:
            computed_s += touch(group, times, g, now_s)
            times[g, VIRTUAL] = key[g, 0]
            value = pop(key[g], task[g], group[g, TASKS])
            group[g, TASKS] -= 1
            aim(group, times, key, g)
            if value < slots:
                ended = value
            elif (value - slots) & 1:
                k = (value - slots) >> 1
                done[k] = now_s
                replica[given[k], INFLIGHT] -= 1
            else:
                entering = (value - slots) >> 1
        elif what == 1:
            value = pop(wall_s, wall, walls)
            walls -= 1
            if value < 0:
                todo[0] = -1 - value
                todos = 1
                rings = True
            elif slot_cpu_s[value] > 0.0:
                q = value // per_line
                g = replica[q // stages, GROUP]
                computed_s += touch(group, times, g, now_s)  # the pause inside a service time is part of what was measured
                computed_s += compute(group, times, key, task, g, now_s, slot_cpu_s[value], value)
            else:
                ended = value
        else:
            k = k_next
            k_next += 1
            r = _route(replica, k, spread, pick[k])
            if r < 0:
                done[k] = REJECTED
            else:
                given[k] = r
                replica[r, INFLIGHT] += 1
                if overhead_s[0] > 0.0:
                    computed_s += compute(group, times, key, task, replica[r, GROUP], now_s, overhead_s[0], slots + 2 * k)
                else:
                    entering = k
        if entering >= 0:
            r = given[entering]
            q = r * stages
            if whole[0, QUEUE_SIZE] > 0 and line[q, COUNT] - line[q, FORMED] >= whole[0, QUEUE_SIZE]:
                done[entering] = REJECTED
                replica[r, INFLIGHT] -= 1
            else:
                entered_s[entering] = now_s
                join(line, q, entering, now_s, closed_s, following, size[0], whole[0, MAX_BATCH])
                if polling and whole[0, MAX_BATCH] > 1 and preferred[0, LARGEST] == 0:
                    ahead = AHEAD_PER_INSTANCE * whole[0, INSTANCES]
                    arrived(line, q, entering, now_s, following, entered_s, size[0], whole[0, MAX_BATCH], ahead, seconds[0, DELAY_S])
                todo[0] = q
                todos = 1
        if ended >= 0:
            q = ended // per_line
            s = q % stages
            r = q // stages
            k = slot[ended, FIRST]
            slot[ended, FIRST] = -1
            busy_s[s] += now_s - slot_since_s[ended]
            line[q, BUSY] -= 1
            for _ in range(slot[ended, MEMBERS]):
                after = following[k]
                if s + 1 == stages:
                    if overhead_s[1] > 0.0:
                        computed_s += compute(group, times, key, task, replica[r, GROUP], now_s, overhead_s[1], slots + 2 * k + 1)
                    else:
                        done[k] = now_s
                        replica[r, INFLIGHT] -= 1
                elif whole[s + 1, QUEUE_SIZE] > 0 and line[q + 1, COUNT] - line[q + 1, FORMED] >= whole[s + 1, QUEUE_SIZE]:
                    done[k] = REJECTED
                    replica[r, INFLIGHT] -= 1
                else:
                    entered_s[k] = now_s
                    join(line, q + 1, k, now_s, closed_s, following, size[s + 1], whole[s + 1, MAX_BATCH])
                    if polling and whole[s + 1, MAX_BATCH] > 1 and preferred[s + 1, LARGEST] == 0:
                        ahead = AHEAD_PER_INSTANCE * whole[s + 1, INSTANCES]
                        arrived(line, q + 1, k, now_s, following, entered_s, size[s + 1], whole[s + 1, MAX_BATCH], ahead, seconds[s + 1, DELAY_S])
                k = after
            if s + 1 < stages:
                todo[0] = q + 1
                todos = 1
            todo[todos] = q
            todos += 1
        for t in range(todos):
            q = todo[t]
            s = q % stages
            r = q // stages
            named = preferred[s, LARGEST] > 0
            ahead = AHEAD_PER_INSTANCE * whole[s, INSTANCES]
            due_s = np.inf
            gone = 0
            if named and (not sleeps_on(line, q, preferred[s]) or (rings and line[q, TIMER] == front(line, q, following))):
                due_s, gone = form_preferred(
                    line, q, now_s, following, entered_s, size[s], whole[s, MAX_BATCH], ahead, seconds[s, DELAY_S], seconds[s, TIMEOUT_S],
                    preferred[s], formed, done,
                )  # fmt: skip
                replica[r, INFLIGHT] -= gone
            while line[q, COUNT] > 0 and line[q, BUSY] < whole[s, INSTANCES]:
                h = line[q, HEAD]
                if named:
                    if line[q, AHEAD] == 0:
                        break
                    m = dequeue(line, q, now_s, following, entered_s, size[s], whole[s, MAX_BATCH], seconds[s, DELAY_S], formed)
                elif seconds[s, TIMEOUT_S] > 0 and now_s - entered_s[h] > seconds[s, TIMEOUT_S]:
                    done[h] = EXPIRED
                    replica[r, INFLIGHT] -= 1
                    line[q, HEAD] = following[h]
                    line[q, COUNT] -= 1
                    scan(line, q, closed_s, following, entered_s, size[s], whole[s, MAX_BATCH])
                    continue
                else:
                    due_s = entered_s[h] + seconds[s, DELAY_S]
                    if closed_s[q] == np.inf and due_s > now_s:
                        break
                    due_s = np.inf
                    m = line[q, RUN]
                line[q, BUSY] += 1
                bucket = size[s, h]
                unit = z[drawn & (z.shape[0] - 1)]
                drawn += 1
                length = mean_s[s, m, bucket] * max(FLOOR, 1.0 + cv[s, m, bucket] * unit) * slowdown[s, line[q, BUSY]]
                i = q * per_line
                while slot[i, FIRST] >= 0:
                    i += 1
                slot[i, FIRST] = h
                slot[i, MEMBERS] = m
                busy_cpu_s = length * seconds[s, CPU_RATIO]
                waits_s = length - busy_cpu_s
                slot_cpu_s[i] = busy_cpu_s
                if polling and line[q, POLLS] == 1:
                    slot_cpu_s[i] += handover_s
                k = h
                for _ in range(m):
                    k = following[k]
                line[q, HEAD] = k
                line[q, COUNT] -= m
                if polling and whole[s, MAX_BATCH] > 1 and not named:
                    taken(line, q, following, size[s], whole[s, MAX_BATCH], ahead)
                executions[s, m] += 1
                slot_since_s[i] = now_s
                if waits_s > 0.0:
                    push(wall_s, wall, walls, now_s + waits_s, i)
                    walls += 1
                else:
                    computed_s += compute(group, times, key, task, replica[r, GROUP], now_s, slot_cpu_s[i], i)
                if named:
                    due_s, gone = form_preferred(
                        line, q, now_s, following, entered_s, size[s], whole[s, MAX_BATCH], ahead, seconds[s, DELAY_S], seconds[s, TIMEOUT_S],
                        preferred[s], formed, done,
                    )  # fmt: skip
                    replica[r, INFLIGHT] -= gone
                else:
                    scan(line, q, closed_s, following, entered_s, size[s], whole[s, MAX_BATCH])
            if due_s < np.inf:
                h = front(line, q, following)
                if line[q, TIMER] != h:
                    line[q, TIMER] = h
                    push(wall_s, wall, walls, due_s, -1 - q)
                    walls += 1
            if polling and whole[s, MAX_BATCH] > 1:
                computed_s += poll(line, q, group, times, key, replica[r, GROUP], now_s, ahead)
    total[0] = computed_s
    mark[WALLS], mark[DRAWN], mark[K_NEXT], mark[S_NEXT] = walls, drawn, k_next, s_next
