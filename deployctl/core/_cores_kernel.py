"""Cores that everything in a replica shares, compiled: groups of tasks and when the next of them ends. No times are drawn here.

Tasks of a group share its cores equally (processor sharing), on a virtual clock that runs as fast as one task's work is done; a
batcher thread that polls (`_batcher_kernel`) takes as much of a core as a task. Work that finds all cores idle costs more.
"""

from __future__ import annotations

import numpy as np

from deployctl.core._kernels import compiled, push

# Columns of groups (of replicas that share cores), whole numbers and seconds.
TASKS, POLLERS = 0, 1
VIRTUAL, SEEN_S, NEXT_S, CORES, POLLED_S, WAKE_S, FADE_S = 0, 1, 2, 3, 4, 5, 6

# mypy and ruff cannot see through numba: kernels carry no annotations.
# ruff: noqa: ANN001, ANN202
# mypy: disable-error-code="no-untyped-def,no-untyped-call"


@compiled
def _speed(group, times, g):
    """Share of a core that each computing task of group g gets; a thread that polls takes as much as one that computes."""
    claims = group[g, TASKS] + group[g, POLLERS]
    return 1.0 if claims <= times[g, CORES] else times[g, CORES] / claims


@compiled
def aim(group, times, key, g):
    """When group g finishes its next computing task; tasks share its cores equally (processor sharing)."""
    if group[g, TASKS] == 0:
        times[g, NEXT_S] = np.inf
        return
    speed = _speed(group, times, g)
    times[g, NEXT_S] = times[g, SEEN_S] + max(0.0, key[g, 0] - times[g, VIRTUAL]) / speed


@compiled
def touch(group, times, g, now_s):
    """Bring group g's virtual clock to now, before its tasks change; returns core-seconds computed since."""
    tasks = group[g, TASKS]
    speed = _speed(group, times, g)
    passed = now_s - times[g, SEEN_S]
    times[g, VIRTUAL] += passed * speed
    times[g, SEEN_S] = now_s
    if group[g, POLLERS] > 0:  # a core that nobody computes on is polled away
        times[g, POLLED_S] += passed * min(group[g, POLLERS], times[g, CORES] - tasks * speed)
    return passed * speed * tasks


@compiled
def compute(group, times, key, task, g, now_s, work_s, value):
    """Start a computing task of `work_s` core-seconds in group g; it takes longer where it finds all cores idle, the longer they were."""
    if times[g, WAKE_S] > 0.0 and group[g, TASKS] == 0 and group[g, POLLERS] == 0:
        work_s += times[g, WAKE_S] * (1.0 - np.exp(-(now_s - times[g, SEEN_S]) / times[g, FADE_S]))
    used = touch(group, times, g, now_s)
    push(key[g], task[g], group[g, TASKS], times[g, VIRTUAL] + work_s, value)
    group[g, TASKS] += 1
    aim(group, times, key, g)
    return used
