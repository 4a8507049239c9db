"""Triton's batcher thread where a config names preferred batch sizes, compiled: which requests become a batch, and when.

What enters is a waiting line, what leaves are batches that wait for an instance. Where none are named the largest batch is the only
preferred one, and batches need not be formed ahead (`_kernels`), unless shapes are fixed and there is a delay. Otherwise what was
formed when decides, so the thread's rounds are followed (`BatcherThread`, `GetDynamicBatch` and `InstanceQueue::Dequeue` of Triton's
core). A round looks at the batch that was formed last, which may grow until an instance takes it, and at the requests behind it:

* the largest preferred size that they reach is sent at once, without a delay also closed; without a delay what is there is sent anyway;
* if the batch cannot grow (another shape behind it, the limit) or is beyond every preferred size, all that fit go, and it is closed;
* if the oldest has waited for the delay, all that fit go; else the thread waits for that, or tops up a batch of no preferred size;
* an instance that takes a batch adds those behind it whose oldest has waited longer than the delay, as long as they fit;
* two batches an instance are formed ahead, no more. Requests in a batch neither expire nor count as queued.

An idle instance takes a batch after the thread has gone to sleep: the thread runs on, the instance has to be woken.
"""

from __future__ import annotations

import numpy as np

from deployctl.core._batcher_kernel import AHEAD, LAST_HEAD, LAST_RUN, OPEN, UNFORMED
from deployctl.core._kernels import COUNT, EXPIRED, HEAD, TAIL, compiled

# More columns of the waiting lines: requests in formed batches, the last of them, and the queued requests that wake the thread.
FORMED, FORMED_TAIL, WAKES = 12, 13, 14
# Of a stage's row of preferred sizes: the largest (0: none are named); 1 at each of them; whether its shapes are fixed.
LARGEST, FIXED = 0, -1

# mypy and ruff cannot see through numba: kernels carry no annotations.
# ruff: noqa: ANN001, ANN202, PLR0913, PLR0915, C901
# mypy: disable-error-code="no-untyped-def,no-untyped-call"


@compiled
def front(line, q, following):
    """The first request of line q that is in no batch, -1: none."""
    if line[q, COUNT] == line[q, FORMED]:
        return -1
    return line[q, HEAD] if line[q, FORMED] == 0 else following[line[q, FORMED_TAIL]]


@compiled
def sleeps_on(line, q, preferred):
    """Whether an arrival leaves the thread asleep: where shapes are fixed it is woken only when a next preferred size is reached."""
    return preferred[FIXED] == 1 and line[q, OPEN] == 1 and line[q, COUNT] - line[q, FORMED] < line[q, WAKES]


@compiled
def _expire(line, q, h, following):
    """Take request h, the first that is in no batch, out of line q."""
    if line[q, FORMED] == 0:
        line[q, HEAD] = following[h]
    else:
        following[line[q, FORMED_TAIL]] = following[h]
        if line[q, TAIL] == h:
            line[q, TAIL] = line[q, FORMED_TAIL]
    line[q, COUNT] -= 1


@compiled
def _next_size(preferred, batch, max_batch):
    """The smallest preferred size above `batch`, which is below the largest."""
    b = batch + 1
    while b < max_batch and preferred[b] == 0:
        b += 1
    return b


@compiled
def form_preferred(line, q, now_s, following, entered_s, size, max_batch, slots, delay_s, timeout_s, preferred, formed, done):
    """Let the thread of line q go round until it sleeps. Returns (when it wakes by itself, infinity: never; requests that expired)."""
    line[q, UNFORMED] = -1
    expired = 0
    while line[q, COUNT] > line[q, FORMED] and line[q, AHEAD] < slots:
        h = front(line, q, following)
        if timeout_s > 0.0 and now_s >= entered_s[h] + timeout_s:
            done[h] = EXPIRED
            expired += 1
            _expire(line, q, h, following)
            continue
        has = line[q, LAST_RUN] if line[q, OPEN] == 1 else 0
        shape = size[line[q, LAST_HEAD]] if has > 0 else size[h]
        left = line[q, COUNT] - line[q, FORMED]
        fit, best, last, k = 0, 0, -1, h
        while left > 0 and has + fit < max_batch and size[k] == shape:
            fit += 1
            left -= 1
            if preferred[has + fit] == 1:
                best = fit
            k = following[k] if left > 0 else k
        blocked = left > 0
        other = blocked and has + fit < max_batch
        beyond = has >= preferred[LARGEST]
        if beyond and fit + (1 if blocked else 0) >= 2:
            best = 1  # beyond every preferred size it grows by one
        exceeded = delay_s > 0.0 and now_s >= entered_s[h] + delay_s
        closes = beyond
        take = fit
        if best > 0 and not exceeded:
            take = best
            closes = beyond or delay_s == 0.0
        elif blocked or has + fit >= preferred[LARGEST]:
            closes = beyond or fit > 0
        elif not exceeded and delay_s > 0.0:
            line[q, WAKES] = _next_size(preferred, has + fit, max_batch) - has
            if has == 0 or preferred[has] == 1:
                return entered_s[h] + (min(delay_s, timeout_s) if timeout_s > 0.0 else delay_s), expired
        if take > 0:
            if has == 0:
                formed[q, line[q, AHEAD]] = 0
                line[q, AHEAD] += 1
                line[q, LAST_HEAD] = h
                line[q, LAST_RUN] = 0
            last = h
            for _ in range(take - 1):
                last = following[last]
            line[q, LAST_RUN] += take
            line[q, FORMED] += take
            line[q, FORMED_TAIL] = last
            formed[q, line[q, AHEAD] - 1] += 2 * take
        if other:
            formed[q, line[q, AHEAD] - 1] |= 1
        line[q, OPEN] = 0 if closes else 1
        if closes:
            line[q, WAKES] = 0
        elif take == 0:
            line[q, UNFORMED] = h  # nothing to add and nothing to wait for: it goes round without sleeping
            break
    return np.inf, expired


@compiled
def dequeue(line, q, now_s, following, entered_s, size, max_batch, delay_s, formed):
    """An instance takes the first batch of line q and those that join it; returns their requests, which stay at the line's head."""
    members = formed[q, 0] >> 1
    taken = 1
    if delay_s > 0.0 and max_batch > 1 and formed[q, 0] & 1 == 0:
        k = line[q, HEAD]
        for _ in range(members if line[q, AHEAD] > 1 else 0):
            k = following[k]
        while taken < line[q, AHEAD] and formed[q, taken] & 1 == 0 and now_s > entered_s[k] + delay_s:
            more = formed[q, taken] >> 1
            if taken == line[q, AHEAD] - 1:
                line[q, OPEN] = 0  # once looked at it grows no more, whether it joins or not
                line[q, WAKES] = 0
            if members + more > max_batch or size[k] != size[line[q, HEAD]]:
                break
            members += more
            taken += 1
            for _ in range(more if taken < line[q, AHEAD] else 0):
                k = following[k]
    line[q, AHEAD] -= taken
    for j in range(line[q, AHEAD]):
        formed[q, j] = formed[q, j + taken]
    if line[q, AHEAD] == 0:
        line[q, OPEN] = 0
        line[q, WAKES] = 0
    line[q, FORMED] -= members
    return members
