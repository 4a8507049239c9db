"""Triton's batcher thread, compiled: the batches that it forms ahead of an idle instance, and when it polls.

What enters is a waiting line, what changes are the columns below; which requests execute together is decided in `_cluster_kernel`.
"""

from __future__ import annotations

from deployctl.core._cores_kernel import POLLERS, aim, touch
from deployctl.core._kernels import COUNT, TAIL, compiled

# More columns of the waiting lines: batches formed ahead of an idle instance, whether the last of them may still grow, its members
# and first request, the first request that is in no batch yet (-1: none), and whether the batcher thread polls.
AHEAD, OPEN, LAST_RUN, LAST_HEAD, UNFORMED, POLLS = 6, 7, 8, 9, 10, 11
AHEAD_PER_INSTANCE = 2

# mypy and ruff cannot see through numba: kernels carry no annotations.
# ruff: noqa: ANN001, ANN202, PLR0913
# mypy: disable-error-code="no-untyped-def,no-untyped-call"


@compiled
def form(line, q, following, size, max_batch, slots):
    """Form batches ahead of an idle instance, as the batcher thread does, until the slots are full or the last one is open."""
    while line[q, UNFORMED] >= 0 and line[q, AHEAD] < slots and line[q, OPEN] == 0:
        k = line[q, UNFORMED]
        line[q, LAST_HEAD] = k
        run = 1
        while run < max_batch and k != line[q, TAIL] and size[following[k]] == size[k]:
            k = following[k]
            run += 1
        line[q, AHEAD] += 1
        line[q, LAST_RUN] = run
        if k != line[q, TAIL]:
            line[q, UNFORMED] = following[k]
        else:
            line[q, UNFORMED] = -1
            line[q, OPEN] = 1 if run < max_batch else 0


@compiled
def arrived(line, q, k, now_s, following, entered_s, size, max_batch, slots, delay_s):
    """Request k, which stands at the end of line q, as the batcher thread sees it."""
    if line[q, UNFORMED] >= 0:
        return
    if line[q, OPEN] == 1:
        if size[k] == size[line[q, LAST_HEAD]]:
            line[q, LAST_RUN] += 1
            if line[q, LAST_RUN] == max_batch:
                line[q, OPEN] = 0
            return
        if now_s - entered_s[line[q, LAST_HEAD]] < delay_s:
            line[q, OPEN] = 0  # it still waited for mates and is sent as it is
    line[q, UNFORMED] = k
    form(line, q, following, size, max_batch, slots)


@compiled
def taken(line, q, following, size, max_batch, slots):
    """The first batch of line q began to execute."""
    line[q, AHEAD] = max(line[q, AHEAD] - 1, 0)
    if line[q, AHEAD] == 0:
        line[q, OPEN] = 0
    if line[q, COUNT] == 0:
        line[q, UNFORMED] = -1
    form(line, q, following, size, max_batch, slots)


@compiled
def poll(line, q, group, times, key, g, now_s, slots):
    """Start or end the polling of line q's batcher thread: it never sleeps while the last batch that it formed is open, waits for
    an instance, and a request of another shape stands behind it. Returns core-seconds computed since group g was last touched.
    """
    polls = 1 if line[q, OPEN] == 1 and line[q, UNFORMED] >= 0 and line[q, AHEAD] < slots else 0
    if polls == line[q, POLLS]:
        return 0.0
    used = touch(group, times, g, now_s)
    group[g, POLLERS] += polls - line[q, POLLS]
    line[q, POLLS] = polls
    aim(group, times, key, g)
    return used
