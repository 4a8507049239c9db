"""What the simulator's two compiled machines share: column names, Triton's batching rule, a heap. Arrays in, arrays out.

`_station_kernel` is one stage with its own processors: a loop over arrivals that never needs an event list. `_cluster_kernel` is
everything else: several stages, cores that are shared, replicas that come and go. Both form batches as Triton's dynamic batcher
does (its core, `src/dynamic_batch_scheduler.cc`): from the front of the queue, only equal shapes, sent when the batch is full, when
a request of another shape stands behind it, or when its oldest member has waited for the delay; an idle instance is needed.
Nothing here draws random numbers: unit noise comes in as arrays.

Columns are named by constants, and all memory is allocated outside: the loops are compiled without numba's reference counting
(`_nrt=False`), which otherwise costs an atomic operation per array and call and made the same loops seven times slower. They are
long because a call would pass twenty arrays. Compiled code is kept beside each file; where the installation is read-only it is
compiled anew in each process.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numba import njit

LEAST_CONN, RANDOM, ROUND_ROBIN = 0, 1, 2
# What `done` says for a request that got no answer (times are never negative).
REJECTED, EXPIRED = -1.0, -2.0
FLOOR = 0.001  # a noisy service time never falls below this share of its mean

# Columns of the waiting lines, one row a line.
HEAD, TAIL, COUNT, RUN, TIMER, BUSY = 0, 1, 2, 3, 4, 5
# Columns of a stage's whole numbers and of its seconds.
MAX_BATCH, INSTANCES, QUEUE_SIZE = 0, 1, 2
DELAY_S, TIMEOUT_S, CPU_RATIO = 0, 1, 2


def compiled(function: Any, *, allocates: bool = False) -> Any:
    """Numba's njit with an on-disk cache, or without one where the folder of this file cannot be written.

    Numba notices a change in the file of `function` only, but its machine code also holds functions and constants of other files. So
    a digest of all that it uses becomes part of its name, by which the cache finds it.

    Args:
        function: uses only what stands before it.
        allocates: it makes arrays, which needs numba's reference counting.
    """
    options: dict[str, Any] = {"nogil": True} if allocates else {"nogil": True, "_nrt": False}
    function.__qualname__ += f"-{uses(function)}"
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # numba: "cannot cache function: no locator available"
        return njit(**options)(function)


def uses(function: Any) -> str:
    """Digest of what machine code is made of: the function's own code, and the numbers and compiled functions that it names."""
    code = function.__code__
    parts: list[object] = [code.co_code, [getattr(c, "co_code", c) for c in code.co_consts]]
    for name in code.co_names:
        value = function.__globals__.get(name)
        parts.append((name, value if isinstance(value, (int, float)) else getattr(getattr(value, "py_func", None), "__qualname__", "")))
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


# mypy and ruff cannot see through numba: kernels carry no annotations.
# ruff: noqa: ANN001, ANN202
# mypy: disable-error-code="no-untyped-def,no-untyped-call"


@compiled
def scan(line, r, closed_s, following, at_s, size, max_batch):
    """Length of the run of equal sizes at the front of line r, and when it became complete."""
    left = line[r, COUNT]
    run = 0
    closed = np.inf
    if left > 0:
        k = line[r, HEAD]
        first = size[k]
        while True:
            if size[k] != first:
                closed = at_s[k]
                break
            run += 1
            if run == max_batch:
                closed = at_s[k]
                break
            left -= 1
            if left == 0:
                break
            k = following[k]
    line[r, RUN] = run
    closed_s[r] = closed


@compiled
def join(line, r, k, now_s, closed_s, following, size, max_batch):
    """Request k stands at the end of line r from now on."""
    if line[r, COUNT] == 0:
        line[r, HEAD] = k
        line[r, RUN] = 1
        closed_s[r] = now_s if max_batch == 1 else np.inf
    else:
        following[line[r, TAIL]] = k
        if closed_s[r] == np.inf:
            if size[k] == size[line[r, HEAD]]:
                line[r, RUN] += 1
                if line[r, RUN] == max_batch:
                    closed_s[r] = now_s
            else:
                closed_s[r] = now_s
    line[r, TAIL] = k
    line[r, COUNT] += 1


@compiled
def push(keys, ids, n, key, value):
    """Binary heap insert; n is the present size."""
    i = n
    while i > 0:
        parent = (i - 1) >> 1
        if keys[parent] <= key:
            break
        keys[i] = keys[parent]
        ids[i] = ids[parent]
        i = parent
    keys[i] = key
    ids[i] = value


@compiled
def pop(keys, ids, n):
    """Remove the smallest of n entries; returns its id."""
    top = ids[0]
    key = keys[n - 1]
    value = ids[n - 1]
    n -= 1
    i = 0
    while True:
        child = 2 * i + 1
        if child >= n:
            break
        if child + 1 < n and keys[child + 1] < keys[child]:
            child += 1
        if keys[child] >= key:
            break
        keys[i] = keys[child]
        ids[i] = ids[child]
        i = child
    if n > 0:
        keys[i] = key
        ids[i] = value
    return top
