"""One stage with its own processors, compiled: a loop over arrivals. What it simulates stands in `_kernels`."""

from __future__ import annotations

import numpy as np

from deployctl.core._kernels import (
    COUNT,
    DELAY_S,
    EXPIRED,
    FLOOR,
    HEAD,
    INSTANCES,
    LEAST_CONN,
    MAX_BATCH,
    QUEUE_SIZE,
    RANDOM,
    REJECTED,
    RUN,
    TIMEOUT_S,
    compiled,
    join,
    scan,
)

# mypy and ruff cannot see through numba: kernels carry no annotations.
# ruff: noqa: ANN001, ANN202, PLR0913, D417
# mypy: disable-error-code="no-untyped-def,no-untyped-call"


@compiled
def _advance(to_s, r, line, closed_s, free_s, batch, following, at_s, size, z, mean_s, cv, slowdown, whole, seconds, done, executions, total):
    """Everything that replica r begins up to `to_s`."""
    instances = free_s.shape[1]
    while line[r, COUNT] > 0:
        h = line[r, HEAD]
        i = 0
        free = free_s[r, 0]
        for j in range(1, instances):
            if free_s[r, j] < free:
                free = free_s[r, j]
                i = j
        now_s = max(free, min(closed_s[r], at_s[h] + seconds[DELAY_S]))
        if now_s > to_s:
            return
        m = line[r, RUN]
        k = h
        if seconds[TIMEOUT_S] > 0 and now_s - at_s[h] > seconds[TIMEOUT_S]:
            done[h] = EXPIRED
            m = 1
            k = following[h]
        else:
            busy = 1
            for j in range(instances):
                if free_s[r, j] > now_s:
                    busy += 1
            s = size[h]
            unit = z[int(total[1]) & (z.shape[0] - 1)]
            total[1] += 1
            length = mean_s[m, s] * max(FLOOR, 1.0 + cv[m, s] * unit) * slowdown[busy]
            for _ in range(m):
                done[k] = now_s + length
                k = following[k]
            free_s[r, i] = now_s + length
            batch[r, i] = m
            executions[m] += 1
            total[0] += length
        line[r, HEAD] = k
        line[r, COUNT] -= m
        scan(line, r, closed_s, following, at_s, size, whole[MAX_BATCH])


def run_station(whole, seconds, replicas, spread, mean_s, cv, slowdown, at_s, size, z, pick):
    """Serve arrivals at one stage.

    Args:
        whole, seconds: the stage's row of whole numbers (MAX_BATCH …) and of seconds (DELAY_S …).
        replicas, spread: copies of the stage and how the front door chooses among them.
        mean_s, cv: service time [batch, size]; slowdown: by number of busy instances.
        at_s: rising arrival times (n,); size: bucket index (n,); z: unit noise, length a power of two; pick: draws in [0, 1).

    Returns (done_s per request, executions by batch size, busy instance-seconds).
    """
    n = at_s.shape[0]
    done = np.empty(n)
    executions = np.zeros(int(whole[MAX_BATCH]) + 1, np.int64)
    total = np.zeros(2)
    line = np.zeros((replicas, 4), np.int64)
    closed_s = np.full(replicas, np.inf)
    free_s = np.zeros((replicas, int(whole[INSTANCES])))
    batch = np.zeros((replicas, int(whole[INSTANCES])), np.int64)
    following = np.empty(n, np.int64)
    _station(whole, seconds, spread, mean_s, cv, slowdown, at_s, size, z, pick, done, following, line, closed_s, free_s, batch, executions, total)
    return done, executions, total[0]


@compiled
def _station(whole, seconds, spread, mean_s, cv, slowdown, at_s, size, z, pick, done, following, line, closed_s, free_s, batch, executions, total):
    """The loop of `run_station`."""
    n = at_s.shape[0]
    replicas, instances = free_s.shape
    for k in range(n + 1):  # the last turn serves whatever still waits
        now_s = at_s[k] if k < n else np.inf
        first = 0
        last = replicas
        if replicas > 1 and spread != LEAST_CONN and k < n:
            first = min(int(pick[k] * replicas), replicas - 1) if spread == RANDOM else k % replicas
            last = first + 1
        r = first
        best = 1 << 60
        ties = 0
        u = pick[k] if k < n else 0.0
        for q in range(first, last):
            _advance(now_s, q, line, closed_s, free_s, batch, following, at_s, size, z, mean_s, cv, slowdown, whole, seconds, done, executions, total)
            if last - first > 1:
                load = line[q, COUNT]
                for j in range(instances):
                    if free_s[q, j] > now_s:
                        load += batch[q, j]
                if load < best:
                    best = load
                    ties = 1
                    r = q
                elif load == best:
                    ties += 1
                    if u * ties < 1.0:
                        r = q
                    u = (u * 7919.0) % 1.0
        if k == n:
            break
        if whole[QUEUE_SIZE] > 0 and line[r, COUNT] >= whole[QUEUE_SIZE]:
            done[k] = REJECTED
        else:
            join(line, r, k, now_s, closed_s, following, size, whole[MAX_BATCH])
